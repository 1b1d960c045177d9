"""Several engines loaded at once that take turns, and what their benchmarks' command lines share."""

from __future__ import annotations

import argparse
import json
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Any, TypeVar, get_args

import torch

from aixcoder_serving.engine.dtype import choose
from benchmarks.checkpoint import HEAD_DIM, KV_HEADS, LAYERS, Dtype
from benchmarks.peer import Peer, PeerFailed, Running
from benchmarks.peers.lines import Load

Json = dict[str, Any]
Tell = Callable[[Json], None]
T = TypeVar("T")

THREADS = "AIXCODER_BENCHMARK_THREADS"
"""In a driver's environment: for what must be said before anything is imported."""

CACHE_VALUES = 2 * LAYERS * KV_HEADS * HEAD_DIM
"""Numbers that a token's keys and values are."""


class Contest:
    """The engines that still run, on one data type. One that fails is told, once, and is out."""

    def __init__(self, bench: str, dtype: Dtype, tell: Tell) -> None:
        self._bench = bench
        self._dtype = dtype
        self._tell = tell
        self._running: dict[Peer, Running] = {}

    def load(self, peer: Peer, options: Load) -> None:
        """Start an engine and let it wait. Its settings go to standard error."""
        with self._guard(peer):
            start = time.monotonic()
            self._running[peer] = running = Running(peer, {THREADS: str(options.threads)})
            running.load(options)
            running.pause()
            told = {key: running.loaded.get(key) for key in ("version", "settings")}
            progress(f"{label(peer)}: loaded in {time.monotonic() - start:.1f} s: {json.dumps(told)}")

    def turn(self, peer: Peer, work: Callable[[Running], T]) -> T | None:
        """Let one engine work while all others wait; None where it is out."""
        if (running := self._running.get(peer)) is None:
            return None
        with self._guard(peer):
            running.resume()
            done = work(running)
            running.pause()
            return done
        return None

    def memory_mb(self, peer: Peer) -> float:
        """Peak memory so far; zero where the engine is out."""
        return self._running[peer].memory_mb() if peer in self._running else 0.0

    def row(self, peer: Peer) -> Json:
        """What a line about an engine begins with."""
        return {"bench": self._bench, "engine": peer.name, "dtype": self._dtype, "tp": peer.tensor_parallel}

    def end(self) -> None:
        """End all."""
        for running in self._running.values():
            running.end()

    @contextmanager
    def _guard(self, peer: Peer) -> Iterator[None]:
        try:
            yield
        except (PeerFailed, OSError) as error:
            self._tell({**self.row(peer), "error": str(error)})
            if (running := self._running.pop(peer, None)) is not None:
                running.end()


def end_on_sigterm() -> None:
    """Let SIGTERM end the benchmark as Ctrl-C does: with all its drivers, of which most are stopped by a signal."""

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupt)


def rotated(peers: Sequence[Peer], by: int) -> list[Peer]:
    """The same in the same order, beginning elsewhere: none is always behind the same other one."""
    start = by % len(peers)
    return [*peers[start:], *peers[:start]]


def cache_bytes(dtype: Dtype) -> int:
    """Bytes of a token's keys and values."""
    size: int = getattr(torch, dtype).itemsize
    return CACHE_VALUES * size


def label(peer: Peer) -> str:
    """How progress calls an engine."""
    return f"{peer.name} tp {peer.tensor_parallel}"


def progress(text: str) -> None:
    """Say what goes on."""
    print(text, file=sys.stderr, flush=True)


def tell(row: Json) -> None:
    """Print a line of the result."""
    print(json.dumps(row), flush=True)


def arguments_of(module: str, document: str | None, names: Sequence[str], environment: Mapping[str, str]) -> Parser:
    """A parser with what both benchmarks take. DTYPES in the environment stands for --dtypes."""
    parser = Parser(prog=f"python -m {module}", description=document)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--engines", default=",".join(names))
    parser.add_argument("--dtypes", default=environment.get("DTYPES") or ",".join(usual_dtypes()))
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2, help="of each engine, its ranks together")
    return parser


class Parser(argparse.ArgumentParser):
    """Exits with a sentence on a value that is none of those there are."""

    def chosen(self, option: str, text: str, choices: Sequence[str]) -> list[str]:
        """The words of a list such as `a,b`."""
        words = text.split(",")
        for word in words:
            if word not in choices:
                self.error(f"{option} {word!r} is none of {', '.join(choices)}")
        return words

    def dtypes(self, text: str) -> list[Dtype]:
        """The value of --dtypes."""
        return [dtype for dtype in get_args(Dtype) if dtype in self.chosen("--dtypes", text, get_args(Dtype))]


def usual_dtypes() -> list[str]:
    """float32, and bfloat16 where this processor is no slower at it."""
    return ["float32"] + (["bfloat16"] if choose("cpu", "bfloat16") == "bfloat16" else [])
