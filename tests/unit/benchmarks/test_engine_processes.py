import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import peer


def test_this_process_is_among_all() -> None:
    found = {process.pid: parent for process, parent in peer.processes().items()}
    assert found[os.getpid()] == os.getppid()


@pytest.mark.parametrize(
    ("name", "pid", "expected"),
    [("all below", 2, {2, 3, 4, 5}), ("none below", 5, {5}), ("another family", 6, {6}), ("gone", 9, set())],
)
def test_who_descends_from_a_process(name: str, pid: int, expected: set[int], monkeypatch: pytest.MonkeyPatch) -> None:
    parents = {1: 0, 2: 1, 3: 2, 4: 2, 5: 4, 6: 1}
    monkeypatch.setattr(peer, "processes", lambda: {peer.Process(n, "0"): parent for n, parent in parents.items()})
    assert {process.pid for process in peer.family(pid)} == expected, name


def test_peak_memory() -> None:
    assert peer.peak_mb(os.getpid()) > 5
    gone = int(Path("/proc/sys/kernel/pid_max").read_text()) + 1
    assert peer.peak_mb(gone) == 0.0


def test_a_forked_process_counts_with_what_it_has_alone() -> None:
    program = (
        "import os, sys\n"
        "shared = bytearray(os.urandom(1)) * 40_000_000\n"
        "if os.fork() == 0:\n"
        "    own = bytearray(os.urandom(1)) * 20_000_000\n"
        "    print(os.getpid(), flush=True)\n"
        "    sys.stdin.read()\n"
        "    os._exit(0)\n"
        "os.wait()\n"
    )
    command = [sys.executable, "-c", program]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        child = int(process.stdout.readline())
        assert peer.forked(child)
        assert not peer.forked(process.pid)
        assert 20 <= peer.alone_mb(child) < 35
        assert peer.peak_mb(process.pid) > 40
        process.communicate()
    assert not peer.forked(child)
    assert peer.alone_mb(child) == 0.0
