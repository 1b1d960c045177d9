from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aixcoder_serving.fim.truncate import head, suffix_share, tail, whole
from aixcoder_serving.fim.vocabulary import Encoded, Vocabulary


def letters(text: str) -> Encoded:
    """A tokenizer with a token for each character, but three for a snowman."""
    starts = [n for n, character in enumerate(text) for _ in range(3 if character == "☃" else 1)]
    return Encoded([0] * len(starts), lambda: starts)


@pytest.mark.parametrize(
    ("budget", "prefix", "share"),
    [
        (100, 0, 100),
        (100, 1, 75),
        (100, 25, 75),
        (100, 26, 50),
        (100, 50, 50),
        (100, 51, 25),
        (100, 1000, 25),
        (103, 1000, 28),
        (3, 1, 2),
        (3, 9, 0),
        (0, 5, 0),
    ],
)
def test_the_suffix_gets_what_the_prefix_leaves_in_quarters(budget: int, prefix: int, share: int) -> None:
    assert suffix_share(budget, prefix) == share


def test_a_quarter_of_the_keys_changes_no_share() -> None:
    assert [suffix_share(100, n) for n in range(26, 51)] == [50] * 25


@pytest.mark.parametrize(
    ("text", "budget", "expected"),
    [
        ("one\ntwo\nthr", 11, "one\ntwo\nthr"),
        ("one\ntwo\nthr", 7, "two\nthr"),
        ("one\ntwo\nthr", 3, "thr"),
        ("one\ntwo\nthr", 2, "hr"),
        ("one\ntwo\n", 4, "two\n"),
        ("one\ntwo\n", 3, "wo\n"),
        ("first\nsecond\nthird", 16, "second\nthird"),
        ("first\r\nsecond\r\nthird", 17, "second\r\nthird"),
        ("a☃b", 4, "☃b"),
        ("a☃b", 3, "b"),
        ("☃☃", 2, ""),
        ("x", 0, ""),
        ("", 5, ""),
    ],
)
def test_tail(text: str, budget: int, expected: str) -> None:
    assert text[tail(letters, text, budget).start :] == expected


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
    assert head(letters, text, budget) == letters(expected).ids


LINES = "".join(f"{n:07d}--\n" for n in range(100))  # 10 tokens a line


def starts_while_typing(text: str, more: str, budget: int) -> list[int]:
    """Where the window begins after each further character."""
    typed = [text + more[:n] for n in range(len(more) + 1)]
    return [tail(letters, now, budget).start for now in typed]


def test_the_window_stays_for_a_quarter_and_then_moves_by_one() -> None:
    starts = starts_while_typing(LINES, LINES, budget=160)
    moves = [after - before for before, after in pairwise(starts) if after != before]
    assert moves == [40] * 25
    assert all(start % 10 == 0 for start in starts), "it begins with a line"
    used = [len(LINES) + n - start for n, start in enumerate(starts)]
    assert (min(used), max(used)) == (120, 159)


@pytest.mark.parametrize("typed", ["return x", "retur", "    return foo(bar, baz)", "\t\té☃"])
@pytest.mark.parametrize("lines", [30, 33, 36, 39])
def test_typing_in_a_line_moves_nothing(vocabulary: Vocabulary, typed: str, lines: int) -> None:
    """Whatever a key does to the number of tokens: a word that is complete has fewer than its beginning."""
    text = "    value = compute(one, two)\n" * lines
    typed_so_far = [text + typed[:n] for n in range(len(typed) + 1)]
    starts = {tail(vocabulary.encode, now, 320).start for now in typed_so_far}
    assert len(starts) == 1
    assert starts != {0}


def test_a_long_line_moves_the_window_forward_only() -> None:
    starts = starts_while_typing(LINES, "x" * 100, budget=160)
    assert starts == sorted(starts)
    assert len(set(starts)) == 3


@settings(deadline=None)
@given(text=st.text(alphabet="ab \n☃(.", max_size=200), budget=st.integers(0, 60))
def test_all_fit_and_keep_the_end_at_the_cursor(vocabulary: Vocabulary, text: str, budget: int) -> None:
    before, after = tail(vocabulary.encode, text, budget), head(vocabulary.encode, text, budget)
    assert before.ids == vocabulary.encode(text[before.start :]).ids
    assert text.startswith(vocabulary.decode(after))
    ids = vocabulary.encode(text).ids
    assert max(len(before.ids), len(after)) <= budget
    assert whole(vocabulary.encode, text, budget) == (ids if len(ids) <= budget else None)
    assert (after == ids) == (len(ids) <= budget)


def test_a_long_text_is_not_encoded_whole() -> None:
    seen: list[int] = []

    def counted(text: str) -> Encoded:
        seen.append(len(text))
        return letters(text)

    text = "0123456789\n" * 100_000
    assert whole(counted, text, 100) is None
    assert text[tail(counted, text, 100).start :] == "0123456789\n" * 6
    assert len(head(counted, text, 100)) == 99
    assert max(seen) < 1000


def test_one_line_without_an_end_is_cut_too() -> None:
    text = "x" * 1_000_030
    start = tail(letters, text, 400).start
    assert 300 <= len(text) - start <= 400
    assert tail(letters, text + "yz", 400).start == start


def test_the_header_takes_its_part() -> None:
    cut = tail(letters, LINES, 160, "path\n")
    assert (len(cut.ids), cut.start) == (5 + len(LINES) - cut.start, 880)
    assert tail(letters, LINES, 5, "path\n") == (len(LINES), [0] * 5)
