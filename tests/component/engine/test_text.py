"""Prompts and text against transformers' own tokenizer."""

import random

import pytest
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from aixcoder_serving.fim.prompt import build
from aixcoder_serving.fim.vocabulary import MIDDLE, POST, PRE, Vocabulary
from tests.component.engine.conftest import TINY

PREFIX, SUFFIX = "class A:\n    def f(self):\n        ", "\n\n    def g(self): # ☃ é 你好\n        return 1\n"


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return AutoTokenizer.from_pretrained(TINY)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"suffix": SUFFIX}, f"<s>{PRE}{POST}{SUFFIX}{MIDDLE}{PREFIX}"),
        ({"suffix": SUFFIX, "order": "psm"}, f"<s>{PRE}{PREFIX}{POST}{SUFFIX}{MIDDLE}"),
        ({"suffix": ""}, f"<s>{PRE}{POST}{MIDDLE}{PREFIX}"),
        ({"suffix": None}, f"<s>{PREFIX}"),
        (
            {"suffix": SUFFIX, "path": "x.py"},
            f"<s>{PRE}{POST}{SUFFIX}{MIDDLE}# the file path is: x.py\n# the code file is written by Python\n{PREFIX}",
        ),
    ],
)
def test_prompts(
    vocabulary: Vocabulary, tokenizer: PreTrainedTokenizerFast, options: dict[str, str], text: str
) -> None:
    """This tokenizer has no space trap, so that one string encoded whole gives the same ids."""
    prompt = build(vocabulary, prefix=PREFIX, room=1000, **options)  # type: ignore[arg-type]
    assert list(prompt.ids) == tokenizer.encode(text, add_special_tokens=False)


def test_decoding(vocabulary: Vocabulary, tokenizer: PreTrainedTokenizerFast) -> None:
    """Random ids, byte pieces more often than a model writes them."""
    rng = random.Random(0)
    for _ in range(500):
        ids = [rng.choice([rng.randrange(2048), rng.randrange(3, 259)]) for _ in range(rng.randrange(30))]
        assert vocabulary.decode(ids) == tokenizer.decode(
            ids, skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
