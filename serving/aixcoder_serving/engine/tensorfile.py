"""Reading parts of a safetensors file into memory that is there already.

The format (github.com/huggingface/safetensors): 8 bytes of header length, little endian; the header, a JSON object of
name to dtype, shape and first and last byte, counted from the header's end; the numbers, row by row. The library maps
the file, and each page that it touches counts as this process's memory; `pread` leaves them in the page cache.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from aixcoder_serving.engine.interface import LoadFailed

_DTYPES = {"F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16}
_LENGTH_BYTES = 8
_STAGING_BYTES = 2**20


@dataclass(frozen=True, slots=True)
class Stored:
    """A tensor in a file: its dtype's name in the header and where it begins, in bytes from the file's start."""

    dtype: str
    shape: tuple[int, ...]
    start: int


class TensorFile:
    """An open file; `tensors` by name. Everything that is wrong with it raises `LoadFailed` (ModelInvalid)."""

    def __init__(self, path: Path) -> None:
        self.path = path
        # Made once: buffers that come and go between lasting ones leave holes in the heap.
        self._staging = torch.empty(_STAGING_BYTES, dtype=torch.uint8)
        try:
            self._file = os.open(path, os.O_RDONLY)
        except OSError as error:
            raise self._invalid(f"can not be read: {error.strerror}") from error
        try:
            self.tensors = self._header()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Nothing can be read any more."""
        os.close(self._file)

    def dtype(self, name: str) -> torch.dtype:
        """The number format of a tensor."""
        stored = self.tensors[name].dtype
        if stored not in _DTYPES:
            raise self._invalid(f"holds {name} as {stored}; {', '.join(_DTYPES)} can be read")
        return _DTYPES[stored]

    def read(self, name: str, rows: range, columns: range | None, target: Tensor) -> None:
        """Fill `target`, contiguous, on the CPU and of any dtype, with these rows and of them these columns, or all."""
        stored, dtype = self.tensors[name], self.dtype(name)
        width = prod(stored.shape[1:])
        columns = range(width) if columns is None else columns
        target = target.view(len(rows), len(columns))
        staged = target.dtype != dtype
        row_bytes = len(columns) * dtype.itemsize
        if staged and row_bytes > len(self._staging):
            self._staging = torch.empty(row_bytes, dtype=torch.uint8)
        step = max(1, len(self._staging) // max(row_bytes, 1)) if staged else len(rows)
        for first in range(0, len(rows), step or 1):
            part = target[first : first + step]
            chunk = self._staging[: part.numel() * dtype.itemsize].view(dtype).view(part.shape) if staged else part
            start = stored.start + (rows.start + first) * width * dtype.itemsize
            buffer = chunk.view(torch.uint8).numpy()
            if len(columns) == width:
                self._fill(name, buffer.reshape(-1).data, start)
            else:
                for n, row in enumerate(buffer):
                    self._fill(name, row.data, start + (n * width + columns.start) * dtype.itemsize)
            if staged:
                part.copy_(chunk)

    def _fill(self, name: str, buffer: memoryview, start: int) -> None:
        """One call of the system reads 2 GiB at most."""
        done = 0
        while done < len(buffer):
            try:
                count = os.preadv(self._file, [buffer[done:]], start + done)
            except OSError as error:
                raise self._invalid(f"can not be read at {name}: {error.strerror}") from error
            if not count:
                raise self._invalid(f"ends within {name}: the copy is incomplete")
            done += count

    def _header(self) -> dict[str, Stored]:
        size = os.fstat(self._file).st_size
        length = int.from_bytes(os.pread(self._file, _LENGTH_BYTES, 0), "little")
        data = _LENGTH_BYTES + length
        if size < _LENGTH_BYTES or data > size:
            raise self._invalid(f"has {size} bytes and no header: it is no safetensors file, or the copy is incomplete")
        try:
            header = json.loads(os.pread(self._file, length, _LENGTH_BYTES))
            entries = {name: entry for name, entry in header.items() if name != "__metadata__"}
            tensors = {name: self._entry(name, entry, data) for name, entry in entries.items()}
            end = max((data + int(entry["data_offsets"][1]) for entry in entries.values()), default=data)
        except (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError) as error:
            raise self._invalid("has a corrupt header: copy the file again") from error
        if end > size:
            raise self._invalid(f"has {size} bytes and should have {end}: the copy is incomplete")
        return tensors

    def _entry(self, name: str, entry: dict[str, Any], data: int) -> Stored:
        shape = tuple(int(n) for n in entry["shape"])
        first, last = (int(n) for n in entry["data_offsets"])
        dtype = str(entry["dtype"])
        if first < 0 or any(n < 0 for n in shape):
            raise self._invalid(f"has a corrupt header at {name}: copy the file again")
        if dtype in _DTYPES and last - first != prod(shape) * _DTYPES[dtype].itemsize:
            raise self._invalid(f"gives {name} {last - first} bytes, which is not its shape {list(shape)} in {dtype}")
        return Stored(dtype, shape, data + first)

    def _invalid(self, problem: str) -> LoadFailed:
        return LoadFailed("ModelInvalid", f"{self.path} {problem}")
