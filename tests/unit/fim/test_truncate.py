import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aixcoder_serving.fim.truncate import head, split, tail
from aixcoder_serving.fim.vocabulary import Encoded, Vocabulary


def letters(text: str) -> Encoded:
    """A tokenizer with a token for each character, but three for a snowman."""
    starts = [n for n, character in enumerate(text) for _ in range(3 if character == "☃" else 1)]
    return Encoded([0] * len(starts), starts)


@pytest.mark.parametrize(
    ("budget", "prefix", "suffix", "expected"),
    [
        (100, 30, 20, (30, 20)),
        (100, 50, 50, (50, 50)),
        (100, 1000, 1000, (75, 25)),
        (100, 1000, 10, (90, 10)),
        (100, 10, 1000, (10, 90)),
        (100, 80, 1000, (75, 25)),
        (100, 70, 1000, (70, 30)),
        (0, 5, 5, (0, 0)),
        (1, 5, 5, (1, 0)),
    ],
)
def test_split(budget: int, prefix: int, suffix: int, expected: tuple[int, int]) -> None:
    assert split(budget, prefix, suffix) == expected


@pytest.mark.parametrize(
    ("text", "budget", "expected"),
    [
        ("one\ntwo\nthr", 100, "one\ntwo\nthr"),
        ("one\ntwo\nthr", 11, "one\ntwo\nthr"),
        ("one\ntwo\nthr", 10, "two\nthr"),
        ("one\ntwo\nthr", 7, "two\nthr"),
        ("one\ntwo\nthr", 6, "thr"),
        ("one\ntwo\nthr", 3, "thr"),
        ("one\ntwo\nthr", 2, "hr"),
        ("one\ntwo\n", 4, "two\n"),
        ("one\ntwo\n", 3, "wo\n"),
        ("a☃b", 4, "☃b"),
        ("a☃b", 3, "b"),
        ("☃☃", 2, ""),
        ("x", 0, ""),
        ("", 5, ""),
    ],
)
def test_tail(text: str, budget: int, expected: str) -> None:
    assert tail(letters, text, budget) == expected


@pytest.mark.parametrize(
    ("text", "budget", "expected"),
    [
        ("one\ntwo\nthr", 100, "one\ntwo\nthr"),
        ("one\ntwo\nthr", 10, "one\ntwo\n"),
        ("one\ntwo\nthr", 8, "one\ntwo\n"),
        ("one\ntwo\nthr", 7, "one\n"),
        ("one\ntwo\nthr", 4, "one\n"),
        ("one\ntwo\nthr", 3, "one"),
        ("one\ntwo\nthr", 2, "on"),
        ("\n\nx", 1, "\n"),
        ("a☃b", 4, "a☃"),
        ("a☃b", 3, "a"),
        ("☃☃", 2, ""),
        ("x", 0, ""),
        ("", 5, ""),
    ],
)
def test_head(text: str, budget: int, expected: str) -> None:
    assert head(letters, text, budget) == expected


@settings(deadline=None)
@given(text=st.text(alphabet="ab \n☃(.", max_size=200), budget=st.integers(0, 60))
def test_both_fit_and_keep_the_end_at_the_cursor(vocabulary: Vocabulary, text: str, budget: int) -> None:
    before, after = tail(vocabulary.encode, text, budget), head(vocabulary.encode, text, budget)
    assert text.endswith(before)
    assert text.startswith(after)
    assert max(len(vocabulary.encode(before).ids), len(vocabulary.encode(after).ids)) <= budget


def test_a_long_text_is_not_encoded_whole() -> None:
    seen: list[int] = []

    def counted(text: str) -> Encoded:
        seen.append(len(text))
        return letters(text)

    text = "0123456789\n" * 100_000
    assert tail(counted, text, 100) == "0123456789\n" * 9
    assert head(counted, text, 100) == "0123456789\n" * 9
    assert max(seen) < 1000
