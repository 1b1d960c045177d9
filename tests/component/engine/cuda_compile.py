"""Compiles the operations for a GPU that is not here, launched as the engine launches them.

    python -m tests.component.engine.cuda_compile CAPABILITY DTYPE HEAD_DIM PAGE     such as 90 bfloat16 128 16

Every launch goes through Triton's own binder and compiler down to the machine code of ptxas, and ends there. Prints a
JSON line a kernel: {"kernel", "split", "shared", "matrix", "late", "code"}; shared memory and code in bytes, whether it
uses the tensor cores, and whether it was first compiled for a step of another form than those of an engine's start.
"""

import json
import sys
from typing import Any

import torch
from triton.backends.compiler import GPUTarget
from triton.runtime import driver
from triton.runtime.jit import JITFunction

from aixcoder_serving.engine.cuda.ops import CudaOps
from aixcoder_serving.engine.ops import Batch, Rotary

CPU = torch.device("cpu")
HEADS, KV_HEADS, HIDDEN, INNER, SLOTS, LENGTH = 32, 8, 4096, 14464, 64, 4096


class NoDevice:
    """What the compiler asks a driver."""

    def __init__(self, capability: int) -> None:
        self._capability = capability

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", self._capability, 32)

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, _device: object = None) -> int:
        return 0


class Compiled:
    """Stands in for launches. `late`: what is new now is new to a serving engine."""

    def __init__(self) -> None:
        self.late = False
        self._seen: set[tuple[str, str]] = set()

    def launch(self, function: Any, grid: object) -> Any:
        def compiled(*arguments: object, **options: Any) -> None:
            kernel = function.run(*arguments, grid=grid, warmup=True, **options)
            name = function.fn.__name__
            if (name, kernel.hash) in self._seen:
                return
            self._seen.add((name, kernel.hash))
            matrix = any(instruction in kernel.asm["ptx"] for instruction in ("mma.sync", "wgmma", "tcgen05.mma"))
            line = {
                "kernel": name,
                "split": options.get("SPLIT"),
                "shared": kernel.metadata.shared,
                "matrix": matrix,
                "late": self.late,
                "code": len(kernel.asm["cubin"]),
            }
            print(json.dumps(line), flush=True)

        return compiled


def step(counts: list[int], start: int, tables: torch.Tensor, *, unaligned: bool = False) -> Batch:
    """Sequences of as many query tokens each, that begin at `start`; all metadata in one tensor, like the runner's."""
    tokens, sequences = sum(counts), len(counts)
    whole = torch.zeros(1 + tokens + 3 * sequences + 1, dtype=torch.int32)[int(unaligned) :]
    positions, query_start, context, slots = torch.split(
        whole[: tokens + 3 * sequences + 1], [tokens, sequences + 1, sequences, sequences]
    )
    context.fill_(start + 1)
    return Batch(torch.zeros(tokens, dtype=torch.int64), positions, query_start, context, slots, tables, positions)


def main() -> None:
    torch.set_num_threads(1)
    capability, dtype, dim, page = int(sys.argv[1]), getattr(torch, sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
    driver.set_active(NoDevice(capability))
    compiled = Compiled()
    JITFunction.__getitem__ = lambda function, grid: compiled.launch(function, grid)
    ops = CudaOps(CPU, dtype, page)
    cache = ops.new_cache(1, 4, KV_HEADS, dim)[0]
    rotary = Rotary(torch.zeros(LENGTH, dim // 2), torch.zeros(LENGTH, dim // 2))
    tables = torch.zeros(SLOTS + 1, LENGTH // page, dtype=torch.int32)
    weight = torch.zeros(HIDDEN, dtype=dtype)

    def run(batch: Batch) -> None:
        tokens = len(batch.ids)
        x = torch.zeros(tokens, HIDDEN, dtype=dtype)
        ops.rms_norm(x, weight, 1e-5)
        ops.add_rms_norm(x, x, weight, 1e-5)
        ops.silu_mul(torch.zeros(tokens, 2 * INNER, dtype=dtype))
        qkv = torch.zeros(tokens, (HEADS + 2 * KV_HEADS) * dim, dtype=dtype)
        ops.attend(ops.rope_and_store(qkv, batch, cache, rotary, KV_HEADS), batch, cache)

    for tokens in (1, 64, 256, 1024):
        run(step([tokens], 0, tables))
    compiled.late = True
    run(step([1] * SLOTS, 100, tables))
    run(step([3, 1, 7], 4000, tables, unaligned=True))
    run(step([77, 16], 16, tables))
    run(step([300, 1, 1], 512, tables, unaligned=True))
    run(step([997], 1, tables))


if __name__ == "__main__":
    main()
