import os
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
