from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aixcoder_serving.engine.draft import Drafter


def steps(drafter: Drafter, output: Sequence[int], limit: int = 64) -> list[tuple[int, int]]:
    """Generate `output` as an engine does: for each step how many ids were proposed, and how many were right."""
    taken, done = [], 0
    while done < len(output):
        draft = drafter.propose(min(limit, len(output) - done - 1))
        right = next((n for n, i in enumerate(draft) if i != output[done + n]), len(draft))
        drafter.accepted(len(draft), right)
        drafter.push(output[done : done + right + 1])
        taken.append((len(draft), right))
        done += right + 1
    return taken


ABC = (1, 2, 3, 4, 5, 6, 7, 8, 9)


@pytest.mark.parametrize(
    ("typed", "generated", "draft"),
    [
        pytest.param(ABC, (), ABC, id="nothing generated"),
        pytest.param(ABC, (1, 2, 3), (4, 5, 6, 7, 8, 9), id="agrees"),
        pytest.param(ABC, ABC, (), id="used up"),
        pytest.param(ABC, (*ABC, 10), (), id="longer than the draft"),
        pytest.param(ABC, (1, 2, 30), (), id="disagrees"),
        pytest.param(ABC, (1, 2, 30, 4, 5), (6, 7, 8, 9), id="one id replaced"),
        pytest.param(ABC, (1, 2, 30, 40, 50, 4, 5), (6, 7, 8, 9), id="one id replaced by three"),
        pytest.param(ABC, (1, 2, 30, 3, 4), (5, 6, 7, 8, 9), id="one id added"),
        pytest.param(ABC, (1, 2, 6, 7), (8, 9), id="three ids left out"),
        pytest.param(ABC, (1, 2, 2, 3), (4, 5, 6, 7, 8, 9), id="an id doubled"),
        pytest.param(ABC, (1, 30, 4), (), id="one equal id is none"),
        pytest.param(ABC, (1, 30, 3, 4, 60, 7, 8), (9,), id="disagrees twice"),
        pytest.param((*ABC, 3, 4, 0), (1, 2, 30, 3, 4), (5, 6, 7, 8, 9, 3, 4, 0), id="the nearest place"),
        pytest.param((1, 2, 3, 5, 6, 0, 4, 5, 6, 7), (1, 30, 4, 5, 6), (7,), id="three equal ids before two"),
        pytest.param((1, *range(50, 100), 3, 4, 5), (1, 2, 3, 4), (), id="too far on"),
        pytest.param((1, 2, *range(50, 100)), (1, *([7, 8] * 20), 50, 51), (), id="too late"),
    ],
)
def test_the_typed_draft_goes_on(typed: tuple[int, ...], generated: tuple[int, ...], draft: tuple[int, ...]) -> None:
    drafter = Drafter([0], typed)
    drafter.push(generated)
    assert drafter.propose(64) == draft


def test_after_a_disagreement_less_is_proposed() -> None:
    drafter = Drafter([0], range(100, 200))
    drafter.push([1, 101, 102])
    assert drafter.propose(64) == tuple(range(103, 111))
    drafter.push(range(103, 111))
    assert drafter.propose(64) == tuple(range(111, 151))


def test_what_is_typed_through_takes_few_steps() -> None:
    assert steps(Drafter([0], ABC), [*ABC, 2]) == [(9, 9)]
    assert steps(Drafter([0], range(100)), range(100), limit=100) == [(16, 16), (82, 82)]


def test_a_long_draft_is_tried_before_it_is_believed() -> None:
    drafter = Drafter([0], range(100))
    assert drafter.propose(64) == tuple(range(16))
    drafter.push([0])
    assert drafter.propose(64) == tuple(range(1, 65))


@pytest.mark.parametrize(
    ("prompt", "generated", "draft"),
    [
        pytest.param([1, 2, 3, 7, 8, 9, 0, 1, 2, 3], [], (7, 8, 9), id="three equal ids"),
        pytest.param([5, 2, 3, 7, 8, 9, 0, 1, 2, 3], [], (7, 8, 9), id="two equal ids"),
        pytest.param([5, 6, 3, 7, 8, 9, 0, 1, 2, 3], [], (), id="one equal id"),
        pytest.param([1, 2, 7, 7, 7, 1, 2, 8, 8, 8, 1, 2], [], (8, 8, 8), id="the last of two places"),
        pytest.param([3, 1, 2, 7, 7, 7, 1, 2, 8, 8, 8, 3, 1, 2], [], (7, 7, 7), id="three equal ids before two"),
        pytest.param([1, 2, 3, 7, 8, 9], [1, 2], (3, 7, 8), id="generated ids count"),
        pytest.param([0, 1, 2], [3, 4, 5, 1, 2], (3, 4, 5), id="over the prompt's end"),
        pytest.param([0], [1, 2, 3, 4, 1, 2], (3, 4, 1), id="in what was generated"),
        pytest.param([5, 5, 5], [], (5, 5, 5), id="a repetition of one id"),
        pytest.param([1, 2, 1, 2], [], (1, 2, 1), id="a repetition of two ids"),
        pytest.param([1], [], (), id="a prompt of one id"),
        pytest.param([1, 1], [], (), id="a prompt of two ids"),
        # In bytes, least first, 256 is 0 1 0 0 and 1 is 1 0 0 0: ids can seem equal between two ids.
        pytest.param([256, 256, 256, 7, 1, 1], [], (), id="equal only between two ids"),
    ],
)
def test_what_followed_before_may_follow_again(prompt: list[int], generated: list[int], draft: tuple[int, ...]) -> None:
    drafter = Drafter(prompt)
    drafter.push(generated)
    assert drafter.propose(64) == draft
    assert Drafter([*prompt, *generated]).propose(64) == draft


