"""A rollout while the number is scaled: both units follow the load, and no deadline takes that for a failure."""

from __future__ import annotations

import pytest

from aixcoder_operator.api.objects import name
from tests.unit.plan import invariants
from tests.unit.plan.simulator import Simulator
from tests.unit.plan.story import follows, ready, tells


def rolling(replicas: int, *, gpus: int = 20, load_ticks: int = 3, most: int = 10, **rollout: int) -> Simulator:
    """A deployment of so many replicas of model a, changed to model b just now."""
    demo = ready(autoscaling={"minReplicas": 0, "maxReplicas": most}, rollout=rollout)
    demo.scale(replicas)
    demo.run()
    demo.world.gpus, demo.world.load_ticks = gpus, load_ticks
    demo.change(model="b")
    demo.wait(3)
    assert demo.steps[-1] == f"A* {replicas}/{replicas}, B 0/{replicas} serve 0 | Ready RollingOut | Reconciling"
    demo.told.clear()
    return demo


def test_both_grow_with_the_load() -> None:
    demo = rolling(1, load_ticks=10)
    demo.scale(3)
    tells(
        demo,
        {
            "both are to grow": "A* 1/3, B 0/3 | Ready RollingOut | Reconciling",
            "the new one can do what the old one does now": "A 1/3, B* 1/3 | Ready TrafficSwitching | Reconciling",
            "the old one drains": "A 3/0 serve 3, B* 3/3 | Ready AllReplicasReady",
            "its head goes last": "A 0/0 serve 3, B* 3/3 | Ready AllReplicasReady",
            "it is gone": "B* 3/3 | Ready AllReplicasReady",
        },
    )


def test_the_old_one_keeps_what_serves_when_the_load_falls() -> None:
    demo = rolling(3)
    serving = {name(pod) for pod in demo.workers()}
    demo.scale(1)
    follows(
        demo.run()[:2],
        {
            "only the new one is to be smaller": "A* 3/3, B 0/3 marked 2 | Ready RollingOut | Reconciling",
            "the traffic switches": "A 3/3, B* 3/1 marked 2 serve 3 | Ready TrafficSwitching | Reconciling",
        },
    )
    assert not [gone for gone in demo.world.went if name(gone.pod) in serving and gone.staying]
    assert demo.steps[-1] == "B* 1/1 | Ready AllReplicasReady"
    invariants.check_steady(demo)


def test_a_wish_that_grows_faster_than_replicas_start_holds_up_no_rollout_and_fails_none() -> None:
    demo = rolling(1, load_ticks=20, progressDeadlineSeconds=30)
    for replicas in range(2, 9):
        demo.scale(replicas)
        demo.wait(10)
    assert demo.alias(demo.serving()) == "B"
    demo.run()
    assert demo.steps[-1] == "B* 8/8 | Ready AllReplicasReady"
    assert not any("Stalled" in step for step in demo.steps)


def test_what_is_refused_beyond_the_old_size_fails_no_rollout() -> None:
    demo = rolling(2, progressDeadlineSeconds=30)
    demo.wait(1)
    demo.world.refuses = "exceeded quota: pods"
    demo.scale(5)
    demo.wait(100)
    assert demo.steps[-1] == "B* 2/5 | Ready PodsRefused"
    demo.world.refuses = ""
    demo.run()
    assert demo.steps[-1] == "B* 5/5 | Ready AllReplicasReady"


def test_one_that_got_ready_while_no_operator_looked_is_not_late() -> None:
    demo = rolling(2, load_ticks=10, progressDeadlineSeconds=30)
    demo.world.refuses = "exceeded quota: pods"
    demo.scale(5)
    demo.wait(3)
    for _ in range(60):
        demo.world.tick(1)
    demo.wait(10)
    assert demo.steps[-1] == "B* 2/5 | Ready PodsRefused"


