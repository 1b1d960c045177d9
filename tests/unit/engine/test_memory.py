from dataclasses import replace
from pathlib import Path

import pytest

from aixcoder_serving.engine.interface import EngineSettings, LoadFailed
from aixcoder_serving.engine.memory import (
    available_bytes,
    cache_blocks,
    require,
    weight_bytes,
    workspace_bytes,
)
from aixcoder_serving.engine.shape import LlamaShape

MIB, GIB = 2**20, 2**30
AIXCODER = LlamaShape(4096, 14464, 32, 32, 8, 128, 49152, 32768, 1e-5)


@pytest.mark.parametrize(
    ("dtype", "size", "rank", "expected"),
    [
        # 2 · 49152 · 4096 + 32 · (4096 · (4096 + 2048) + 4096² + 3 · 4096 · 14464 + 2 · 4096) + 4096
        ("bfloat16", 1, None, 2 * 7_432_572_928),
        ("float32", 1, 0, 4 * 7_432_572_928),
        # The norms, 65 of them, are on every rank.
        ("bfloat16", 2, 0, 7_432_572_928 + 65 * 4096),
        ("bfloat16", 2, None, 2 * 7_432_572_928 + 2 * 65 * 4096),
    ],
)
def test_weight_bytes(dtype: str, size: int, rank: int | None, expected: int) -> None:
    assert weight_bytes(AIXCODER, dtype, size, rank) == expected


def test_ranks_without_ids_have_less() -> None:
    shape = LlamaShape(8, 8, 1, 8, 8, 2, 9, 32, 1e-5)
    ranks = [weight_bytes(shape, "float32", 8, rank) for rank in range(8)]
    assert [each - ranks[-1] for each in ranks] == [4 * 2 * 2 * 8] * 4 + [4 * 2 * 8] + [0] * 3
    assert sum(ranks) == weight_bytes(shape, "float32", 8)


def test_workspace_bytes() -> None:
    """A chunk of 512 tokens and 8 logits rows of the 7 B model: some 45 MiB, on two ranks the split part is halved."""
    one = 512 * (3 * 4096 + 4 * 14464) * 2 + 8 * 49152 * 10
    two = 512 * (3 * 4096 + 2 * 14464) * 2 + 8 * 24576 * 10
    assert workspace_bytes(AIXCODER, "bfloat16", 1, tokens=512, rows=8) == one
    assert workspace_bytes(AIXCODER, "bfloat16", 2, tokens=512, rows=8) == two


def test_what_fits_is_let_through() -> None:
    require(weights=15 * GIB, workspace=GIB, available=16 * GIB, where="here")


