"""What readers see: endings and the text layer together, on a real tokenizer."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aixcoder_serving.engine.interface import Sampling
from aixcoder_serving.engine.stops import Ending
from aixcoder_serving.fim.detokenize import TextStream
from aixcoder_serving.fim.vocabulary import Vocabulary


@pytest.fixture(scope="module")
def vocabulary() -> Vocabulary:
    return Vocabulary.load(Path(__file__).parents[3] / "models" / "tiny")


def read(vocabulary: Vocabulary, sampling: Sampling, ids: Sequence[int]) -> tuple[list[str], str]:
    """What a reader sees after each token, and in the end."""
    ending, stream, shown = Ending(sampling, vocabulary.token_bytes), TextStream(vocabulary), []
    for token_id in ids:
        verdict = ending.push(token_id, 0.0)
        shown.append(stream.push([token_id], ending.held_bytes))
        if verdict:
            return shown, "".join(shown) + stream.finish(verdict.trim_bytes)
    return shown, "".join(shown) + stream.finish()


def pieces(vocabulary: Vocabulary, text: str) -> list[int]:
    """An id a character, but an id a byte where it is not ASCII."""
    return [
        token_id
        for character in text
        for token_id in (
            vocabulary.encode(character).ids if character.isascii() else [byte + 3 for byte in character.encode()]
        )
    ]


@pytest.mark.parametrize(
    ("sampling", "data", "answer"),
    [
        pytest.param(Sampling(), "🙂x", "🙂x", id="an emoji over four tokens"),
        pytest.param(Sampling(stop=("🙂",)), "x🙂", "x", id="an emoji that stops"),
        pytest.param(Sampling(stop=("🙃",)), "x🙂y", "x🙂y", id="an emoji that begins like one that stops"),
        pytest.param(Sampling(stop=("b",)), "🙂ab", "🙂a", id="a stop string behind an emoji"),
        pytest.param(Sampling(max_tokens=3), "x🙂", "x\ufffd\ufffd", id="bytes left at max_tokens"),
        pytest.param(Sampling(max_tokens=4, stop=("🙂!",)), "🙂", "🙂", id="held at max_tokens"),
        pytest.param(Sampling(n_indent=4), "é\n b", "é", id="indentation as bytes"),
    ],
)
def test_bytes_and_text_work_together(vocabulary: Vocabulary, sampling: Sampling, data: str, answer: str) -> None:
    assert read(vocabulary, sampling, pieces(vocabulary, data))[1] == answer


def test_an_emoji_is_shown_whole_and_once_it_cannot_stop(vocabulary: Vocabulary) -> None:
    ids = [*pieces(vocabulary, "🙂"), *pieces(vocabulary, "xyz")]
    shown, _ = read(vocabulary, Sampling(stop=("🙂z",)), ids)
    assert shown[:4] == [""] * 4
    assert shown[4].startswith("🙂x")


@given(
    stop=st.lists(st.text(alphabet="ab🙂 \n", min_size=1, max_size=3), max_size=2),
    options=st.sampled_from([{}, {"first_line": True}, {"n_indent": 2}]),
    text=st.text(alphabet="ab🙂 \n", max_size=8),
)
def test_readers_see_the_answer_and_nothing_else(
    vocabulary: Vocabulary, stop: list[str], options: dict[str, Any], text: str
) -> None:
    sampling = Sampling(stop=tuple(stop), **options)
    ids = vocabulary.encode(text).ids
    ending, answer = Ending(sampling, vocabulary.token_bytes), b""
    for token_id in ids:
        answer += vocabulary.token_bytes[token_id]
        if verdict := ending.push(token_id, 0.0):
            answer = answer[: len(answer) - verdict.trim_bytes]
            break
    assert read(vocabulary, sampling, ids)[1] == answer.decode()
