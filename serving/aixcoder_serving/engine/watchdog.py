"""Seeing from outside that a process has stopped moving, and not outliving one's parent."""

from __future__ import annotations

import ctypes
import mmap
import os
import signal
from time import monotonic

_LOOK_GAP = 0.6
"""Seconds. A longer time between two looks was the watcher's own sleep, or the whole machine's."""

_PR_SET_PDEATHSIG = 1
_COUNTER, _PATIENT = 0, 1  # words of the page


class Heartbeat:
    """A counter that one process moves and another one watches: a page of memory behind a file descriptor.

    The watcher makes it and starts the other process with `fd` among the descriptors to pass on; that one opens it by
    the number. Nothing has a name, so nothing is left behind.
    """

    def __init__(self, fd: int | None = None) -> None:
        self.fd = os.memfd_create("heartbeat") if fd is None else fd
        if fd is None:
            os.ftruncate(self.fd, mmap.PAGESIZE)
        self._words = (ctypes.c_uint64 * 2).from_buffer(mmap.mmap(self.fd, mmap.PAGESIZE))
        self._seen = self._words[_COUNTER]
        self._silent = 0.0
        self._looked = monotonic()

    def beat(self) -> None:
        """Show that this process moves."""
        self._words[_COUNTER] += 1

    @property
    def address(self) -> int:
        """Where the counter is, for native code that beats by itself: 64 bits. Valid while this object lives."""
        return ctypes.addressof(self._words)

    @property
    def patient(self) -> bool:
        """Whether the watched process said that what it does now can take long."""
        return bool(self._words[_PATIENT])

    @patient.setter
    def patient(self, value: bool) -> None:
        self._words[_PATIENT] = value

    def age(self) -> float:
        """Seconds for which the counter has not moved while it was looked at; 0 while `patient` or before any beat.

        Look at least twice a second: a longer time between two looks counts as 0.6 s, for then the watcher did not run.
        """
        now, count = monotonic(), self._words[_COUNTER]
        if count != self._seen or count == 0 or self.patient:
            self._seen, self._silent = count, 0.0
        else:
            self._silent += min(now - self._looked, _LOOK_GAP)
        self._looked = now
        return self._silent

    def close(self) -> None:
        """Give the descriptor back. Beats and looks are still possible: the page goes with the object."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


def die_with_parent(parent: int) -> None:
    """Have the kernel kill this process when the thread that started it ends; `parent` is the id of its process.

    Ends this process at once where the parent is gone already, for then no signal would come any more.
    """
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
        error = ctypes.get_errno()
        raise OSError(error, f"the kernel refused a signal for the parent's death: {os.strerror(error)}")
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGKILL)
