"""A deployment whose number of replicas the operator decides: up, down, what cannot be had, and what is told of it."""

from __future__ import annotations

import pytest

from aixcoder_operator.api.objects import name
from aixcoder_operator.plan.events import Event
from tests.unit.plan import invariants
from tests.unit.plan.simulator import Simulator
from tests.unit.plan.story import follows, ready, tells


def scaled(replicas: int = 1, least: int = 1, most: int = 8, **spec: object) -> Simulator:
    """An autoscaled deployment of model a with so many replicas, that stands still."""
    demo = ready(autoscaling={"minReplicas": least, "maxReplicas": most}, **spec)
    demo.scale(replicas)
    demo.run()
    invariants.check_steady(demo)
    demo.told.clear()
    return demo


def test_created_with_one_whatever_the_minimum() -> None:
    demo = Simulator()
    demo.create(autoscaling={"minReplicas": 0, "maxReplicas": 3})
    tells(
        demo,
        {
            "head and worker are made": "A* 0/1 serve 0 | NotReady Starting | Reconciling",
            "Serve is told": "A* 0/1 | NotReady Starting | Reconciling",
            "it answers": "A* 1/1 | Ready AllReplicasReady",
        },
    )
    assert "autoscaling" not in demo.resource["status"], "nothing was decided yet"


def test_up_at_once_and_no_word_of_reconciling() -> None:
    demo = scaled(1)
    demo.scale(4)
    tells(
        demo,
        {
            "pods and Serve get their number together": "A* 1/4 | Ready Starting",
            "all answer": "A* 4/4 | Ready AllReplicasReady",
        },
    )
    assert demo.resource["status"]["autoscaling"]["desired"] == 4
    assert demo.resource["status"]["traffic"]["version"] == 1


def test_down_and_no_word_of_reconciling() -> None:
    demo = scaled(3)
    demo.scale(1)
    tells(
        demo,
        {
            "two are marked": "A* 3/3 marked 2 | Ready AllReplicasReady",
            "2 s later the ReplicaSet is lowered": "A* 3/1 marked 2 serve 3 | Ready AllReplicasReady",
            "they end, Serve is told": "A* 1/1 | Ready AllReplicasReady",
        },
    )


def test_the_rollout_stays_complete_while_it_is_scaled() -> None:
    demo = scaled(1)
    phases = set()
    for replicas in (4, 2, 5, 1):
        demo.scale(replicas)
        for _ in range(20):
            demo.wait(1)
            phases.add(demo.resource["status"]["rollout"]["phase"])
    assert phases == {"Complete"}


def test_a_change_in_place_while_it_is_scaled_is_no_reconciling() -> None:
    demo = scaled(1)
    demo.world.gpus = 2
    demo.scale(4)
    demo.wait(20)
    demo.change(completion={"maxTokens": 7})
    follows(demo.wait(20), {})
    assert demo.steps[-1] == "A* 2/4 | Ready InsufficientGPU"
    assert demo.resource["status"]["observedGeneration"] == 2


def test_what_cannot_be_scheduled_is_told_for_ever_and_stalls_nothing() -> None:
    demo = scaled(1)
    demo.world.gpus = 3
    demo.scale(5)
    follows(
        demo.wait(5000),
        {
            "all are made": "A* 1/5 | Ready Starting",
            "two have no node": "A* 1/5 | Ready InsufficientGPU",
            "the others answer": "A* 3/5 | Ready InsufficientGPU",
        },
    )
    message = "InsufficientGPU: 2 of 5 replicas wait for a node with 1 free nvidia.com/gpu"
    assert demo.condition("Ready").startswith(f"InsufficientGPU: 3 of 5 ready: {message}")
    unmet = [event for event in demo.told if event.reason == "InsufficientGPU"]
    assert [(event.warning, event.topic) for event in unmet] == [(True, "InsufficientGPU")]
    assert "of 5 ready: InsufficientGPU: 2 of 5 replicas" in unmet[0].message
    demo.told.clear()
    demo.scale(6)
    demo.wait(20)
    assert [event.reason for event in demo.told] == ["ScaledUp", "InsufficientGPU"], "another wish that cannot be met"
    demo.scale(3)
    demo.run()
    assert demo.steps[-1] == "A* 3/3 | Ready AllReplicasReady"
    assert len({name(pod) for pod in demo.workers()}) == 3
    invariants.check_steady(demo)


def test_who_has_no_node_goes_first_and_nobody_who_serves() -> None:
    demo = scaled(3)
    serving = {name(pod) for pod in demo.workers()}
    demo.world.gpus = 3
    demo.scale(5)
    demo.wait(20)
    demo.scale(3)
    demo.run()
    assert {name(pod) for pod in demo.workers()} == serving
    invariants.check_steady(demo)


