"""Loads the native library that suits this processor, on torch's own OpenMP."""

from __future__ import annotations

import ctypes
from pathlib import Path

import torch

from aixcoder_serving.engine.cpu import build

_P, _L, _I, _F = ctypes.c_void_p, ctypes.c_long, ctypes.c_int, ctypes.c_float
# Of each function: what it returns and takes. The C++ files say what is what.
_SIGNATURES: dict[str, tuple[type | None, tuple[type, ...]]] = {
    "aix_packed_elements": (_L, (_L, _L, _I)),
    "aix_pack": (None, (_P, _P, _L, _L, _I)),
    "aix_linear": (None, (_P, _P, _P, _L, _L, _L, _I)),
    "aix_rms_norm": (None, (_P, _P, _P, _P, _L, _L, _F, _I)),
    "aix_silu_mul": (None, (_P, _P, _L, _L, _I)),
    "aix_block_elements": (_L, (_L, _L, _L)),
    "aix_rope_and_store": (None, (_P, _P, _L, _P, _L, _L, _L, _P, _P, _P, _P, _P, _P, _L, _L, _L, _I)),
    "aix_copy_blocks": (None, (_P, _L, _P, _L)),
    "aix_layer": (None, (_P, _P, _P, _P, _P, _P, _P, _P, _L, _L, _L)),
    "aix_attend": (None, (_P, _P, _L, _P, _L, _L, _L, _P, _P, _P, _P, _L, _L, _L, _I)),
}


class LibraryMissing(RuntimeError):
    """No native library can be loaded here; the message says why."""


def supported(flags: frozenset[str]) -> list[str]:
    """Of `build.VARIANTS`, those that a processor with these flags of /proc/cpuinfo runs, the best one first."""
    return [variant for variant, (_, needed) in build.VARIANTS.items() if needed <= flags]


def processor_flags(cpuinfo: Path = Path("/proc/cpuinfo")) -> frozenset[str]:
    """The features of this processor, by Linux' names; none where the file or its line is not there."""
    try:
        for line in cpuinfo.read_text(encoding="utf-8").splitlines():
            if line.startswith("flags"):
                return frozenset(line.partition(":")[2].split())
    except OSError:
        pass
    return frozenset()


def load(variant: str | None = None) -> ctypes.CDLL:
    """The library for this processor, or the given one of `build.VARIANTS`. Raises `LibraryMissing`."""
    if variant is None:
        found = supported(processor_flags())
        if not found:
            raise LibraryMissing("this processor has no AVX2, or it could not be asked")
        variant = found[0]
    path = build.library(variant)
    if not build.is_current(path):
        state = "was built from other sources" if path.is_file() else "is not built"
        raise LibraryMissing(f"{path.name} {state}: run `python -m {build.__package__}.build` (it needs g++)")
    # The library names no OpenMP: it takes what is there for all. A second one would be a second pool of threads.
    ctypes.CDLL(_openmp(), mode=ctypes.RTLD_GLOBAL)
    try:
        loaded = ctypes.CDLL(str(path))
        for name, (result, arguments) in _SIGNATURES.items():
            function = getattr(loaded, name)
            function.restype, function.argtypes = result, arguments
    except (OSError, AttributeError) as error:
        raise LibraryMissing(f"{path.name} does not fit: {error}") from error
    return loaded


def _openmp() -> str:
    """The file of the OpenMP runtime that torch uses: its own one, where another package has brought one as well."""
    names = {line.split(maxsplit=5)[-1] for line in Path("/proc/self/maps").read_text(encoding="utf-8").splitlines()}
    found = [name for name in names if Path(name).name.startswith(("libgomp", "libiomp5", "libomp"))]
    if not found:
        raise LibraryMissing("torch has loaded no OpenMP runtime")
    return min(found, key=lambda name: (not name.startswith(str(Path(torch.__file__).parent)), name))
