"""Files that the safetensors library wrote, and files that are broken."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from aixcoder_serving.engine import tensorfile
from aixcoder_serving.engine.interface import LoadFailed
from aixcoder_serving.engine.tensorfile import TensorFile

MATRIX = torch.arange(60.0).view(6, 10)


@pytest.fixture
def opened(tmp_path: Path) -> Callable[[torch.dtype], TensorFile]:
    def make(dtype: torch.dtype) -> TensorFile:
        tensors = {"before": torch.ones(3), "m": MATRIX.to(dtype), "norm": torch.arange(4.0).to(dtype)}
        save_file(tensors, tmp_path / "t.safetensors", {"format": "pt"})
        return TensorFile(tmp_path / "t.safetensors")

    return make


@pytest.mark.parametrize("stored", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("wanted", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize(
    ("rows", "columns"),
    [
        (range(6), None),
        (range(6), range(10)),
        (range(2, 5), None),
        (range(6), range(4, 8)),
        (range(1, 2), range(9, 10)),
        (range(6, 6), None),
        (range(6), range(3, 3)),
    ],
)
@pytest.mark.parametrize("staging_bytes", [2**20, 50, 1])
def test_a_part_in_any_format(
    opened: Callable[[torch.dtype], TensorFile],
    monkeypatch: pytest.MonkeyPatch,
    stored: torch.dtype,
    wanted: torch.dtype,
    rows: range,
    columns: range | None,
    staging_bytes: int,
) -> None:
    monkeypatch.setattr(tensorfile, "_STAGING_BYTES", staging_bytes)
    file = opened(stored)
    part = MATRIX[rows.start : rows.stop]
    if columns is not None:
        part = part[:, columns.start : columns.stop]
    target = torch.full(part.shape, -1.0, dtype=wanted)
    file.read("m", rows, columns, target)
    file.close()
    assert torch.equal(target, part.to(wanted))


def test_a_vector(opened: Callable[[torch.dtype], TensorFile]) -> None:
    file, target = opened(torch.bfloat16), torch.empty(2)
    file.read("norm", range(1, 3), None, target)
    file.close()
    assert target.tolist() == [1.0, 2.0]


def test_rounding_is_torch_own(tmp_path: Path) -> None:
    numbers = torch.randn(1000, generator=torch.Generator().manual_seed(1))
    save_file({"t": numbers}, tmp_path / "t.safetensors")
    file, target = TensorFile(tmp_path / "t.safetensors"), torch.empty(1000, dtype=torch.bfloat16)
    file.read("t", range(1000), None, target)
    file.close()
    assert torch.equal(target, numbers.bfloat16())


def test_short_reads_go_on(opened: Callable[[torch.dtype], TensorFile], monkeypatch: pytest.MonkeyPatch) -> None:
    """The system may read less than was asked for."""
    file, target, read = opened(torch.float32), torch.empty(6, 10), os.preadv
    monkeypatch.setattr("os.preadv", lambda descriptor, buffers, start: read(descriptor, [buffers[0][:7]], start))
    file.read("m", range(6), None, target)
    file.close()
    assert torch.equal(target, MATRIX)


def _file(header: Any, data: bytes = b"", length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return (len(text) if length is None else length).to_bytes(8, "little") + text + data


def _entry(dtype: str = "F32", shape: Any = (2,), offsets: Any = (0, 8)) -> dict[str, Any]:
    return {"w": {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "has 0 bytes and no header: it is no safetensors file, or the copy is incomplete"),
        (b"1234567", "has 7 bytes and no header"),
        (b"version https://git-lfs.github.com/spec/v1\n", "has 43 bytes and no header"),
        (_file({}, length=3000), "has 10 bytes and no header"),
        (_file(b"\x00" * 100), "has a corrupt header: copy the file again"),
        (_file(b"\xff\xfe{}"), "has a corrupt header"),
        (_file(b"[]"), "has a corrupt header"),
        (_file({"w": 3}), "has a corrupt header"),
        (_file({"w": {}}), "has a corrupt header"),
        (_file({"w": {"dtype": "F32", "shape": [2], "data_offsets": [0]}}, bytes(8)), "has a corrupt header"),
        (_file(_entry(shape=["x"]), bytes(8)), "has a corrupt header"),
        (_file(_entry(shape=[-2]), bytes(8)), "has a corrupt header at w"),
        (_file(_entry(offsets=(-8, 0)), bytes(8)), "has a corrupt header at w"),
        (_file(_entry(), bytes(7)), "has 76 bytes and should have 77: the copy is incomplete"),
        (_file(_entry(shape=[3]), bytes(8)), r"gives w 8 bytes, which is not its shape \[3\] in F32"),
        (_file(_entry("BF16"), bytes(8)), r"gives w 8 bytes, which is not its shape \[2\] in BF16"),
    ],
)
def test_a_broken_file(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    with pytest.raises(LoadFailed, match=message) as failed:
        TensorFile(path)
    assert failed.value.reason == "ModelInvalid"
    assert str(failed.value).startswith(str(path))


def test_a_format_that_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "m").write_bytes(_file(_entry("F8_E4M3", offsets=(0, 2)), bytes(2)))
    file = TensorFile(tmp_path / "m")
    with pytest.raises(LoadFailed, match="holds w as F8_E4M3; F32, BF16, F16 can be read"):
        file.dtype("w")
    file.close()


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(LoadFailed, match="m can not be read: No such file"):
        TensorFile(tmp_path / "m")


def test_a_file_that_shrinks_after_it_was_opened(tmp_path: Path) -> None:
    (tmp_path / "m").write_bytes(_file(_entry(), bytes(8)))
    file = TensorFile(tmp_path / "m")
    (tmp_path / "m").write_bytes(_file(_entry(), bytes(5)))
    with pytest.raises(LoadFailed, match="m ends within w: the copy is incomplete"):
        file.read("w", range(2), None, torch.empty(2))
    file.close()


def test_a_disk_that_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "m").write_bytes(_file(_entry(), bytes(8)))
    file = TensorFile(tmp_path / "m")

    def fail(*_args: Any) -> int:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr("os.preadv", fail)
    with pytest.raises(LoadFailed, match="can not be read at w: Input/output error"):
        file.read("w", range(2), None, torch.empty(2))
    file.close()
