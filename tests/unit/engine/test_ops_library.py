"""Which library is loaded, on whose threads, and what runs without one."""

import logging
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from aixcoder_serving.engine.cpu import build, library
from aixcoder_serving.engine.cpu.ops import CpuOps, cpu_ops
from aixcoder_serving.engine.torch_ops import TorchOps
from tests.unit.engine.ops_cases import CPU, VARIANTS, Sequence, Shape, close, native, normal, run

V3 = ["avx2", "fma", "bmi1", "bmi2", "f16c", "movbe", "abm", "sse4_2"]
V4 = [*V3, "avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"]


@pytest.mark.parametrize(
    ("flags", "variants"),
    [
        ([*V4, "avx512_bf16"], ["v4-bf16", "v4", "v3"]),
        (V4, ["v4", "v3"]),
        ([*V3, "avx512f", "avx512cd"], ["v3"]),
        ([*V3, "avx512_bf16"], ["v3"]),
        (V3, ["v3"]),
        ([flag for flag in V3 if flag != "fma"], []),
        ([], []),
    ],
)
def test_the_best_that_a_processor_runs(tmp_path: Path, flags: list[str], variants: list[str]) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text(f"processor\t: 0\nflags\t\t: {' '.join(flags)}\nbugs\t\t: avx2\n\nprocessor\t: 1\n")
    assert library.supported(library.processor_flags(cpuinfo)) == variants


def test_a_processor_that_cannot_be_asked_runs_none(tmp_path: Path) -> None:
    assert library.processor_flags(tmp_path / "none") == frozenset()


@pytest.mark.parametrize("variant", VARIANTS)
def test_torch_and_the_library_have_one_pool_of_threads(variant: str) -> None:
    """A thread gets its helpers when it first computes on several: by the library or by torch, but once."""
    ops = native(variant, torch.float32)
    x, weight, image = normal(40, 64), ops.pack(normal(256, 64, seed=1)), normal(400, 400)

    def count() -> int:
        return len(list(Path("/proc/self/task").iterdir()))

    def compute() -> list[int]:
        counts = [count()]
        for threads, product in [(1, True), (2, True), (2, False), (2, True)]:
            torch.set_num_threads(threads)
            if product:
                ops.linear(x, weight)
            else:
                torch.nn.functional.silu(image)
            counts.append(count())
        return counts

    before = torch.get_num_threads()
    with ThreadPoolExecutor(1) as pool:
        first, *counts = pool.submit(compute).result()
    torch.set_num_threads(before)
    assert [each - first for each in counts] == [0, 1, 1, 1]


def _nothing_is_built(monkeypatch: pytest.MonkeyPatch, folder: Path) -> str:
    monkeypatch.setattr(build, "library", lambda variant: folder / f"{variant}.so")
    return "is not built: run `python -m aixcoder_serving.engine.cpu.build`"


def _built_from_other_sources(monkeypatch: pytest.MonkeyPatch, folder: Path) -> str:
    for variant in build.VARIANTS:
        (folder / f"{variant}.so").write_bytes(build.library(variant).read_bytes().replace(b"0", b"1"))
    monkeypatch.setattr(build, "library", lambda variant: folder / f"{variant}.so")
    return "was built from other sources: run `python -m aixcoder_serving.engine.cpu.build`"


def _old_processor(monkeypatch: pytest.MonkeyPatch, _folder: Path) -> str:
    monkeypatch.setattr(library, "processor_flags", frozenset)
    return "this processor has no AVX2"


def _no_openmp(monkeypatch: pytest.MonkeyPatch, _folder: Path) -> str:
    def missing() -> str:
        raise library.LibraryMissing("torch has loaded no OpenMP runtime")

    monkeypatch.setattr(library, "_openmp", missing)
    return "torch has loaded no OpenMP runtime"


@pytest.mark.parametrize("cause", [_nothing_is_built, _built_from_other_sources, _old_processor, _no_openmp])
def test_without_a_library_torch_gives_the_same(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tmp_path: Path, cause: object
) -> None:
    shape = Shape(4, 2, 32)
    sequences = [Sequence(slot, 40, shape, torch.float32) for slot in range(2)]
    tables = torch.tensor([[3, 1, 0], [5, 2, 4]], dtype=torch.int32)
    steps = [[(0, 0, 30)], [(0, 30, 31), (1, 0, 40)]]
    x, weight = normal(5, 40), normal(20, 40, seed=1)
    fast = cpu_ops(CPU, torch.float32, 16)
    assert isinstance(fast, CpuOps)
    attended, product = run(fast, shape, sequences, tables, steps), fast.linear(x, fast.pack(weight))

    assert callable(cause)
    reason = cause(monkeypatch, tmp_path)
    with caplog.at_level(logging.WARNING):
        slow = cpu_ops(CPU, torch.float32, 16)
    assert isinstance(slow, TorchOps)
    [record] = caplog.records
    assert reason in record.getMessage()
    for slot, rows in run(slow, shape, sequences, tables, steps).items():
        close(rows, attended[slot])
    close(slow.linear(x, slow.pack(weight)), product)


def test_another_dtype_is_left_to_torch(caplog: pytest.LogCaptureFixture) -> None:
    assert isinstance(cpu_ops(CPU, torch.float64, 16), TorchOps)
    assert "for float32 and bfloat16, not for torch.float64" in caplog.text
