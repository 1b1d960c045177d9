"""The rank processes of one engine: rank 0 forks the others and tells them what to do, one command at a time.

A command is run by all ranks and ends when all have ended it. Where one fails, it says so in shared memory; the others
leave their collectives, and the next command finds all of them at the same point again. A rank that is dead or frozen
ends the group: it is noticed within 2 s, by whoever waits for it in a command and by rank 0 between commands.
"""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from typing import TypeVar, cast

import torch

from aixcoder_serving.engine.collectives import OneRank
from aixcoder_serving.engine.cpu import library
from aixcoder_serving.engine.interface import EngineClosed, LoadFailed, LoadFailure
from aixcoder_serving.engine.ops import Collectives
from aixcoder_serving.engine.rank_process import Birth, Closable, Rank, Told, live, require_one_thread, told
from aixcoder_serving.engine.shared_memory import (
    FREEZE_SECONDS,
    Member,
    RankLost,
    RanksDisagree,
    SharedMemory,
    SharedMemoryCollectives,
    StepAborted,
)
from aixcoder_serving.engine.threads import cores
from aixcoder_serving.engine.watchdog import Heartbeat

__all__ = ["Rank", "RankGroup", "RankLost", "RanksDisagree", "StepAborted", "StepFailed"]

T = TypeVar("T")

_CLOSE_SECONDS = 2.0
"""How long ranks may take to end by themselves before they are killed."""


class StepFailed(RuntimeError):
    """A command failed in `rank` and was abandoned by all; the group goes on. Says where and why, without any data."""

    def __init__(self, rank: int, message: str) -> None:
        super().__init__(f"rank {rank}: {message}")
        self.rank = rank


class RankGroup:
    """All ranks, seen from rank 0. Not for several threads."""

    def __init__(self, size: int, heartbeat: Heartbeat | None, member: Member | None) -> None:
        self.size = size
        self.failure: str | None = None
        """Which rank was lost, and how; no command succeeds any more."""
        self.collectives: Collectives = SharedMemoryCollectives(member) if member else _Alone(heartbeat)
        self._heartbeat = heartbeat
        self._member = member
        self._pids: list[int] = []

    @classmethod
    def fork(
        cls,
        size: int,
        main: Callable[[Rank], object],
        *,
        threads: int = 1,
        heartbeat: Heartbeat | None = None,
        close: Sequence[Closable] = (),
        freeze_seconds: float = FREEZE_SECONDS,
    ) -> RankGroup:
        """Start the other ranks; each runs `main` and ends with it. Each, 0 too, computes with `threads` threads.

        The process must have one thread, this one, and must not have touched a GPU: a fork has none of the other
        threads, so it would wait forever for a pool's, and CUDA does not survive it. Importing torch before is what
        makes the start cheap; numpy's threads are kept away by OPENBLAS_NUM_THREADS=1 in the environment. Raises
        `RuntimeError` otherwise, and `LoadFailed` where the native library is not there. With one rank nothing is
        started and none of this matters.

        `heartbeat` shows rank 0's movement to another process. `close`: what only rank 0 may hold open, such as its
        socket.
        """
        if size == 1:
            torch.set_num_threads(threads)
            return cls(size, heartbeat, None)
        require_one_thread()
        try:
            memory = SharedMemory(size, library.load(), freeze_seconds)
        except library.LibraryMissing as missing:
            raise LoadFailed("EngineFailed", f"{size} ranks on one machine talk by native code: {missing}") from missing
        crowded = size * threads > cores()
        birth = Birth(os.getpid(), memory, main, threads, crowded, close)
        member = Member(memory, 0, crowded=crowded, heartbeat=heartbeat)
        group = cls(size, heartbeat, member)
        gc.freeze()  # a collection would write to every object, and so copy what the ranks share
        sys.stdout.flush()
        sys.stderr.flush()
        try:
            for rank in range(1, size):
                pid = os.fork()
                if pid == 0:
                    live(birth, rank)
                group._pids.append(pid)
                member.started(rank, pid)
        except OSError:
            group.close()
            raise
        torch.set_num_threads(threads)
        return group

    @property
    def pids(self) -> tuple[int, ...]:
        """The processes of ranks 1 and after, in their order."""
        return tuple(self._pids)

    def run(self, payload: bytes, work: Callable[[], T], *, patient: bool = False) -> T:
        """One command: `work()` here, `payload` to the work of the others. Rank 0's result, once all have ended it.

        `patient`: a rank may be silent for long, as in loading; only its death is looked for. Raises `LoadFailed` where
        a rank did, `EngineClosed` where its device is lost, `StepFailed` for any other exception of a rank, `RankLost`,
        and `ValueError` for a payload over 64 MiB. What the ranks did to their own state in a command that failed is
        not undone.
        """
        self._beat(patient)
        try:
            return self._run(self._member, payload, work, patient) if self._member else _run_alone(work)
        except RankLost as lost:
            self.failure = str(lost)
            raise
        finally:
            self._beat(patient=False)

    def check(self) -> None:
        """Between commands: show that rank 0 moves and look at the others. Call it every 250 ms. Raises `RankLost`."""
        if self._member is None:
            self._beat(patient=False)
            return
        try:
            self._member.watch()
        except RankLost as lost:
            self.failure = str(lost)
            raise

    def close(self) -> None:
        """End the other ranks; returns when none is left. Kills them after 2 s, at once where one was lost."""
        if self._member:
            self._member.close()
        deadline = time.monotonic() + (0 if self.failure else _CLOSE_SECONDS)
        while self._pids:
            pid = self._pids[-1]
            with contextlib.suppress(ChildProcessError):
                if time.monotonic() >= deadline:
                    os.kill(pid, signal.SIGKILL)
                    os.waitpid(pid, 0)
                elif os.waitpid(pid, os.WNOHANG)[0] == 0:
                    time.sleep(0.002)
                    continue
            self._pids.pop()

    def _beat(self, patient: bool) -> None:
        if self._heartbeat:
            self._heartbeat.beat()
            self._heartbeat.patient = patient

    @staticmethod
    def _run(member: Member, payload: bytes, work: Callable[[], T], patient: bool) -> T:
        member.send(payload, patient=patient)
        cause: Exception | None = None
        result: T | None = None
        try:
            result = work()
        except RankLost:
            raise
        except StepAborted:
            pass  # the rank that failed tells why
        except Exception as error:
            cause = error
            member.abort(str(told(error)))
        except BaseException:  # an interrupt; the others must come to the next command all the same
            member.abort(str(Told("", "interrupted")))
            member.done()
            member.wait_done()
            raise
        member.done()
        member.wait_done()
        if failed := member.aborted():
            raise _failure(failed[0], Told.parse(failed[1])) from cause
        return cast(T, result)


class _Alone(OneRank):
    """The only rank, which is watched from outside all the same."""

    def __init__(self, heartbeat: Heartbeat | None) -> None:
        self._heartbeat = heartbeat

    def beat(self) -> None:
        if self._heartbeat:
            self._heartbeat.beat()


def _run_alone(work: Callable[[], T]) -> T:
    try:
        return work()
    except Exception as error:
        raise _failure(0, told(error)) from error


def _failure(rank: int, what: Told) -> Exception:
    if what.reason == "EngineClosed":
        return EngineClosed(what.sentence)
    if what.reason:
        return LoadFailed(cast(LoadFailure, what.reason), what.sentence)
    return StepFailed(rank, what.sentence)
