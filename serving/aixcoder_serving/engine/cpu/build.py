"""Compiles the native operations: `python -m aixcoder_serving.engine.cpu.build`. Needs g++ and some seconds.

Standard library only, and no import of this package: `hatch_build.py` loads it by its path where nothing is installed.
A library holds the digest of what it was made from, so that one of other sources is neither kept nor loaded.
"""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
# From the most demanding to the least: the first that a processor can run is the one to load. Of what a level of the
# x86-64 psABI asks for, the flags are those of /proc/cpuinfo that a processor below it lacks.
VARIANTS: dict[str, tuple[tuple[str, ...], frozenset[str]]] = {
    "v4-bf16": (
        ("-march=x86-64-v4", "-mavx512bf16"),
        frozenset({"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl", "avx512_bf16"}),
    ),
    "v4": (("-march=x86-64-v4",), frozenset({"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"})),
    "v3": (("-march=x86-64-v3",), frozenset({"avx2", "fma", "bmi1", "bmi2", "f16c", "movbe", "abm"})),
}
# No -ffast-math: sums keep their order, infinities and not-a-numbers their meaning. OpenMP is compiled in and not
# linked: `library` lends torch's, so that there is one pool of threads. GCC warns of its own header for AVX-512.
FLAGS = (
    "-std=c++17", "-O3", "-fopenmp", "-fPIC", "-ffp-contract=fast", "-fno-math-errno",
    "-Wall", "-Wextra", "-Wno-uninitialized", "-Wno-maybe-uninitialized",
)  # fmt: skip


class BuildFailed(RuntimeError):
    """Nothing was built; the message says why."""


def library(variant: str) -> Path:
    """Where one of VARIANTS lies once it is built."""
    return FOLDER / f"libaix_{variant.replace('-', '_')}.so"


def sources_digest() -> str:
    """Of all that decides what is built: this file and the C++ ones, hexadecimal."""
    digest = hashlib.sha256()
    for file in (FOLDER / "build.py", *sorted(FOLDER.glob("*.cpp")), *sorted(FOLDER.glob("*.h"))):
        digest.update(f"{file.name}\0".encode() + file.read_bytes())
    return digest.hexdigest()


def is_current(library_file: Path) -> bool:
    """Whether a library is there and was made from the sources beside it."""
    return library_file.is_file() and sources_digest().encode() in library_file.read_bytes()


def build() -> list[Path]:
    """Compile every .cpp of the folder in all variants, where that is not done, and return the libraries.

    Raises `BuildFailed`.
    """
    libraries = [library(variant) for variant in VARIANTS]
    if all(is_current(file) for file in libraries):
        return libraries
    if platform.system() != "Linux" or platform.machine() != "x86_64":
        raise BuildFailed(
            f"the native operations are for Linux on x86-64, not {platform.system()} {platform.machine()}"
        )
    compiler = os.environ.get("CXX", "g++")
    if shutil.which(compiler) is None:
        raise BuildFailed(f"no {compiler} on this machine: install it (Debian: the package g++), then build again")
    with tempfile.TemporaryDirectory(prefix="aixcoder-cpu-") as folder, ThreadPoolExecutor(os.cpu_count()) as pool:
        digest = Path(folder, "digest.cpp")
        name = "aix_sources_digest"
        digest.write_text(f'extern "C" {{ extern const char {name}[]; const char {name}[] = "{sources_digest()}"; }}\n')
        objects = {
            variant: [
                pool.submit(_compile, compiler, source, Path(folder, f"{variant}-{source.stem}.o"), flags)
                for source in [digest, *sorted(FOLDER.glob("*.cpp"))]
            ]
            for variant, (flags, _) in VARIANTS.items()
        }
        for variant, compiled in objects.items():
            # Beside its final place, then renamed: a process that has loaded the old one keeps it.
            made = library(variant).with_suffix(f".{os.getpid()}.so")
            try:
                _run([compiler, "-shared", "-o", str(made), *(str(each.result()) for each in compiled)])
                made.replace(library(variant))
            finally:
                made.unlink(missing_ok=True)
    return libraries


def _compile(compiler: str, source: Path, made: Path, flags: tuple[str, ...]) -> Path:
    _run([compiler, *FLAGS, *flags, "-c", str(source), "-o", str(made)])
    return made


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise BuildFailed(f"{' '.join(command)} failed:\n{done.stderr[-4000:]}")


def main() -> int:
    """Entry point: 0, or 1 with a sentence on stderr."""
    try:
        for made in build():
            print(made)
    except BuildFailed as failed:
        print(f"error: {failed}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