def test_too_few_gpus_for_all_of_both() -> None:
    demo = rolling(2, gpus=5)
    demo.scale(4)
    follows(
        demo.wait(100),
        {
            "both are to grow": "A* 2/4, B 0/4 | Ready RollingOut | Reconciling",
            "the new one can do what the old one does now": "A 2/4, B* 2/4 | Ready TrafficSwitching | Reconciling",
            "the old one gives its GPUs back": "A 2/0 serve 4, B* 3/4 | Ready InsufficientGPU | Reconciling",
            "its head goes last": "A 0/0 serve 4, B* 3/4 | Ready InsufficientGPU | Reconciling",
            "it is gone": "B* 3/4 | Ready InsufficientGPU",
            "the last one has its node": "B* 3/4 | Ready Starting",
            "all answer": "B* 4/4 | Ready AllReplicasReady",
        },
    )


def test_a_new_one_without_gpus_gets_those_that_the_load_needs_no_more() -> None:
    demo = rolling(4, gpus=4, schedulingDeadlineSeconds=60)
    demo.wait(100)
    assert demo.steps[-1] == "A* 4/4, B 0/4 | Ready RollingOut | Stalled InsufficientGPU"
    demo.scale(1)
    tells(
        demo,
        {
            "the old one may go with the load now": (
                "A* 4/4 marked 3, B 0/4 marked 3 | Ready RollingOut | Stalled InsufficientGPU"
            ),
            "2 s later": (
                "A* 4/1 marked 3 serve 4, B 0/1 marked 3 serve 4 | Ready RollingOut | Stalled InsufficientGPU"
            ),
            "GPUs are free": "A* 1/1, B 0/1 | Ready RollingOut | Stalled InsufficientGPU",
            "the new one has its node": "A* 1/1, B 0/1 | Ready RollingOut | Reconciling",
            "it is ready": "A 1/1, B* 1/1 | Ready TrafficSwitching | Reconciling",
            "the old one drains": "A 1/0 serve 1, B* 1/1 | Ready AllReplicasReady",
            "its head goes last": "A 0/0 serve 1, B* 1/1 | Ready AllReplicasReady",
            "it is gone": "B* 1/1 | Ready AllReplicasReady",
        },
    )


def test_what_is_given_up_leaves_the_old_one_to_be_scaled() -> None:
    demo = rolling(2, progressDeadlineSeconds=60)
    demo.world.faults["models/b:1"] = "crash"
    demo.wait(5)
    demo.scale(3)
    demo.run()
    assert demo.steps[-1] == "A* 3/3 | Ready AllReplicasReady | Stalled ReplicaCrashed"
    assert "not ready within 60 s" in demo.condition("Stalled")
    demo.scale(1)
    tells(
        demo,
        {
            "two are marked": "A* 3/3 marked 2 | Ready AllReplicasReady | Stalled ReplicaCrashed",
            "2 s later": "A* 3/1 marked 2 serve 3 | Ready AllReplicasReady | Stalled ReplicaCrashed",
            "it stays stalled": "A* 1/1 | Ready AllReplicasReady | Stalled ReplicaCrashed",
        },
    )
    assert demo.resource["status"]["rollout"]["phase"] == "Failed"


def test_a_unit_without_its_head_does_not_grow_its_successor_does() -> None:
    demo = ready(autoscaling={"maxReplicas": 10})
    demo.scale(2)
    demo.run()
    demo.lose_head()
    demo.wait(3)
    demo.scale(4)
    tells(
        demo,
        {
            "workers without a head could never start": "A*! 2/2, A-1 0/4 | Ready RollingOut",
            "it can do what the old one does": "A! 2/2, A-1* 2/4 | Ready TrafficSwitching",
            "the old one drains": "A! 2/0, A-1* 4/4 | Ready AllReplicasReady",
            "its workers end": "A! 0/0, A-1* 4/4 | Ready AllReplicasReady",
            "it is gone": "A-1* 4/4 | Ready AllReplicasReady",
        },
    )


@pytest.mark.parametrize("replicas", [1, 3])
def test_a_rollout_is_told_once_while_the_number_changes(replicas: int) -> None:
    demo = rolling(replicas, load_ticks=10)
    demo.scale(replicas + 2)
    demo.run()
    assert [event.reason for event in demo.told] == ["ScaledUp", "TrafficSwitched"]
