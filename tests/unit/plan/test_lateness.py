"""Deadlines: which clock runs, since when, and what its end means."""

from __future__ import annotations

from datetime import timedelta

import pytest

from aixcoder_operator.api.defaults import effective
from aixcoder_operator.api.deployment import DeploymentSpec
from aixcoder_operator.plan.diagnosis import Reason
from aixcoder_operator.plan.lateness import lateness
from aixcoder_operator.plan.observed import UnitView
from tests.unit.plan.simulator import spec_of
from tests.unit.plan.views import NOW, pod, replica_set, unit

HEAD = pod("head", ready=True, age=10_000)
STUCK = "1 Insufficient nvidia.com/gpu"

# progressDeadlineSeconds 100, schedulingDeadlineSeconds 1000, 2 replicas. Expected: None, "waits" or "expired".
CASES: dict[str, tuple[UnitView, float, str | None]] = {
    "nothing made yet": (UnitView("u", "u"), 5000, None),
    "pods not made yet": (unit(head=HEAD, size=2), 5000, None),
    "on nodes since 99 s": (unit(pod("w", age=99), pod("v", age=99), head=HEAD), 99, None),
    "on nodes since 101 s": (unit(pod("w", age=101), pod("v", age=101), head=HEAD), 101, "expired"),
    "the last one got its node 50 s ago": (unit(pod("w", age=500), pod("v", age=50), head=HEAD), 500, None),
    "one got ready 50 s ago": (
        unit(pod("w", age=500, ready=True, turned=50), pod("v", age=500), head=HEAD),
        500,
        None,
    ),
    "one stopped being ready 50 s ago, after days": (
        unit(pod("w", age=90_000, ready=True), pod("v", age=90_000, turned=50), head=HEAD),
        90_000,
        None,
    ),
    "one stopped being ready 101 s ago": (
        unit(pod("w", age=90_000, ready=True), pod("v", age=90_000, turned=101), head=HEAD),
        90_000,
        "expired",
    ),
    "the rollout began after the pods": (unit(pod("w", age=500), pod("v", age=500), head=HEAD), 50, None),
    "the head got its node 50 s ago": (
        unit(pod("w", age=500), pod("v", age=500), head=pod("h", age=50)),
        500,
        None,
    ),
    "a head that comes and goes is no progress": (
        unit(pod("w", age=500), pod("v", age=500), head=pod("h", age=500, ready=True, turned=1)),
        500,
        "expired",
    ),
    "one has no node since 999 s": (
        unit(pod("w", age=999), pod("v", age=999, node=False, unschedulable=STUCK), head=HEAD),
        999,
        None,
    ),
    "one has no node since 1001 s": (
        unit(pod("w", age=1001), pod("v", age=1001, node=False, unschedulable=STUCK), head=HEAD),
        1001,
        "waits",
    ),
    "no node for long, wished for since 50 s": (
        unit(pod("w", age=5000, node=False, unschedulable=STUCK), head=HEAD),
        50,
        None,
    ),
    "the head has no node": (
        unit(pod("w", age=1001), pod("v", age=1001), head=pod("h", node=False, age=1001, unschedulable=STUCK)),
        1001,
        "waits",
    ),
    "refused since 99 s": (unit(head=HEAD, sets=replica_set(2, failure="quota", age=99)), 500, None),
    "refused since 101 s": (unit(head=HEAD, sets=replica_set(2, failure="quota", age=101)), 500, "expired"),
}


@pytest.mark.parametrize("case", CASES)
def test_lateness(case: str) -> None:
    seen, since, expected = CASES[case]
    deadlines = {"progressDeadlineSeconds": 100, "schedulingDeadlineSeconds": 1000}
    wish = effective(DeploymentSpec.model_validate(spec_of(replicas=2, rollout=deadlines)))
    late = lateness(seen, wish, Reason("Why", "so"), NOW - timedelta(seconds=since), NOW)
    assert (None if late is None else "expired" if late.expired else "waits") == expected
    if late is not None:
        message = "not ready within 100 s: so" if late.expired else "so"
        assert late.reason == Reason("Why", message)
