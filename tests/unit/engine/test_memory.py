from pathlib import Path

import pytest

from aixcoder_serving.engine.checkpoint import Checkpoint
from aixcoder_serving.engine.interface import LoadFailed
from aixcoder_serving.engine.memory import host_bytes, require

GIB = 2**30


@pytest.mark.parametrize(
    ("stored", "dtype", "available", "needed"),
    [
        ("bfloat16", "bfloat16", 15, None),
        ("bfloat16", "bfloat16", 13, "14.0"),
        ("bfloat16", "float32", 27, "28.0"),
        ("bfloat16", "float32", 28, None),
        ("float32", "float16", 7, None),
        ("float32", "float16", 6, "7.0"),
        (None, "float32", 13, "14.0"),
        (None, "bfloat16", 7, None),
    ],
)
def test_require(stored: str | None, dtype: str, available: int, needed: str | None) -> None:
    checkpoint = Checkpoint(Path("m"), 10, 10, stored, weight_bytes=14 * GIB)
    if needed is None:
        require(checkpoint, dtype, available * GIB, "here")
        return
    message = f"the weights need {needed} GiB as {dtype} and here has {available}.0 GiB"
    with pytest.raises(LoadFailed, match=message) as failed:
        require(checkpoint, dtype, available * GIB, "here")
    assert failed.value.reason == "OutOfMemory"


@pytest.mark.parametrize(
    ("limit", "expected"), [(None, 2048), ("max\n", 2048), ("1024\n", 1024), ("9999999999\n", 2048)]
)
def test_host_bytes(tmp_path: Path, limit: str | None, expected: int) -> None:
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/meminfo").write_text("MemTotal:  2 kB\nMemFree:  1 kB\n")
    if limit is not None:
        (tmp_path / "sys/fs/cgroup").mkdir(parents=True)
        (tmp_path / "sys/fs/cgroup/memory.max").write_text(limit)
    assert host_bytes(tmp_path) == expected
