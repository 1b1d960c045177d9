"""Which revision and which replica take a request."""

from collections import Counter
from hashlib import blake2b

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aixcoder_serving.gateway.placement import BOUND, Candidate, place, ranked, revision

ADDRESSES = [f"10.0.0.{n}:30000" for n in range(1, 9)]
EDITORS = [blake2b(str(n).encode(), digest_size=16).digest() for n in range(2000)]


def first(editor: bytes, addresses: list[str]) -> str:
    return ranked(addresses, editor)[0]


def test_each_replica_is_the_first_choice_of_as_many_editors() -> None:
    counts = Counter(first(editor, ADDRESSES) for editor in EDITORS)
    assert all(200 < counts[address] < 300 for address in ADDRESSES)


def test_a_replica_that_comes_or_goes_moves_only_its_share() -> None:
    moved = [editor for editor in EDITORS if first(editor, ADDRESSES) != first(editor, ADDRESSES[:-1])]
    assert all(first(editor, ADDRESSES) == ADDRESSES[-1] for editor in moved)
    assert 0.1 < len(moved) / len(EDITORS) < 0.15


def test_the_order_in_which_they_are_listed_does_not_matter() -> None:
    assert ranked(reversed(ADDRESSES), EDITORS[0]) == ranked(ADDRESSES, EDITORS[0])


@pytest.mark.parametrize("weights", [{"a": 90, "b": 10}, {"a": 1, "b": 1, "c": 2}, {"a": 100, "b": 0}])
def test_revisions_have_their_weights(weights: dict[str, int]) -> None:
    counts = Counter(revision(weights, editor) for editor in EDITORS)
    whole = sum(weights.values())
    for name, weight in weights.items():
        assert abs(counts[name] / len(EDITORS) - weight / whole) < 0.03


def test_a_change_of_weights_moves_no_more_than_it_must() -> None:
    before, after = {"a": 90, "b": 10}, {"a": 70, "b": 30}
    moves = [(revision(before, e), revision(after, e)) for e in EDITORS if revision(before, e) != revision(after, e)]
    assert set(moves) == {("a", "b")}
    assert 0.17 < len(moves) / len(EDITORS) < 0.23


def test_nothing_has_the_traffic() -> None:
    assert revision({}, b"e") is None
    assert revision({"a": 0}, b"e") is None


def test_replicas_are_shared_apart_from_revisions() -> None:
    """Those of one revision's editors are still shared evenly among its replicas."""
    mine = [editor for editor in EDITORS if revision({"a": 50, "b": 50}, editor) == "a"]
    counts = Counter(first(editor, ADDRESSES[:2]) for editor in mine)
    assert 0.45 < counts[ADDRESSES[0]] / len(mine) < 0.55


ORDER = ranked(ADDRESSES[:3], b"editor")


@pytest.mark.parametrize(
    ("tokens", "room", "chosen"),
    [
        pytest.param((0, 0, 0), (True, True, True), 0, id="all idle: the first choice"),
        pytest.param((1900, 0, 0), (True, True, True), 0, id="two of its size are as good as none"),
        pytest.param((9000, 0, 0), (True, True, True), 1, id="above the bound: the second choice"),
        pytest.param((9000, 9000, 0), (True, True, True), 2, id="both above it: the third"),
        pytest.param((5000, 4900, 4800), (True, True, True), 0, id="a little more than the mean is within it"),
        pytest.param((0, 9000, 9000), (False, True, True), 1, id="no room, and nothing else within the bound: fewest"),
        pytest.param((0, 0, 0), (False, False, True), 2, id="the only one with room"),
        pytest.param((0, 0, 0), (False, False, False), None, id="no room anywhere"),
    ],
)
def test_place(tokens: tuple[int, ...], room: tuple[bool, ...], chosen: int | None) -> None:
    candidates = [Candidate(a, t, r) for a, t, r in zip(ORDER, tokens, room, strict=True)]
    assert place(candidates[::-1], b"editor", 1000) == (None if chosen is None else ORDER[chosen])


def test_no_replica_at_all() -> None:
    assert place([], b"editor", 1000) is None


@given(st.lists(st.tuples(st.integers(0, 100_000), st.booleans()), min_size=1, max_size=8), st.integers(1, 10_000))
def test_never_one_without_room_and_never_far_above_the_mean(loads: list[tuple[int, bool]], tokens: int) -> None:
    candidates = [Candidate(a, t, r) for a, (t, r) in zip(ADDRESSES, loads, strict=False)]
    chosen = place(candidates, b"editor", tokens)
    free = [candidate for candidate in candidates if candidate.room]
    assert (chosen is None) == (not free)
    if chosen is not None:
        (taken,) = [candidate for candidate in free if candidate.address == chosen]
        mean = (sum(candidate.tokens for candidate in candidates) + tokens) / len(candidates)
        least = min(candidate.tokens for candidate in free)
        assert taken.tokens < max(BOUND * mean, 2 * tokens) or taken.tokens == least
