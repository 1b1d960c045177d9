"""What the service answers is what transformers would write, streamed or not, asked by OpenAI's own client."""

from __future__ import annotations

from pathlib import Path

import openai
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from aixcoder_serving.fim import prompt
from aixcoder_serving.fim.vocabulary import Vocabulary
from e2e.service import Service

MODEL = Path(__file__).resolve().parents[1] / "models" / "tiny"
MAX_TOKENS = 32
PAIRS = [
    (f"{opening}{body}", ending)
    for opening in (
        "def _qsize(self):\n    ",
        "def insort_left(a, x, lo=0, hi=None):\n    ",
        "class Queue:\n    def _put(self, item):\n        ",
        "for name in sorted(names):\n    ",
        "if value is None:\n    ",
    )
    for body in ("", "return ")
    for ending in ("", "\n\ndef after(self):\n    pass\n")
]


@pytest.fixture(scope="module")
def expected() -> dict[tuple[str, str], str]:
    """Transformers' greedy middles, fp32, of each pair."""
    tokenizer = AutoTokenizer.from_pretrained(MODEL)
    model = AutoModelForCausalLM.from_pretrained(MODEL, dtype=torch.float32)
    vocabulary = Vocabulary.load(MODEL)
    found = {}
    for prefix, suffix in PAIRS:
        ids = prompt.build(vocabulary, prefix=prefix, suffix=suffix, room=1024).ids
        output = model.generate(
            torch.tensor([ids]),
            attention_mask=torch.ones(1, len(ids), dtype=torch.long),
            do_sample=False,
            max_new_tokens=MAX_TOKENS,
            eos_token_id=sorted(vocabulary.stop_ids),
            pad_token_id=tokenizer.pad_token_id,
        )[0, len(ids) :]
        found[prefix, suffix] = tokenizer.decode(output, skip_special_tokens=True)
    return found


def test_twenty_prompts_are_completed_as_transformers_does(
    service: Service, expected: dict[tuple[str, str], str]
) -> None:
    client = openai.OpenAI(base_url=f"{service.url}/v1", api_key="none", max_retries=0)
    assert len(PAIRS) == 20
    for prefix, suffix in PAIRS:
        answer = client.completions.create(
            model="tiny", prompt=prefix, suffix=suffix, max_tokens=MAX_TOKENS, temperature=0
        )
        pieces = client.completions.create(
            model="tiny", prompt=prefix, suffix=suffix, max_tokens=MAX_TOKENS, temperature=0, stream=True
        )
        streamed = "".join(piece.choices[0].text for piece in pieces if piece.choices)
        assert answer.choices[0].text == expected[prefix, suffix]
        assert streamed == expected[prefix, suffix]
    assert any(expected.values()), "a model that writes nothing proves nothing"


def test_the_model_is_listed_under_its_name(service: Service) -> None:
    client = openai.OpenAI(base_url=f"{service.url}/v1", api_key="none", max_retries=0)
    assert [model.id for model in client.models.list()] == ["tiny"]
