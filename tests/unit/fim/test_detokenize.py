import itertools
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aixcoder_serving.fim.detokenize import TextStream
from aixcoder_serving.fim.vocabulary import Vocabulary


def byte_ids(data: bytes) -> list[int]:
    return [value + 3 for value in data]


ids = st.lists(st.integers(0, 2047) | st.integers(3, 258) | st.sampled_from([0, 1, 2, 260, 2048, 49151]), max_size=30)


@settings(deadline=None)
@given(ids=ids, cuts=st.lists(st.integers(0, 30), max_size=10))
def test_pieces_make_what_decoding_at_once_makes(vocabulary: Vocabulary, ids: Sequence[int], cuts: list[int]) -> None:
    stream, text, bounds = TextStream(vocabulary), "", [0, *sorted(cuts), 30]
    for start, end in itertools.pairwise(bounds):
        text += stream.push(ids[start:end])
    assert text + stream.finish() == vocabulary.decode(ids)


def test_an_emoji_comes_whole(vocabulary: Vocabulary) -> None:
    stream = TextStream(vocabulary)
    assert [stream.push([i]) for i in byte_ids("🙂".encode())] == [""] * 4
    assert stream.push(vocabulary.encode("x").ids) == "🙂x"


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ("é".encode(), "é"),
        ("🙂".encode()[:3], "\ufffd" * 3),
        ("é🙂".encode()[:4], "\ufffd" * 4),
        (b"\xff", "\ufffd"),
    ],
)
def test_bytes_left_over_at_the_end(vocabulary: Vocabulary, data: bytes, expected: str) -> None:
    stream = TextStream(vocabulary)
    assert stream.push(byte_ids(data)) == ""
    assert stream.finish() == expected == vocabulary.decode(byte_ids(data))


def test_leading_space_stays(vocabulary: Vocabulary) -> None:
    ids = vocabulary.encode("    return").ids
    stream = TextStream(vocabulary)
    assert "".join(stream.push([i]) for i in ids) + stream.finish() == "    return"


def test_held_bytes_wait_and_trimmed_ones_never_come(vocabulary: Vocabulary) -> None:
    stream = TextStream(vocabulary)
    colon = vocabulary.encode("):").ids
    assert stream.push(vocabulary.encode("f(x").ids) == "f(x"
    assert stream.push(colon, held=1) == ""
    assert stream.push(vocabulary.encode("\n").ids, held=2) == ""
    assert stream.finish(trim=2) == ")"


def test_held_bytes_that_were_no_stop_come_later(vocabulary: Vocabulary) -> None:
    stream = TextStream(vocabulary)
    assert stream.push(vocabulary.encode("\n").ids, held=1) == ""
    assert stream.push(vocabulary.encode("x").ids) == "\nx"


def test_trim_inside_a_run_of_bytes(vocabulary: Vocabulary) -> None:
    stream = TextStream(vocabulary)
    stream.push(byte_ids("é☃".encode()), held=3)
    assert stream.finish(trim=3) == "é"


def test_ids_beyond_the_tokenizers_add_nothing(vocabulary: Vocabulary) -> None:
    """A padded model has them."""
    beyond = vocabulary.size + 100
    stream = TextStream(vocabulary)
    assert stream.push([*vocabulary.encode("f(x").ids, beyond], held=1) == "f("
    assert stream.push([beyond, *vocabulary.encode("y):").ids, beyond], held=2) == "xy"
    assert stream.finish(trim=1) == ")"
