"""The operations for CUDA without a GPU: run by Triton's interpreter, compiled by Triton for several GPUs.

Where a GPU is there, the same cases run on it, and graphs are captured.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

ROOT = Path(__file__).parents[3]
KIB = 1024


def lines(program: str, *arguments: str, **environment: str) -> list[dict[str, Any]]:
    """The JSON lines that a program of this package prints."""
    done = subprocess.run(
        [sys.executable, "-m", f"tests.component.engine.{program}", *arguments],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, (ROOT / "serving", ROOT))), **environment},
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return [json.loads(line) for line in done.stdout.splitlines()]


def failed(told: list[dict[str, Any]]) -> dict[str, str]:
    assert "the whole model" in {line["case"] for line in told}
    return {line["case"]: line["error"] for line in told if line["error"]}


def test_against_torch_by_the_interpreter() -> None:
    assert failed(lines("cuda_cases", "interpreted", TRITON_INTERPRET="1")) == {}


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
def test_against_torch_on_the_device() -> None:
    assert failed(lines("cuda_cases", "device")) == {}


# Shared memory that one program can have: CUDA's programming guide, technical specifications by compute capability.
@pytest.mark.parametrize(
    ("capability", "shared", "dtype", "head_dim", "page"),
    [
        pytest.param(80, 163 * KIB, "float16", 128, 32, id="A100", marks=pytest.mark.long),
        pytest.param(89, 99 * KIB, "float32", 128, 16, id="L40"),
        pytest.param(90, 227 * KIB, "bfloat16", 128, 16, id="H200"),
        pytest.param(120, 99 * KIB, "bfloat16", 64, 16, id="RTX PRO 6000", marks=pytest.mark.long),
    ],
)
def test_compiled(capability: int, shared: int, dtype: str, head_dim: int, page: int, tmp_path: Path) -> None:
    kernels = lines("cuda_compile", str(capability), dtype, str(head_dim), str(page), TRITON_CACHE_DIR=str(tmp_path))
    attention = [kernel for kernel in kernels if kernel["kernel"] == "attend_kernel"]
    assert [kernel["split"] for kernel in attention] == [512, 2048, 0]
    assert all(kernel["shared"] <= shared and kernel["code"] for kernel in kernels)
    assert all(kernel["matrix"] == (dtype != "float32") for kernel in attention)
    # A kernel that is compiled while requests wait makes the engine look frozen.
    assert [kernel["kernel"] for kernel in kernels if kernel["late"]] == []
