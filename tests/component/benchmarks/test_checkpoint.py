"""The benchmarks' checkpoints against transformers."""

from pathlib import Path

import pytest
import torch
from transformers import LlamaForCausalLM

from benchmarks import checkpoint


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def test_the_grown_model_computes_the_tiny_models_logits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    folder = checkpoint.grown("float32")
    assert checkpoint.grown("float32") == folder, "made once"
    tiny = LlamaForCausalLM.from_pretrained(checkpoint.TINY, dtype=torch.float32)
    grown = LlamaForCausalLM.from_pretrained(folder)
    ids = torch.randint(3, tiny.config.vocab_size, (1, 200), generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        expected, found = tiny(ids).logits[0], grown(ids).logits[0]
    assert torch.allclose(found[:, : tiny.config.vocab_size], expected, atol=1e-3)
    assert torch.equal(found.argmax(-1), expected.argmax(-1)), "ids without a piece are never the likeliest"


def test_random_weights_do_not_repeat_themselves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    folder = checkpoint.random_weights("bfloat16")
    assert (folder / "model.safetensors").stat().st_size == pytest.approx(171e6, rel=0.01)
    model = LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32)
    ids = torch.randint(0, checkpoint.VOCABULARY, (1, 32), generator=torch.Generator().manual_seed(1))
    out = model.generate(
        ids, attention_mask=torch.ones_like(ids), max_new_tokens=32, do_sample=False, eos_token_id=None
    )
    assert len(set(out[0, 32:].tolist())) > 24
