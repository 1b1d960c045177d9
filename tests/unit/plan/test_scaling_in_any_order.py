"""Whatever is decided in whatever order, while controllers and operators stand still: nobody who is needed goes."""

from __future__ import annotations

import re
from datetime import datetime, timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aixcoder_operator.api.objects import name
from aixcoder_operator.plan.observed import is_ready
from tests.unit.plan import invariants
from tests.unit.plan.simulator import Simulator
from tests.unit.plan.test_any_order import EVENTS, HEADS, happen, settle

MOST = 6
STALLS = [1, 3, 5]
LATE = timedelta(seconds=2 * max(STALLS) + 5)
"""From a wish to the last pod that goes by it: operator and controller manager may both stand still."""

SCALING = st.one_of(
    st.tuples(st.just("scale"), st.integers(0, MOST + 2)),
    st.tuples(st.just("wait"), st.sampled_from([1, 2, 3, 5, 20])),
    st.tuples(st.just("controllers stand still"), st.sampled_from(STALLS)),
    st.tuples(st.just("operator away"), st.sampled_from(STALLS)),
    st.tuples(st.just("another operator"), st.just(0)),
    st.tuples(st.just("busy"), st.integers(0, MOST)),
    st.tuples(st.just("idle"), st.just(0)),
    st.tuples(st.just("crash"), st.integers(0, MOST)),
    st.tuples(st.just("gpus"), st.integers(1, MOST + 2)),
)


class Scaled:
    """A simulator whose number of replicas is decided, and the wishes that were in force."""

    def __init__(self, demo: Simulator) -> None:
        self.demo = demo
        self.wishes: list[tuple[datetime, int]] = []
        self.note()

    def note(self) -> None:
        self.wishes.append((self.demo.world.now, self.demo.observed().wish().replicas))

    def happen(self, event: str, value: object) -> None:
        demo, number = self.demo, value if isinstance(value, int) else 0
        match event:
            case "scale":
                demo.scale(number)
            case "controllers stand still":
                demo.world.controllers_stand_still = True
                demo.wait(number)
                demo.world.controllers_stand_still = False
            case "another operator":
                demo.start_again()
            case _:
                happen(demo, event, value)
        self.note()

    def least_wish(self, at: datetime) -> int:
        """The smallest that was in force at some time within the last `LATE`."""
        before = [wish for since, wish in self.wishes if since <= at - LATE][-1:]
        return min([*before, *(wish for since, wish in self.wishes if at - LATE < since <= at)])


@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(events=st.lists(SCALING, min_size=1, max_size=25))
def test_no_wish_costs_a_replica_that_is_wished_for(events: list[tuple[str, object]]) -> None:
    scale_alone(events)


@pytest.mark.long
@pytest.mark.timeout(3600)
@settings(max_examples=3000, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(events=st.lists(SCALING, min_size=1, max_size=40))
def test_no_wish_costs_a_replica_in_many_more_orders(events: list[tuple[str, object]]) -> None:
    scale_alone(events)


def scale_alone(events: list[tuple[str, object]]) -> None:
    """One unit, scaled up and down."""
    demo = Simulator()
    demo.create(autoscaling={"minReplicas": 1, "maxReplicas": MOST})
    demo.wait(10)
    scaled = Scaled(demo)
    for event, value in events:
        scaled.happen(event, value)
        demo.wait(1)
    settle(demo)
    for gone in demo.world.went:
        if is_ready(gone.pod):
            assert all(is_ready(pod) for pod in gone.staying), "one that is not ready stays in its place"
            assert len(gone.staying) >= scaled.least_wish(gone.at), "nobody wished for so few"
    wish = demo.observed().wish().replicas
    assert demo.steps[-1] == f"A* {wish}/{wish} | Ready AllReplicasReady"
    assert not any("Reconciling" in step for step in demo.steps[3:])
    invariants.check_steady(demo)
    before = demo.writes
    demo.start_again()
    demo.wait(100)
    assert demo.writes == before


def test_of_two_ready_ones_the_one_without_work_goes() -> None:
    demo = Simulator()
    demo.create(autoscaling={"maxReplicas": MOST})
    demo.scale(4)
    demo.run()
    idle, *busy = demo.workers()
    demo.world.busy = {name(pod): 1 for pod in busy}
    demo.scale(3)
    demo.run(20)
    assert [name(gone.pod) for gone in demo.world.went] == [name(idle)]


@settings(max_examples=40, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(events=st.lists(st.one_of(SCALING, EVENTS), min_size=1, max_size=15), head=HEADS, keep_head=st.booleans())
def test_any_order_of_events_ends_in_what_is_decided(
    events: list[tuple[str, object]], head: dict[str, str], keep_head: bool
) -> None:
    scale_among_others(events, head, keep_head)


@pytest.mark.long
@pytest.mark.timeout(3600)
@settings(max_examples=2000, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(events=st.lists(st.one_of(SCALING, EVENTS), min_size=1, max_size=20), head=HEADS, keep_head=st.booleans())
def test_many_more_orders_end_in_what_is_decided(
    events: list[tuple[str, object]], head: dict[str, str], keep_head: bool
) -> None:
    scale_among_others(events, head, keep_head)


def scale_among_others(events: list[tuple[str, object]], head: dict[str, str], keep_head: bool) -> None:
    """Scaling to zero and back among changes, losses and faults."""
    autoscaling = {"minReplicas": 0, "maxReplicas": MOST, "keepHead": keep_head}
    deadlines = {"progressDeadlineSeconds": 120, "schedulingDeadlineSeconds": 300}
    demo = Simulator()
    demo.create(head=head, rollout=deadlines, autoscaling=autoscaling)
    demo.wait(10)
    scaled = Scaled(demo)
    for event, value in events:
        if event == "created again":
            demo.decided = None
        if event != "replicas":  # refused beside autoscaling
            scaled.happen(event, value)
        demo.resource["spec"].setdefault("autoscaling", autoscaling)
        demo.wait(1)
    settle(demo)
    demo.restart("at last")
    demo.run(8000)
    invariants.check_steady(demo)
    spec = demo.resource["spec"]
    letter = spec["model"]["source"]["image"]["reference"][len("models/")].upper()
    wish, last = demo.observed().wish().replicas, demo.steps[-1]
    if spec.get("suspend"):
        assert last == "nothing | Ready Suspended"
    elif wish == 0 and not keep_head:
        assert last == "nothing | Ready ScaledToZero"
    else:
        reason = "AllReplicasReady" if wish else "ScaledToZero"
        assert re.fullmatch(rf"{letter}\+at last(-\d+)?\* {wish}/{wish} \| Ready {reason}", last)
