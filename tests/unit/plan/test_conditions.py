"""What conditions tell beyond what the stories show: sentences, times, generations, reasons, and Kubernetes events."""

from __future__ import annotations

from datetime import datetime

import pytest

from aixcoder_operator.api.deployment import read
from aixcoder_operator.plan.events import Event
from tests.unit.plan.simulator import Simulator
from tests.unit.plan.story import ready


def told(demo: Simulator, type_: str) -> tuple[str, str, str]:
    """Status, reason and message of one condition; empty where it is not there."""
    found = next((entry for entry in demo.resource["status"]["conditions"] if entry["type"] == type_), None)
    return (found["status"], found["reason"], found["message"]) if found else ("", "", "")


def at(demo: Simulator, type_: str) -> datetime:
    return datetime.fromisoformat(
        next(entry["lastTransitionTime"] for entry in demo.resource["status"]["conditions"] if entry["type"] == type_)
    )


def test_the_first_look_says_that_it_is_worked_on() -> None:
    demo = Simulator()
    demo.create()
    assert demo.resource["status"]["observedGeneration"] == -1
    demo.look()
    assert told(demo, "Ready") == ("False", "Starting", "0 of 1 ready: waiting for the Ray head's pod")
    assert told(demo, "Reconciling") == ("True", "Starting", "waiting for the Ray head's pod")
    assert told(demo, "Valid") == ("True", "Valid", "what the spec refers to is there")
    assert told(demo, "Stalled") == ("", "", "")
    assert demo.resource["status"]["observedGeneration"] == 1


def test_what_others_read_in_status() -> None:
    demo = ready(replicas=2)
    status = demo.resource["status"]
    assert (status["replicas"], status["readyReplicas"]) == (2, 2)
    assert status["selector"] == "serving.aixcoder.io/deployment=demo,app.kubernetes.io/component=worker"
    assert status["revisions"] == [{"name": demo.serving(), "replicas": 2, "ready": 2}]
    assert status["traffic"] == {"version": 1, "weights": {demo.serving(): 100}}
    assert status["endpoint"] == "http://aixcoder-gateway.aixcoder-system.svc.cluster.local/v1"
    assert status["rollout"]["stable"] == status["rollout"]["target"] == demo.serving()
    assert status["rollout"]["phase"] == "Complete"
    assert "failed" not in status["rollout"]


@pytest.mark.parametrize(
    ("change", "reason", "message"),
    [
        ({"replicas": 0}, "ScaledToZero", "no replica is wished for: set spec.replicas to bring some up"),
        ({"suspend": True}, "Suspended", "suspended: workers and head are removed as the spec asks"),
    ],
)
def test_nothing_as_wished_is_ready_and_is_never_reconciling(
    change: dict[str, object], reason: str, message: str
) -> None:
    demo = ready()
    demo.change(**change)
    demo.look()
    assert told(demo, "Ready") == ("True", reason, message)
    assert told(demo, "Reconciling") == ("", "", "")
    demo.run()
    assert told(demo, "Ready") == ("True", reason, message)


def test_a_change_is_told_by_both_sides() -> None:
    demo = ready()
    old = demo.serving()
    demo.change(model="b")
    demo.look()
    new = demo.resource["status"]["rollout"]["target"]
    assert told(demo, "Ready") == (
        "True",
        "RollingOut",
        f"1 of 1 ready; {new} is coming up: Starting: waiting for the Ray head's pod",
    )
    assert told(demo, "Reconciling") == ("True", "Starting", "waiting for the Ray head's pod")
    assert demo.serving() == old


def test_a_time_is_that_of_the_last_turn() -> None:
    demo = ready()
    since = at(demo, "Ready")
    demo.wait(100)
    demo.change(replicas=3)
    demo.run()
    assert at(demo, "Ready") == since
    demo.world.unready(demo.workers()[0])
    demo.world.unready(demo.workers()[1])
    demo.world.unready(demo.workers()[2])
    demo.wait(2)
    assert told(demo, "Ready")[0] == "False"
    assert at(demo, "Ready") > since


def test_every_condition_is_of_the_generation_that_was_looked_at() -> None:
    demo = ready()
    demo.change(completion={"maxTokens": 3})
    demo.look()
    assert {entry["observedGeneration"] for entry in demo.resource["status"]["conditions"]} == {2}


def test_a_part_of_the_replicas_is_counted_with_the_reason_for_the_rest() -> None:
    demo = ready()
    demo.world.gpus = 1
    demo.change(replicas=2)
    demo.wait(5)
    assert told(demo, "Ready")[:2] == ("True", "InsufficientGPU")
    assert told(demo, "Ready")[2].startswith("1 of 2 ready: InsufficientGPU: 1 of 2 replicas wait for a node with 1 ")


def events(demo: Simulator, seconds: int = 3000) -> list[Event]:
    """What is recorded until nothing is in progress."""
    before = len(demo.told)
    demo.run(seconds)
    return demo.told[before:]


def test_events_of_a_creation() -> None:
    demo = Simulator()
    demo.create()
    found = events(demo)
    unit = demo.serving()
    assert found == [
        Event("RolloutStarted", f"bringing up {unit}"),
        Event("TrafficSwitched", f"requests go to {unit}"),
        Event("AllReplicasReady", "1 of 1 ready"),
    ]


def test_events_of_a_failure() -> None:
    demo = ready()
    demo.world.faults["models/b:1"] = "pull"
    demo.change(model="b")
    found = events(demo)
    assert [(event.reason, event.warning) for event in found] == [
        ("RolloutStarted", False),
        ("RolloutFailed", True),
        ("AllReplicasReady", False),
    ]
    assert "its GPUs given back" in found[1].message


def test_events_of_a_suspension_bring_nothing_up() -> None:
    demo = ready()
    demo.change(suspend=True)
    assert [event.reason for event in events(demo)] == ["Suspended"]


def test_a_status_read_back_is_the_status_written() -> None:
    demo = ready(replicas=2)
    status = read(demo.resource).status
    assert status.model_dump(mode="json", by_alias=True, exclude_none=True) == demo.resource["status"]


def test_a_name_that_an_older_deployment_has_is_told_until_it_is_free() -> None:
    demo = ready(replicas=2)
    workers = [pod["metadata"]["uid"] for pod in demo.workers()]
    demo.name_taken_by = "team/older"
    demo.look()
    message = (
        "metadata.name: the model name demo belongs to team/older, which is older and gets its requests: write another "
        "spec.model.servedName here, or delete that one"
    )
    for type_ in ("Ready", "Valid"):
        assert told(demo, type_) == ("False", "NameConflict", message)
    assert told(demo, "Stalled") == ("True", "NameConflict", message)
    assert told(demo, "Reconciling") == ("", "", "")
    demo.run()
    assert demo.due is None, "nothing is asked for: the watch tells when the name is free"
    demo.name_taken_by = None
    demo.look()
    assert told(demo, "Ready")[:2] == ("True", "AllReplicasReady")
    assert told(demo, "Stalled") == ("", "", "")
    assert [pod["metadata"]["uid"] for pod in demo.workers()] == workers


def test_a_suspended_deployment_is_as_ready_as_it_is_to_be_whoever_has_its_name() -> None:
    demo = ready()
    demo.change(suspend=True)
    demo.name_taken_by = "team/older"
    demo.run()
    assert told(demo, "Ready")[:2] == ("True", "Suspended")
    assert told(demo, "Valid")[:2] == ("False", "NameConflict")
