"""What a new leader begins with, and what holds for rates whoever leads."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aixcoder_operator.api.objects import Object
from aixcoder_operator.api.status import AutoscalingStatus
from aixcoder_operator.plan.observed import Observed
from aixcoder_operator.scaling.scaler import taken_over
from tests.unit.scaling.gateways import NOON, World
from tests.unit.scaling.scaled import Loop, sight, text, worker


def status(changed: float | None, hold: float | None) -> AutoscalingStatus:
    fields: dict[str, Any] = {"desired": 7}
    fields |= {} if changed is None else {"lastDecision": {"time": text(changed), "reason": "as it was"}}
    return AutoscalingStatus.model_validate(fields | ({} if hold is None else {"holdUntil": text(hold)}))


@pytest.mark.parametrize(
    ("told", "changed", "risen"),
    [
        pytest.param(None, 0, 0, id="nothing told"),
        pytest.param(status(None, None), 0, 0, id="never changed"),
        pytest.param(status(NOON, NOON + 60), NOON, NOON, id="a rise was last"),
        pytest.param(status(NOON, NOON - 20), NOON, 0, id="a fall was last: the rise before is not known"),
        pytest.param(status(NOON, None), NOON, 0, id="a fall, and no rise ever"),
    ],
)
def test_taken_over(told: AutoscalingStatus | None, changed: float, risen: float) -> None:
    standing = taken_over(7, told)
    assert (standing.desired, standing.changed_at, standing.risen_at) == (7, changed, risen)
    assert standing.hold_until > NOON + 1e6
    assert not standing.waking


PERIOD = 20
SPEC = {
    "maxReplicas": 20,
    "scaleUp": {"replicas": 2, "periodSeconds": PERIOD},
    "scaleDown": {"replicas": 3, "periodSeconds": PERIOD},
}


def begin(told: dict[str, Any]) -> Loop:
    world = World()
    world.start("a")
    playing = Loop(world)
    playing.learn(sight(autoscaling=SPEC, status=told))
    return playing


def taken(playing: Loop) -> Loop:
    """Another process leads from now on, with what status tells and what the gateways keep."""
    decided = playing.autoscaler.decided(sight().deployment)
    after = Loop(playing.world)
    told = decided.model_dump(mode="json", by_alias=True, exclude_none=True) if decided else None
    after.learn(sight(autoscaling=SPEC, status=told))
    return after


def test_a_burst_after_a_fall_and_a_new_leader_is_held_up_by_nothing() -> None:
    before = begin(
        {"desired": 7, "lastDecision": {"time": text(NOON - 10), "reason": ""}, "holdUntil": text(NOON - 20)}
    )
    after = taken(before)
    after.play(2, a=60)
    assert after.desired(sight(autoscaling=SPEC)) == 9


def test_a_rise_before_a_new_leader_counts() -> None:
    before = begin({"desired": 1})
    before.play(2, a=60)
    assert before.desired(sight(autoscaling=SPEC)) == 3
    after = taken(before)
    after.play(PERIOD - 2, a=60)
    assert after.desired(sight(autoscaling=SPEC)) == 3
    after.play(2, a=60)
    assert after.desired(sight(autoscaling=SPEC)) == 5


def test_a_new_leader_goes_on_with_what_was_learned() -> None:
    before = begin({"desired": 7, "lastDecision": {"time": text(NOON - 10), "reason": ""}, "marginPercent": 12})
    before.play(2, a=60)
    assert before.desired(sight(autoscaling=SPEC)) == 9
    decided = before.autoscaler.decided(sight().deployment)
    assert decided is not None
    assert decided.margin_percent == 12
    after = taken(before)
    after.play(2, a=60)
    assert after.value("margin") == pytest.approx(0.12, abs=0.005)


@pytest.mark.parametrize(
    ("arrivals", "ready", "learns"),
    [
        pytest.param(60, 20, True, id="all are there"),
        pytest.param(300, 20, False, id="more would be needed than may be"),
        pytest.param(60, 3, False, id="some do not come"),
    ],
)
def test_nothing_is_learned_where_replicas_are_missing(arrivals: int, ready: int, learns: bool) -> None:
    """Nobody is late here, so that the margin falls where it learns."""
    world = World()
    world.start("a")
    playing = Loop(world)
    workers = [worker(f"w{number}", NOON - 100, NOON - 95) for number in range(ready)]
    playing.learn(sight(*workers, autoscaling={"maxReplicas": 20}, status={"desired": 20, "coldStartSeconds": 5}))
    playing.play(300, a=arrivals)
    assert ((playing.value("margin") or 0) < -0.0005) == learns


def at_most(status: Object) -> Observed:
    """All replicas that may be are there."""
    workers = [worker(f"w{number}", NOON - 100, NOON - 95) for number in range(4)]
    return sight(*workers, autoscaling={"maxReplicas": 4}, status={"desired": 4, "coldStartSeconds": 5} | status)


def crowded() -> Loop:
    """They are too few: for ten minutes everybody is late. Two gateways."""
    world = World()
    for address in ("a", "b"):
        world.start(address).late = 1.0
    playing = Loop(world)
    playing.learn(at_most({}))
    playing.play(600, a=30, b=30)
    return playing


def silent_for_a_while(playing: Loop, **requests: int) -> None:
    """One of two gateways: when it answers again, all is read again."""
    playing.world.at["b"].answers = False
    playing.play(5, **requests)
    playing.world.at["b"].answers = True
    playing.play(3, **requests)
    assert playing.value("gateways_unheard") == 0


def test_what_taught_nothing_teaches_nothing_when_it_is_read_again() -> None:
    playing = crowded()
    silent_for_a_while(playing, a=30, b=30)
    assert playing.value("margin") == 0


def test_a_new_leader_learns_nothing_of_a_time_with_too_few() -> None:
    before = crowded()
    after = Loop(before.world)
    after.learn(at_most({"lastDecision": {"time": text(NOON - 7200), "reason": ""}}))
    after.play(5, a=30, b=30)
    assert after.value("margin") == 0
    assert after.value("wish") == before.value("wish")


def test_a_queue_counts_though_its_seconds_are_read_again() -> None:
    world = World()
    for address in ("a", "b"):
        world.start(address)
    playing, seen = Loop(world), sight(status={"desired": 1, "coldStartSeconds": 30})
    playing.learn(seen)
    playing.play(100, a=10, b=10)
    world.at["a"].ledger.of("ns", "demo").waiting = 300
    playing.play(50, a=10, b=10)
    most = playing.desired(seen)
    world.at["a"].ledger.of("ns", "demo").waiting = 0
    playing.play(15, a=10, b=10)  # the hold of the rise is over, that of the last second with a queue is not
    silent_for_a_while(playing, a=10, b=10)
    assert playing.desired(seen) == most
    playing.play(60, a=10, b=10)
    assert playing.desired(seen) < most


stretches = st.lists(
    st.tuples(
        st.integers(1, 40),  # seconds
        st.sampled_from([0, 2, 20, 90]),  # arrivals in each
        st.sampled_from([None, 1, 5, 40]),  # a start that is seen before, of so many seconds
        st.booleans(),  # another leads
    ),
    min_size=2,
    max_size=8,
)


@given(stretches)
@settings(max_examples=10, deadline=None)
def test_no_more_in_a_period_than_its_rate_whoever_leads_and_however_long_a_start_takes(
    some: list[tuple[int, int, int | None, bool]],
) -> None:
    playing = begin({"desired": 6, "coldStartSeconds": 5})
    rises: list[tuple[float, int]] = []
    falls: list[tuple[float, int]] = []
    number, was_fall = 6, False
    for index, (count, arrivals, start_s, another) in enumerate(some):
        if another:
            playing = taken(playing)
            if was_fall:
                rises.clear()  # status tells of the last change only
        if start_s is not None:
            made = playing.world.now
            playing.learn(sight(worker(f"w{index}", made), autoscaling=SPEC))
            playing.learn(sight(worker(f"w{index}", made, made + start_s), autoscaling=SPEC))
        for _ in range(count):
            playing.play(1, a=arrivals)
            change = playing.desired(sight(autoscaling=SPEC)) - number
            if change:
                number, was_fall = number + change, change < 0
                (falls if was_fall else rises).append((playing.world.now, abs(change)))
                for changes, most in ((rises, 2), (falls, 3)):
                    assert sum(by for at, by in changes if at > playing.world.now - PERIOD) <= most