def test_ids_are_found_as_they_come() -> None:
    drafter = Drafter([0])
    assert drafter.propose(64) == ()
    drafter.push([1, 2, 3, 4])
    assert drafter.propose(64) == ()
    drafter.push([1, 2])
    assert drafter.propose(64) == (3, 4, 1)


def test_the_typed_draft_comes_first_and_the_prompt_after_it() -> None:
    drafter = Drafter([1, 2, 3, 7, 8, 9, 1, 2, 3], (4, 1, 2, 3))
    assert drafter.propose(64) == (4, 1, 2, 3)
    drafter.push((4, 1, 2, 3))
    assert drafter.propose(64) == (4, 1, 2)


@pytest.mark.parametrize("limit", [0, -1, 1, 2])
def test_never_more_than_the_limit(limit: int) -> None:
    assert Drafter([0], ABC).propose(limit) == ABC[: max(limit, 0)]
    assert Drafter([1, 2, 3, 1, 2]).propose(limit) == (3, 1)[: max(limit, 0)]


def test_nothing_comes_from_one_that_is_off() -> None:
    drafter = Drafter([1, 2, 3, 1, 2], ABC, enabled=False)
    assert drafter.propose(64) == ()
    drafter.push([1])
    assert drafter.propose(64) == ()


def test_it_grows_with_what_was_right_and_shrinks_with_what_was_not() -> None:
    text = list(range(100, 140))
    assert steps(Drafter([*text, 1, 2, 100, 101]), [*text[2:], 7]) == [(3, 3), (7, 7), (15, 15), (10, 10)]
    drafter = Drafter([1, 2, 3, 4, 5, 6, 7, 1, 2])
    assert drafter.propose(64) == (3, 4, 5)
    drafter.accepted(3, 0)
    assert drafter.propose(64) == (3,)
    drafter.accepted(1, 1)
    assert drafter.propose(64) == (3, 4, 5)


def test_after_three_misses_two_equal_ids_are_not_enough() -> None:
    drafter = Drafter([7, 1, 2, 3, 9, 1, 2])
    for _ in range(3):
        assert drafter.propose(64)[:1] == (3,)
        drafter.accepted(1, 0)
    assert drafter.propose(64) == ()
    drafter.push([8, 7, 1, 2])
    assert drafter.propose(64) == (3,)
    drafter.accepted(1, 1)
    drafter.push([3, 0, 1, 2])
    assert drafter.propose(64) == (3, 0, 1)


@pytest.mark.parametrize(
    ("typed", "proposed", "draft"),
    [pytest.param(ABC, 9, (3, 4, 5), id="of the typed draft"), pytest.param((), 0, (0, 1, 2), id="not verified")],
)
def test_what_is_no_miss_of_the_lookup(typed: tuple[int, ...], proposed: int, draft: tuple[int, ...]) -> None:
    drafter = Drafter([7, 1, 2, 3, 9, 1, 2], typed)
    for _ in range(3):
        drafter.propose(64)
        drafter.accepted(proposed, 0)
    drafter.push([*typed, 0, 1, 2])
    assert drafter.propose(64) == draft


small = st.lists(st.integers(0, 3), max_size=20)


def naive(ids: list[int], count: int) -> int | None:
    """Index behind the last earlier occurrence of the last `count` ids."""
    ends = [end for end in range(count, len(ids)) if ids[end - count : end] == ids[-count:]]
    return max(ends, default=None)


@given(small, small)
def test_a_lookup_as_by_definition(prompt: list[int], output: list[int]) -> None:
    drafter, ids = Drafter([9, *prompt]), [9, *prompt]
    for token_id in output:
        drafter.propose(8)
        drafter.push([token_id])
        ids.append(token_id)
    start = naive(ids, 3) or naive(ids, 2)
    draft = list(ids)
    for n in range(3 if start else 0):
        draft.append(draft[(start or 0) + n])
    assert drafter.propose(64) == tuple(draft[len(ids) :])


@given(small, small, small, st.integers(0, 10))
def test_every_proposal_is_of_the_requests_own_ids_and_within_the_limit(
    prompt: list[int], typed: list[int], output: list[int], limit: int
) -> None:
    drafter, ids = Drafter([9, *prompt], typed), {9, *prompt, *typed, *output}
    done = 0
    while done < len(output):
        draft = drafter.propose(limit)
        assert len(draft) <= limit
        assert set(draft) <= ids
        assert draft == drafter.propose(limit)
        right = next((n for n, (a, b) in enumerate(zip(draft, output[done:], strict=False)) if a != b), len(draft))
        drafter.accepted(len(draft), right)
        drafter.push(output[done : done + right + 1])
        done += right + 1


@given(small.filter(bool).map(lambda ids: ids[:16]), st.integers(64, 80))
def test_a_right_typed_draft_is_verified_at_once(typed: list[int], limit: int) -> None:
    assert steps(Drafter([9], typed), [*typed, 8], limit) == [(len(typed), len(typed))]