@pytest.mark.parametrize(
    ("workspace", "message"),
    [
        (0, "the model needs 15.5 GiB of memory (the weights 15.5 GiB) and here has 15.0 GiB: give it"),
        (300 * MIB, "needs 15.8 GiB of memory (the weights 15.5 GiB, one step 300.0 MiB)"),
    ],
)
def test_what_does_not_fit(workspace: int, message: str) -> None:
    with pytest.raises(LoadFailed) as failed:
        require(weights=31 * GIB // 2, workspace=workspace, available=15 * GIB, where="here")
    assert failed.value.reason == "OutOfMemory"
    assert message in str(failed.value)


CPU = EngineSettings("m", device="cpu", max_model_length=1000, max_concurrent_sequences=10, block_size=16)
CUDA = replace(CPU, device="cuda")
BLOCK = MIB


@pytest.mark.parametrize(
    ("settings", "free", "expected"),
    [
        pytest.param(CPU, 10_000 * MIB, 10 * 63 + 1, id="cpu: all that can run at once"),
        pytest.param(CPU, 1000 * MIB, 250, id="cpu: a quarter of what is free"),
        pytest.param(CPU, 100 * MIB, 64, id="cpu: one sequence and a block"),
        pytest.param(CPU, 64 * MIB, 64, id="cpu: just one sequence and a block"),
        pytest.param(replace(CPU, tensor_parallel_size=2), 1000 * MIB, 125, id="cpu: ranks share the container"),
        pytest.param(replace(CPU, max_model_length=1008), 100 * MIB, 64, id="a whole number of blocks"),
        pytest.param(replace(CPU, block_size=32), 100 * MIB, 33, id="larger blocks"),
        pytest.param(CUDA, 1000 * MIB, 900, id="cuda: nine tenths"),
        pytest.param(replace(CUDA, tensor_parallel_size=2), 1000 * MIB, 900, id="cuda: each rank its device"),
        pytest.param(CUDA, 66 * MIB, 64, id="cuda: one sequence and a block"),
        pytest.param(replace(CPU, cache_tokens=160), 1000 * MIB, 10, id="what was asked for, be it little"),
        pytest.param(replace(CPU, cache_tokens=161), 1000 * MIB, 11, id="what was asked for, rounded up"),
        pytest.param(replace(CUDA, cache_tokens=16000), 1000 * MIB, 1000, id="what was asked for, all that is free"),
    ],
)
def test_cache_blocks(settings: EngineSettings, free: int, expected: int) -> None:
    assert cache_blocks(settings, BLOCK, free) == expected


@pytest.mark.parametrize(
    ("settings", "free", "message"),
    [
        (CPU, 64 * MIB - 1, "one sequence of max_model_length 1000 needs 64.0 MiB of memory and 64.0 MiB are free"),
        (CPU, -5, "needs 64.0 MiB of memory and 0.0 MiB are free beside the weights"),
        (replace(CPU, tensor_parallel_size=2), 100 * MIB, "needs 128.0 MiB of memory and 100.0 MiB are free"),
        (CUDA, 10 * MIB, "max_model_length 1000 needs 64.0 MiB"),
        (replace(CPU, cache_tokens=32_000), 1000 * MIB, "cache_tokens 32000 needs 2.0 GiB of memory and 1000.0 MiB"),
    ],
)
def test_too_little_for_a_cache(settings: EngineSettings, free: int, message: str) -> None:
    with pytest.raises(LoadFailed, match=message) as failed:
        cache_blocks(settings, BLOCK, free)
    assert failed.value.reason == "OutOfMemory"


V2, V1 = "sys/fs/cgroup", "sys/fs/cgroup/memory"
UNLIMITED_V1 = "9223372036854771712\n"


def _machine(root: Path, files: dict[str, str]) -> Path:
    """2 MiB, of which 1 MiB can be had."""
    for name, text in {"proc/meminfo": "MemTotal:  2048 kB\nMemAvailable:  1024 kB\n", **files}.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        pytest.param({}, MIB, id="no control group"),
        pytest.param({f"{V2}/memory.max": "max\n", f"{V2}/memory.current": "5000\n"}, MIB, id="version 2, no limit"),
        pytest.param({f"{V2}/memory.max": "9000\n", f"{V2}/memory.current": "5000\n"}, 4000, id="version 2"),
        pytest.param(
            {
                f"{V2}/memory.max": "9000\n",
                f"{V2}/memory.current": "5000\n",
                f"{V2}/memory.stat": "anon 3500\ninactive_file 1000\nactive_file 500\nshmem 7\n",
            },
            5500,
            id="the page cache is free",
        ),
        pytest.param(
            {
                f"{V1}/memory.limit_in_bytes": "9000\n",
                f"{V1}/memory.usage_in_bytes": "5000\n",
                f"{V1}/memory.stat": "active_file 1\ntotal_active_file 500\ntotal_inactive_file 1000\n",
            },
            5500,
            id="version 1",
        ),
        pytest.param({f"{V1}/memory.limit_in_bytes": UNLIMITED_V1}, MIB, id="version 1, no limit"),
        pytest.param({f"{V2}/memory.max": "9000\n", f"{V2}/memory.current": "9100\n"}, 0, id="nothing left"),
        pytest.param({f"{V2}/memory.max": f"{2 * MIB}", f"{V2}/memory.current": "10"}, MIB, id="the machine has less"),
    ],
)
def test_available_bytes(tmp_path: Path, files: dict[str, str], expected: int) -> None:
    assert available_bytes(_machine(tmp_path, files)) == expected
