"""What holds for any load."""

import math
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from aixcoder_operator.scaling.load import Second
from aixcoder_operator.scaling.policy import Bounds, Rate
from tests.unit.scaling.world import BOUNDS, COLD_START_S, World, calm

HOLD = 2 * COLD_START_S

stretches = st.lists(
    st.tuples(
        st.integers(1, 120),  # seconds
        st.integers(0, 120),  # arrivals in each
        st.integers(0, 50),  # queued
        st.sampled_from([0.0, 0.0, 1.0]),  # late
        st.sampled_from([True, True, True, False]),  # heard
        st.sampled_from([0, 1, 1]),  # ready
    ),
    min_size=1,
    max_size=12,
)
Stretches = list[tuple[int, int, int, float, bool, int]]


def seconds(some: Stretches, more: float = 1.0) -> list[Second]:
    return [
        calm(0, rate * more, queued=queued * more, waited_over_target=late * more, heard=heard)
        for count, rate, queued, late, heard, _ in some
        for _ in range(count)
    ]


def play(world: World, some: Stretches, more: float = 1.0) -> list[Second]:
    """Stretch by stretch; whether all gateways are heard now is another thing than whether they told a second."""
    played = []
    for stretch in some:
        one = seconds([stretch], more)
        world.play(one, ready=stretch[-1], all_heard=stretch[-2])
        played += one
    return played


@given(stretches, st.integers(0, 5), st.integers(0, 15))
@settings(max_examples=30, deadline=None)
def test_never_outside_the_bounds(some: Stretches, least: int, above: int) -> None:
    bounds = Bounds(least, max(least + above, 1), zero_after_s=60.0, up=Rate(3, 5.0), down=Rate(2, 5.0))
    world = World(bounds=bounds)
    play(world, some)
    assert all(bounds.least <= desired <= bounds.most for desired in world.desired)


@given(stretches, st.integers(0, 1))
@settings(max_examples=30, deadline=None)
def test_nothing_is_scaled_down_soon_after_a_higher_need(some: Stretches, least: int) -> None:
    """Not below what any of the last 2·D seconds needed or wished; to zero only where nothing came in them.

    What was needed before it slept wakes nobody.
    """
    world = World(bounds=replace(BOUNDS, least=least, zero_after_s=30.0))
    played = play(world, some)
    for at in range(1, len(played)):
        if world.desired[at] < world.desired[at - 1]:
            recent = slice(max(0, at - int(HOLD) + 1), at + 1)
            if world.desired[at] == 0:
                assert not any(each.arrivals or each.queued for each in played[recent] if each.heard)
            else:
                woken = world.decisions[at].standing.waking
                needs = [0 if woken else math.ceil(need - 1e-6) for need in world.needs[recent]]
                wishes = [each.wish for each in world.decisions[recent]]
                assert world.desired[at] >= min(max(needs + wishes), BOUNDS.most)


@given(stretches, st.sampled_from([1.0, 2.0, 4.0]))
@settings(max_examples=30, deadline=None)
def test_more_load_never_wishes_less(some: Stretches, more: float) -> None:
    """Everything so many times. (More in one second alone may wish less: one in a hundred requests is then more.)"""
    little, much = World(), World()
    play(little, some)
    play(much, some, more)
    pairs = zip(little.decisions, much.decisions, strict=True)
    assert all(one.wish <= other.wish for one, other in pairs)


@given(stretches, st.integers(1, 30))
@settings(max_examples=30, deadline=None)
def test_a_longer_queue_never_wishes_less(some: Stretches, longer: int) -> None:
    little, much = World(), World()
    little.play(seconds(some))
    much.play(replace(one, queued=one.queued + longer) for one in seconds(some))
    pairs = zip(little.decisions, much.decisions, strict=True)
    assert all(one.wish <= other.wish for one, other in pairs)
