"""A rank other than 0: its life as a forked process, and how it tells what went wrong in it."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn, Protocol

import torch

from aixcoder_serving.engine.interface import EngineClosed, LoadFailed
from aixcoder_serving.engine.ops import Collectives
from aixcoder_serving.engine.shared_memory import (
    GroupClosed,
    Member,
    RankLost,
    RanksDisagree,
    SharedMemory,
    SharedMemoryCollectives,
    StepAborted,
)
from aixcoder_serving.engine.watchdog import die_with_parent


class Closable(Protocol):
    """What can be closed: a socket, a file."""

    def close(self) -> object:
        """Close it."""
        ...


class Rank:
    """What the `main` of a rank works with."""

    def __init__(self, member: Member) -> None:
        self.rank = member.rank
        self.size = member.size
        self.collectives: Collectives = SharedMemoryCollectives(member)
        self._member = member

    def serve(self, work: Callable[[bytes], object]) -> None:
        """Run every command that comes, until the group is closed. Raises `RankLost`."""
        while (payload := self._member.receive()) is not None:
            try:
                work(payload)
            except RankLost:
                raise
            except GroupClosed:
                return
            except StepAborted:
                pass
            except Exception as error:  # whatever it was, the others must not be kept waiting
                self._member.abort(str(told(error)))
            self._member.done()


@dataclass(frozen=True)
class Birth:
    """What a forked process needs to become a rank."""

    parent: int
    memory: SharedMemory
    main: Callable[[Rank], object]
    threads: int
    crowded: bool
    close: Sequence[Closable]


def live(birth: Birth, rank: int) -> NoReturn:
    """Be a rank, and end the process. Signals to the whole process group are rank 0's to act on."""
    code = 1
    try:
        die_with_parent(birth.parent)
        for name in (signal.SIGINT, signal.SIGTERM):
            signal.signal(name, signal.SIG_IGN)
        for each in birth.close:
            each.close()
        torch.set_num_threads(birth.threads)
        birth.main(Rank(Member(birth.memory, rank, crowded=birth.crowded)))
        code = 0
    except RankLost as lost:
        print(f"rank {rank} ends: {lost}", file=sys.stderr)
    except BaseException as error:
        print(f"rank {rank} ends: {told(error).sentence}", file=sys.stderr)
    finally:
        with contextlib.suppress(OSError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)  # nothing of rank 0's may run here: no exit handler, no finaliser


def require_one_thread() -> None:
    """Raise `RuntimeError` where a fork would leave threads behind."""
    count = len(os.listdir("/proc/self/task"))
    if count > 1 or threading.current_thread() is not threading.main_thread():
        raise RuntimeError(
            f"ranks are forked by a process's only thread and this process has {count}: fork before anything is "
            "computed, and start the process with OPENBLAS_NUM_THREADS=1"
        )


@dataclass(frozen=True)
class Told:
    """What is told of an exception: what `fault` makes of it, and a sentence without any data.

    `reason`: that of a `LoadFailed`, "EngineClosed", or empty.
    """

    reason: str
    sentence: str

    def __str__(self) -> str:
        return f"{self.reason}\n{self.sentence}"

    @classmethod
    def parse(cls, text: str) -> Told:
        """Undo `str`."""
        reason, _, sentence = text.partition("\n")
        return cls(reason, sentence)


def told(error: BaseException) -> Told:
    """Type and place; of the message only what cannot hold a token or a text of anybody's."""
    if isinstance(error, LoadFailed):
        return Told(error.reason, str(error))
    if isinstance(error, EngineClosed):
        return Told("EngineClosed", str(error))
    if isinstance(error, MemoryError | torch.OutOfMemoryError) or "can't allocate memory" in str(error):
        what = "out of memory"
    elif isinstance(error, RanksDisagree):
        what = str(error)
    elif isinstance(error, OSError):
        what = f"{type(error).__name__}: {error.strerror}"
    else:
        what = type(error).__name__
    frames = traceback.extract_tb(error.__traceback__)
    package = Path(__file__).parent.name
    ours = [frame for frame in frames if Path(frame.filename).parent.name == package] or frames
    return Told("", f"{what}, in {Path(ours[-1].filename).name} line {ours[-1].lineno}" if ours else what)
