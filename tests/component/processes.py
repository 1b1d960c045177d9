"""The processes of an engine, found from outside as an operator of a machine would."""

import asyncio
import time
from collections.abc import Collection
from pathlib import Path

_GUARD_SECONDS = 20.0


def children(pid: int) -> list[int]:
    """Of all threads of a process."""
    found = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            found += [int(child) for child in task.read_text().split()]
        except OSError:
            continue  # a thread that has ended
    return found


def engines(pid: int) -> list[int]:
    """Engine processes that a process started and that have not ended."""
    return [child for child in children(pid) if b"aixcoder_serving.engine" in _command(child)]


def ranks(engine: int) -> list[int]:
    """An engine's processes, the first rank first."""
    return [engine, *sorted(children(engine))]


async def until_gone(pids: list[int]) -> None:
    """Wait for the end of them all."""
    deadline = time.monotonic() + _GUARD_SECONDS
    while left := [pid for pid in pids if _command(pid)]:
        assert time.monotonic() < deadline, f"{left} stayed behind"
        await asyncio.sleep(0.02)


async def until_engine(pid: int, *, but: Collection[int] = ()) -> int:
    """Wait until a process has started an engine, other than those in `but`; returns its process."""
    deadline = time.monotonic() + _GUARD_SECONDS
    while not (found := set(engines(pid)) - {*but}):
        assert time.monotonic() < deadline, "no engine was started"
        await asyncio.sleep(0.02)
    return found.pop()


def _command(pid: int) -> bytes:
    """Empty where it has ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""
