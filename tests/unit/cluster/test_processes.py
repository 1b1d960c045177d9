"""Ending the processes that carry a marker."""

import os
import signal
import subprocess
import sys

import pytest

from e2e.cluster import processes


def test_one_that_ends_before_the_signal_comes_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the look at its environment and the signal a process may end by itself."""
    marker = f"AIXCODER_TEST_MARKER={os.getpid()}"
    name, _, value = marker.partition("=")
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, env={**os.environ, name: value})
    signalled: list[int] = []

    def too_late(descriptor: int, number: int) -> None:
        signalled.append(number)
        child.communicate()
        raise ProcessLookupError

    monkeypatch.setattr(signal, "pidfd_send_signal", too_late)
    assert processes.kill_marked(marker) == 1
    assert signalled == [signal.SIGKILL]
    assert processes.marked(marker) == []


def test_what_is_stopped_goes_on_afterwards_or_may_be_killed_meanwhile() -> None:
    with subprocess.Popen(["sleep", "60"]) as child:
        with processes.stopped(child.pid):
            os.waitid(os.P_PID, child.pid, os.WSTOPPED)
        os.waitid(os.P_PID, child.pid, os.WCONTINUED)
        with processes.stopped(child.pid):
            child.kill()
            assert child.wait() == -signal.SIGKILL
    with pytest.raises(ProcessLookupError):
        processes.stopped(child.pid).__enter__()
