"""Every way in which a model can not be loaded is a reason and a sentence, told by the engine's own process."""

import json
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from aixcoder_serving.engine.client import EngineClient
from aixcoder_serving.engine.interface import EngineSettings, LoadFailed, Sampling
from aixcoder_serving.fim.vocabulary import Vocabulary
from tests.component.engine.conftest import TINY, MakeEngine, complete


def _truncated(model: Path) -> None:
    weights = model / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100_000])


def _without_a_tensor(model: Path) -> None:
    tensors = load_file(model / "model.safetensors")
    del tensors["model.layers.3.mlp.up_proj.weight"]
    save_file(tensors, model / "model.safetensors", {"format": "pt"})


def _without_weights(model: Path) -> None:
    (model / "model.safetensors").unlink()


def _another_architecture(model: Path) -> None:
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps({**config, "architectures": ["BertModel"]}))


@pytest.mark.parametrize(
    ("spoil", "size", "reason", "message"),
    [
        (_truncated, 1, "ModelInvalid", "model.safetensors"),
        (_without_a_tensor, 2, "ModelInvalid", "model.layers.3.mlp.up_proj.weight"),
        (_without_weights, 1, "ModelNotFound", "holds no weights"),
        (_another_architecture, 1, "ModelInvalid", "names no LlamaForCausalLM"),
    ],
)
def test_a_spoilt_folder(
    make_engine: MakeEngine, tmp_path: Path, spoil: Callable[[Path], None], size: int, reason: str, message: str
) -> None:
    shutil.copytree(TINY, tmp_path / "model")
    spoil(tmp_path / "model")
    with pytest.raises(LoadFailed, match=message) as failed:
        make_engine(model_path=str(tmp_path / "model"), tensor_parallel_size=size)
    print(failed.value)
    assert failed.value.reason == reason


@pytest.mark.parametrize(
    ("settings", "reason", "message"),
    [
        ({"dtype": "float16"}, "DeviceNotFound", "float16 is not for cpu"),
        ({"max_model_length": 40_000}, "ModelInvalid", "40000 is asked for; the model has 32768"),
        ({"model_path": "/nowhere"}, "ModelNotFound", "/nowhere is not a folder"),
        ({"cache_tokens": 10**12}, "OutOfMemory", "the cache for cache_tokens 1000000000000 needs"),
        pytest.param(
            {"device": "cuda", "dtype": "bfloat16"},
            "DeviceNotFound",
            r"1 CUDA device\(s\) are asked for and 0 are visible",
            marks=pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device here"),
        ),
    ],
)
def test_settings_that_can_not_be(make_engine: MakeEngine, settings: dict[str, Any], reason: str, message: str) -> None:
    with pytest.raises(LoadFailed, match=message) as failed:
        make_engine(**settings)
    assert failed.value.reason == reason


def test_a_process_that_is_killed_while_it_loads(vocabulary: Vocabulary) -> None:
    engine = EngineClient(EngineSettings(str(TINY), device="cpu", dtype="float32"), vocabulary.token_bytes)

    def kill() -> None:
        while engine.pid is None:
            time.sleep(0.01)
        os.kill(engine.pid, signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    with pytest.raises(LoadFailed, match=r"ended while it was loading \(signal 9\)"):
        engine.load()
    killer.join()
    engine.close()


def test_percent_rises_to_a_hundred(vocabulary: Vocabulary) -> None:
    engine = EngineClient(
        EngineSettings(str(TINY), device="cpu", dtype="float32", max_model_length=2048, cache_tokens=4096),
        vocabulary.token_bytes,
    )
    seen = [engine.stats().load_percent]
    loading = threading.Thread(target=engine.load)
    loading.start()
    while loading.is_alive():
        if engine.stats().load_percent != seen[-1]:
            seen.append(engine.stats().load_percent)
        time.sleep(0.0005)
    loading.join()
    engine.close()
    assert seen == sorted(seen)
    assert (seen[0], engine.stats().load_percent) == (0, 100)
    assert len(seen) > 3


@pytest.mark.parametrize("dtype", ["auto", "bfloat16"])
async def test_other_number_formats_run(make_engine: MakeEngine, dtype: str) -> None:
    engine = make_engine(dtype=dtype)
    outcome = await complete(engine, [1, 300], Sampling(max_tokens=3))
    engine.close()
    assert len(outcome.ids) == 3


async def test_shards(make_engine: MakeEngine, tmp_path: Path) -> None:
    """Weights in several files give what one file gives."""
    shutil.copytree(TINY, tmp_path / "model")
    tensors = sorted(load_file(tmp_path / "model" / "model.safetensors").items())
    (tmp_path / "model" / "model.safetensors").unlink()
    names = {}
    for n in range(3):
        part = dict(tensors[n::3])
        save_file(part, tmp_path / "model" / f"part-{n}.safetensors", {"format": "pt"})
        names.update(dict.fromkeys(part, f"part-{n}.safetensors"))
    index = {"metadata": {}, "weight_map": names}
    (tmp_path / "model" / "model.safetensors.index.json").write_text(json.dumps(index))
    outcomes = []
    for path in (TINY, tmp_path / "model"):
        engine = make_engine(model_path=str(path))
        outcomes.append((await complete(engine, [1, 300, 400], Sampling(max_tokens=16))).ids)
        engine.close()
    assert outcomes[0] == outcomes[1]
