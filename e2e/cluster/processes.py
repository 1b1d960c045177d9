"""Find and end the processes of a cluster by a marker in their environment.

A marker needs no record that a killed `up` might have failed to write, and cannot name a stranger's process: the
process is held by a pidfd while its environment is read, so the id cannot be recycled in between.
"""

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from e2e.cluster.errors import ClusterError

NAME_CHARACTERS = 15


@dataclass(frozen=True)
class Process:
    """A running process: its id, when it started (clock ticks since boot), program name and resident memory.

    Of the name the kernel keeps `NAME_CHARACTERS`.
    """

    pid: int
    started: int
    program: str
    resident_bytes: int


def marked(marker: str) -> list[Process]:
    """All processes of the machine, whatever namespace they are in, whose environment holds the entry `marker`."""
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit() and _has(int(name), marker):
            try:
                found.append(_describe(int(name)))
            except OSError:  # ended meanwhile
                continue
    return found


def kill_marked(marker: str, *, seconds: float = 30) -> int:
    """Kill them all and wait until none is left; returns how many there were. Raises ClusterError if one stays."""
    deadline = time.monotonic() + seconds
    killed: set[int] = set()
    while found := marked(marker):
        for process in found:
            with _held(process.pid) as descriptor:
                if descriptor is not None and _has(process.pid, marker):
                    with suppress(ProcessLookupError):  # it has ended since
                        signal.pidfd_send_signal(descriptor, signal.SIGKILL)
                    killed.add(process.pid)
        if time.monotonic() > deadline:
            names = ", ".join(f"{process.program} ({process.pid})" for process in found)
            raise ClusterError(f"Killed, but not gone after {seconds:.0f} s: {names}.")
        time.sleep(0.05)
    return len(killed)


@contextmanager
def stopped(pid: int) -> Iterator[None]:
    """The process stands still while the block runs; it may be killed meanwhile. Raises ProcessLookupError."""
    descriptor = os.pidfd_open(pid)
    try:
        signal.pidfd_send_signal(descriptor, signal.SIGSTOP)
        try:
            yield
        finally:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(descriptor, signal.SIGCONT)
    finally:
        os.close(descriptor)


@contextmanager
def _held(pid: int) -> Iterator[int | None]:
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        yield None
        return
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _has(pid: int, marker: str) -> bool:
    # A zombie has no environment any more: it counts as gone.
    try:
        return marker.encode() in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return False


def _describe(pid: int) -> Process:
    program, _, rest = Path(f"/proc/{pid}/stat").read_text().partition("(")[2].rpartition(")")
    fields = rest.split()
    # Fields 22 and 24 of the whole line; `rest` begins with field 3.
    return Process(pid, int(fields[19]), program, int(fields[21]) * os.sysconf("SC_PAGE_SIZE"))
