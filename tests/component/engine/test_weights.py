"""What loading takes of memory, measured in processes of its own."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from aixcoder_serving.engine.linear import parameters
from aixcoder_serving.engine.memory import weight_bytes
from aixcoder_serving.engine.shape import read
from tests.component.engine.conftest import MakeEngine
from tests.component.engine.cores import native_ops
from tests.component.processes import ranks

CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": 1024,
    "intermediate_size": 2816,
    "num_hidden_layers": 8,
    "num_attention_heads": 16,
    "num_key_value_heads": 8,
    "vocab_size": 16384,
    "max_position_embeddings": 2048,
    "rms_norm_eps": 1e-5,
}
SHAPE = read(CONFIG, "config.json")
MIB = 2**20
# Pages of the program's own code and of torch's, which are first used here.
CODE = 6 * MIB

MEASURE = """
import sys
import torch
from aixcoder_serving.engine.checkpoint import inspect
from aixcoder_serving.engine.cpu.ops import cpu_ops
from aixcoder_serving.engine.weights import load

def kib(name):
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith(name))

torch.set_num_threads(1)
path, dtype, size, rank = sys.argv[1], getattr(torch, sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
ops = cpu_ops(torch.device("cpu"), dtype, 16)
ops.linear(torch.ones(1, 64, dtype=dtype), ops.pack(torch.ones(64, 64, dtype=dtype)))
open("/proc/self/clear_refs", "w").write("5")  # the peak starts anew
before = kib("VmRSS:")
kept = load(inspect(path), ops, rank, size)
print((kib("VmHWM:") - before) * 1024)
"""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """In two files, 244 MiB of bfloat16."""
    folder = tmp_path_factory.mktemp("large")
    (folder / "config.json").write_text(json.dumps(CONFIG))
    pieces = {piece.tensor: piece.shape for each in parameters(SHAPE, 0, 1) for piece in each.pieces}
    files = {name: f"{n % 2}.safetensors" for n, name in enumerate(pieces)}
    for file in ("0.safetensors", "1.safetensors"):
        mine = {name: torch.full(shape, 0.5, dtype=torch.bfloat16) for name, shape in pieces.items()
                if files[name] == file}  # fmt: skip
        save_file(mine, folder / file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": files}))
    return folder


@pytest.mark.parametrize(
    ("dtype", "size", "rank"), [("bfloat16", 1, 0), ("float32", 1, 0), ("float32", 2, 1), ("float32", 8, 3)]
)
def test_the_peak_is_the_shard(model: Path, dtype: str, size: int, rank: int) -> None:
    program = [sys.executable, "-c", MEASURE, str(model), dtype, str(size), str(rank)]
    done = subprocess.run(program, capture_output=True, text=True, check=True, timeout=120)
    shard, peak = weight_bytes(SHAPE, dtype, size, rank), int(done.stdout)
    print(f"{dtype}, rank {rank} of {size}: a shard of {shard / MIB:.1f} MiB, a peak of {peak / MIB:.1f} MiB")
    assert 0.9 * shard < peak < 1.02 * shard + CODE
    assert peak < 1.05 * shard or shard < 200 * MIB, "in a smaller one the code would weigh more than that"


def private_bytes(pid: int) -> int:
    """Of memory that no other process has."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Private_"))


@pytest.mark.parametrize("size", [1, 2])
def test_the_cache_takes_what_is_told(make_engine: MakeEngine, size: int) -> None:
    """All of it from the start, so that no later request can be one too many. Ranks have equal shares."""
    taken, told = [], []
    for cache_tokens in (4096, 65536):
        engine = make_engine(tensor_parallel_size=size, cache_tokens=cache_tokens)
        assert engine.pid is not None
        taken.append(sum(map(private_bytes, ranks(engine.pid))))
        told.append(size * native_ops().cache_bytes(5, engine.stats().blocks_total, 8 // size, 16))
        engine.close()
    print(f"{taken[1] - taken[0]} bytes more, {told[1] - told[0]} told")
    assert told[1] == 65536 * 2 * 5 * 8 * 16 * 4
    assert taken[1] - taken[0] == pytest.approx(told[1] - told[0], rel=0.1)
