"""Every way in which a model can not be loaded is a reason and a sentence."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from aixcoder_serving.engine.interface import EngineSettings, LoadFailed, Sampling
from aixcoder_serving.engine.transformers_engine import TransformersEngine
from aixcoder_serving.fim.vocabulary import Vocabulary
from tests.component.engine.conftest import TINY, complete

CPU = EngineSettings(str(TINY), device="cpu", dtype="float32", max_model_length=64, max_concurrent_sequences=1)


def _truncated(model: Path) -> None:
    weights = model / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100_000])


def _garbage(model: Path) -> None:
    (model / "model.safetensors").write_bytes(b"\x00" * 1000)


def _without_a_tensor(model: Path) -> None:
    tensors = load_file(model / "model.safetensors")
    del tensors["model.layers.3.mlp.up_proj.weight"]
    save_file(tensors, model / "model.safetensors", {"format": "pt"})


def _with_a_wrong_shape(model: Path) -> None:
    tensors = load_file(model / "model.safetensors")
    tensors["model.norm.weight"] = torch.ones(7)
    save_file(tensors, model / "model.safetensors", {"format": "pt"})


def _without_weights(model: Path) -> None:
    (model / "model.safetensors").unlink()


def _another_architecture(model: Path) -> None:
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps({**config, "architectures": ["BertModel"]}))


@pytest.mark.parametrize(
    ("spoil", "reason", "message"),
    [
        (_truncated, "ModelInvalid", "can not be"),
        (_garbage, "ModelInvalid", "can not be"),
        (_without_a_tensor, "ModelInvalid", "lacks 1 tensors, model.layers.3.mlp.up_proj.weight among them"),
        (_with_a_wrong_shape, "ModelInvalid", "can not be"),
        (_without_weights, "ModelNotFound", "holds no weights"),
        (_another_architecture, "ModelInvalid", "names no LlamaForCausalLM"),
    ],
)
def test_a_spoilt_folder(tmp_path: Path, spoil: Callable[[Path], None], reason: str, message: str) -> None:
    shutil.copytree(TINY, tmp_path / "model")
    spoil(tmp_path / "model")
    with pytest.raises(LoadFailed, match=message) as failed:
        TransformersEngine(replace(CPU, model_path=str(tmp_path / "model")), []).load()
    print(failed.value)
    assert failed.value.reason == reason


@pytest.mark.parametrize(
    ("settings", "reason", "message"),
    [
        (replace(CPU, dtype="float16"), "DeviceNotFound", "float16 is not for cpu"),
        (replace(CPU, max_model_length=40_000), "ModelInvalid", "40000 is asked for; the model has 32768"),
        (replace(CPU, model_path="/nowhere"), "ModelNotFound", "/nowhere is not a folder"),
    ],
)
def test_settings_that_can_not_be(settings: EngineSettings, reason: str, message: str) -> None:
    with pytest.raises(LoadFailed, match=message) as failed:
        TransformersEngine(settings, []).load()
    assert failed.value.reason == reason


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device here")
def test_cuda_asked_for_and_absent() -> None:
    with pytest.raises(LoadFailed, match=r"1 CUDA device\(s\) are asked for and 0 are visible") as failed:
        TransformersEngine(replace(CPU, device="cuda", dtype="bfloat16"), []).load()
    assert failed.value.reason == "DeviceNotFound"


def test_memory_that_is_not_there() -> None:
    """Torch's own allocator refuses; its words are recognised."""
    from aixcoder_serving.engine.device import is_out_of_memory

    with pytest.raises(RuntimeError) as refused:
        torch.empty(2**60, dtype=torch.uint8)
    assert is_out_of_memory(refused.value)
    assert not is_out_of_memory(RuntimeError("shapes differ"))


def test_percent_rises_to_a_hundred(vocabulary: Vocabulary, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = TransformersEngine(CPU, vocabulary.token_bytes)
    seen: list[int] = []
    count = engine._count

    def watched(load_percent: int | None = None, **more: int) -> None:
        if load_percent is not None:
            seen.append(load_percent)
        count(load_percent, **more)

    monkeypatch.setattr(engine, "_count", watched)
    engine.load()
    engine.close()
    assert seen == sorted(seen)
    assert (seen[0], seen[-1]) == (0, 100)
    assert len(set(seen)) > 20


@pytest.mark.parametrize("dtype", ["auto", "bfloat16"])
async def test_other_number_formats_run(vocabulary: Vocabulary, dtype: str) -> None:
    engine = TransformersEngine(replace(CPU, dtype=dtype), vocabulary.token_bytes)  # type: ignore[arg-type]
    engine.load()
    outcome = await complete(engine, [1, 300], Sampling(max_tokens=3))
    engine.close()
    assert len(outcome.ids) == 3


async def test_shards(tmp_path: Path, vocabulary: Vocabulary) -> None:
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
        engine = TransformersEngine(replace(CPU, model_path=str(path)), vocabulary.token_bytes)
        engine.load()
        outcomes.append((await complete(engine, [1, 300, 400], Sampling(max_tokens=16))).ids)
        engine.close()
    assert outcomes[0] == outcomes[1]
