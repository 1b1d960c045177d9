import os
from pathlib import Path

import pytest

from aixcoder_serving.engine.threads import cores, engine_threads


def _root(tmp_path: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        pytest.param({}, 8, id="no control group"),
        pytest.param({"sys/fs/cgroup/cpu.max": "max 100000\n"}, 8, id="version 2 without a limit"),
        pytest.param({"sys/fs/cgroup/cpu.max": "400000 100000\n"}, 4, id="version 2"),
        pytest.param({"sys/fs/cgroup/cpu.max": "250000 100000\n"}, 3, id="a part of a core is a core"),
        pytest.param({"sys/fs/cgroup/cpu.max": "5000 100000\n"}, 1, id="less than a core"),
        pytest.param({"sys/fs/cgroup/cpu.max": "6400000 100000\n"}, 8, id="more than there is"),
        pytest.param(
            {"sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n", "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n"},
            8,
            id="version 1 without a limit",
        ),
        pytest.param(
            {"sys/fs/cgroup/cpu/cpu.cfs_quota_us": "200000\n", "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n"},
            2,
            id="version 1",
        ),
    ],
)
def test_cores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: dict[str, str], expected: int) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: set(range(8)))
    root = _root(tmp_path, files)
    assert cores(root) == expected
    assert engine_threads(None, root) == max(1, expected - 1)
    assert engine_threads(5, root) == 5