def test_a_wish_that_is_taken_back_costs_nothing_that_serves() -> None:
    demo = scaled(3)
    serving = {name(pod) for pod in demo.workers()}
    for _ in range(20):
        demo.scale(2)
        demo.wait(1)
        demo.scale(3)
        demo.wait(1)
    demo.run()
    assert {name(pod) for pod in demo.workers()} == serving
    assert demo.world.went == []
    invariants.check_steady(demo)


def test_4_to_3_with_one_not_ready_and_the_controller_manager_away() -> None:
    demo = scaled(4)
    broken = demo.workers()[1]
    demo.world.faults["models/a:1"] = "stuck"
    demo.world.unready(broken)
    demo.wait(5)
    demo.scale(3)
    demo.wait(3)
    demo.world.controllers_stand_still = True
    demo.wait(5)
    demo.world.controllers_stand_still = False
    demo.run()
    assert [name(went.pod) for went in demo.world.went] == [name(broken)]
    assert demo.steps[-1] == "A* 3/3 | Ready AllReplicasReady"
    invariants.check_steady(demo)


def test_up_while_the_controller_manager_has_yet_to_go_down() -> None:
    demo = scaled(3)
    serving = {name(pod) for pod in demo.workers()}
    demo.world.controllers_stand_still = True
    demo.scale(1)
    demo.wait(10)
    demo.scale(4)
    demo.wait(2)
    demo.world.controllers_stand_still = False
    demo.run()
    assert serving < {name(pod) for pod in demo.workers()}
    assert demo.world.went == []
    assert demo.steps[-1] == "A* 4/4 | Ready AllReplicasReady"


def test_another_process_goes_on_with_what_status_tells() -> None:
    demo = scaled(4)
    demo.start_again()
    tells(demo, {})
    assert demo.resource["status"]["autoscaling"]["desired"] == 4


def test_from_a_number_by_hand_to_scaling_and_back() -> None:
    demo = ready(replicas=3)
    demo.change(autoscaling={"maxReplicas": 5}, replicas=None)
    tells(demo, {})
    assert len(demo.workers()) == 3
    demo.scale(5)
    demo.run()
    demo.decided = None
    demo.change(autoscaling=None, replicas=5)
    tells(demo, {})
    assert "autoscaling" not in demo.resource["status"]


def test_suspended_it_keeps_what_was_decided() -> None:
    demo = scaled(3)
    demo.decided = None
    demo.change(suspend=True)
    demo.run()
    assert demo.steps[-1] == "nothing | Ready Suspended"
    demo.change(suspend=False)
    demo.run()
    assert demo.steps[-1] == "A* 3/3 | Ready AllReplicasReady"


def test_events_of_decisions() -> None:
    demo = scaled(1)
    demo.scale(4, "queued 9: 4")
    demo.run()
    demo.scale(2, "queued 0: 2")
    demo.run()
    assert demo.told == [
        Event("ScaledUp", "from 1 to 4: queued 9: 4", topic="scaling"),
        Event("ScaledDown", "from 4 to 2: queued 0: 2", topic="scaling"),
    ]


def test_a_scaled_replica_that_crashes_is_told_and_its_return_too() -> None:
    demo = scaled(2)
    for pod in demo.workers():
        demo.world.unready(pod)
    tells(
        demo,
        {
            "nobody answers": "A* 0/2 | NotReady Starting",
            "one is back": "A* 2/2 | Ready AllReplicasReady",
        },
    )
    assert [event.reason for event in demo.told] == ["AllReplicasReady"]


def test_all_that_crash_for_good_are_a_standstill() -> None:
    demo = scaled(2)
    demo.world.faults["models/a:1"] = "crash"
    for pod in demo.workers():
        demo.world.unready(pod)
    demo.wait(700)
    assert demo.steps[-1] == "A* 0/2 | NotReady ReplicaCrashed | Stalled ReplicaCrashed"


def test_a_time_zone_that_the_api_server_knows_and_the_operator_does_not_is_told() -> None:
    entry = {"start": "0 8 * * *", "end": "0 18 * * *", "timeZone": "Moon/Crater", "minReplicas": 2}
    demo = scaled(2)
    demo.change(autoscaling={"maxReplicas": 8, "schedule": [entry]})
    tells(demo, {"it serves on": "A* 2/2 | Ready AllReplicasReady | Invalid"})
    valid = demo.resource["status"]["conditions"][1]
    assert (valid["type"], valid["reason"]) == ("Valid", "ScheduleNotFollowed")
    assert valid["message"] == (
        "spec.autoscaling.schedule[0].start: Moon/Crater is no time zone that this operator knows; its minimum does "
        "not hold until it is changed"
    )


@pytest.mark.parametrize("stops", [0, 30])
def test_nothing_is_written_at_rest(stops: int) -> None:
    demo = scaled(3)
    before = demo.writes
    for _ in range(stops):
        demo.start_again()
        demo.wait(20)
    demo.wait(1000)
    assert demo.writes == before
