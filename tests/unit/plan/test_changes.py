"""A change that needs new replicas: the new unit beside the old one, the traffic over, the old one away."""

from __future__ import annotations

from dataclasses import replace

import pytest

from aixcoder_operator.api.objects import Object, name
from tests.unit.plan.simulator import PLATFORM, Simulator
from tests.unit.plan.story import follows, ready, tells

A_TO_B = {
    "the new one comes up beside the old": "A* 1/1, B 0/1 serve 0 | Ready RollingOut | Reconciling",
    "Serve on its head is told": "A* 1/1, B 0/1 | Ready RollingOut | Reconciling",
    "all of it is ready: the traffic switches, the old one is held": (
        "A 1/1, B* 1/1 | Ready TrafficSwitching | Reconciling"
    ),
    "every gateway confirmed: the old one drains": "A 1/0 serve 1, B* 1/1 | Ready AllReplicasReady",
    "its head goes last": "A 0/0 serve 1, B* 1/1 | Ready AllReplicasReady",
    "the old one is gone": "B* 1/1 | Ready AllReplicasReady",
}


@pytest.mark.parametrize(
    "change",
    [
        {"model": "b"},
        {"model": "b", "engine": {"device": "cuda", "dtype": "float16"}},
        {"model": "b", "resources": {"gpu": {}, "memory": "1Gi"}},
    ],
    ids=["model", "engine", "resources"],
)
def test_a_change_surges(change: Object) -> None:
    demo = ready()
    demo.change(**change)
    tells(demo, A_TO_B)
    assert demo.resource["status"]["traffic"]["version"] == 2


@pytest.mark.parametrize(
    "change",
    [
        {"completion": {"maxTokens": 7}},
        {"rollout": {"progressDeadlineSeconds": 5}},
        {"engine": {"device": "cuda", "dtype": None}},
        {"worker": {"labels": {}}},
    ],
    ids=["completion", "rollout", "an engine field that says nothing", "an empty map"],
)
def test_what_needs_no_replicas_makes_none(change: Object) -> None:
    demo = ready()
    before = {name(pod) for pod in demo.world.of_kind("Pod")}
    demo.change(**change)
    tells(demo, {})
    assert {name(pod) for pod in demo.world.of_kind("Pod")} == before
    assert len(demo.world.of_kind("ControllerRevision")) == 1


def test_two_replicas_switch_together() -> None:
    demo = ready(replicas=2)
    demo.world.gpus = 3
    demo.change(model="b")
    follows(
        demo.wait(30),
        {
            "one GPU is free for it": "A* 2/2, B 0/2 serve 0 | Ready RollingOut | Reconciling",
            "Serve is told": "A* 2/2, B 0/2 | Ready RollingOut | Reconciling",
            "one is ready, the old one serves on": "A* 2/2, B 1/2 | Ready RollingOut | Reconciling",
        },
    )
    demo.world.gpus = 4
    follows(
        demo.run()[:2],
        {
            "both are ready": "A 2/2, B* 2/2 | Ready TrafficSwitching | Reconciling",
            "the old one drains": "A 2/0 serve 2, B* 2/2 | Ready AllReplicasReady",
        },
    )


def test_an_edit_in_the_middle_goes_on_to_the_last_wish() -> None:
    demo = ready()
    demo.change(model="b")
    demo.wait(4)
    demo.change(model="c")
    story = list(A_TO_B.values())
    follows(
        demo.run(),
        {
            "B never answered: it drains at once": (
                "A* 1/1, B 0/0 serve 1, C 0/1 serve 0 | Ready RollingOut | Reconciling"
            ),
            **{f"B is gone, then as ever {index}": line.replace("B", "C") for index, line in enumerate(story[1:])},
        },
    )


def test_a_revert_in_the_middle_never_touches_the_old_one() -> None:
    demo = ready(replicas=2)
    before = {name(pod): pod["metadata"]["uid"] for pod in demo.world.of_kind("Pod")}
    demo.change(model="b")
    demo.wait(4)
    demo.change(model="a")
    tells(
        demo,
        {
            "B drains": "A* 2/2, B 0/0 serve 2 | Ready AllReplicasReady",
            "B is gone": "A* 2/2 | Ready AllReplicasReady",
        },
    )
    assert {name(pod): pod["metadata"]["uid"] for pod in demo.world.of_kind("Pod")} == before
    assert demo.resource["status"]["traffic"]["version"] == 1


def test_a_revert_after_the_switch_goes_back_to_the_one_that_is_held() -> None:
    demo = ready()
    old = demo.workers()[0]
    demo.world.busy[name(old)] = 1
    demo.change(model="b")
    demo.wait(20)
    demo.change(model="a")
    tells(
        demo,
        {
            "A still is whole": "A* 1/1, B 1/1 | Ready TrafficSwitching | Reconciling",
            "B drains": "A* 1/1, B 1/0 serve 1 | Ready AllReplicasReady",
            "its head goes last": "A* 1/1, B 0/0 serve 1 | Ready AllReplicasReady",
            "B is gone": "A* 1/1 | Ready AllReplicasReady",
        },
    )
    assert [name(pod) for pod in demo.workers()] == [name(old)]


def test_requests_that_run_in_the_old_one_are_waited_for() -> None:
    demo = ready()
    old = name(demo.workers()[0])
    demo.world.busy[old] = 1
    demo.change(model="b")
    demo.wait(40)
    assert demo.steps[-1] == "A 1/1, B* 1/1 | Ready AllReplicasReady"
    demo.world.busy.clear()
    demo.run()
    assert demo.steps[-1] == "B* 1/1 | Ready AllReplicasReady"


def test_requests_that_run_for_longer_than_the_grace_are_left_to_the_pods_own() -> None:
    demo = ready()
    demo.world.busy[name(demo.workers()[0])] = 1
    demo.change(model="b")
    demo.wait(60)
    assert demo.steps[-1] == "A 1/1, B* 1/1 | Ready AllReplicasReady"
    demo.wait(30)
    assert demo.steps[-1] == "A 0/0 serve 1, B* 1/1 | Ready AllReplicasReady"


def test_a_restart_makes_a_revision_of_the_same_spec() -> None:
    demo = ready()
    demo.restart("x")
    tells(demo, {named: line.replace("B", "A+x") for named, line in A_TO_B.items()})


def test_another_restart_makes_another() -> None:
    demo = ready()
    for value in ("x", "y"):
        demo.restart(value)
        demo.run()
        assert demo.steps[-1] == f"A+{value}* 1/1 | Ready AllReplicasReady"


def test_taking_the_restart_away_changes_nothing() -> None:
    demo = ready()
    demo.restart("x")
    demo.run()
    demo.restart(None)
    tells(demo, {})
    demo.restart("")
    tells(demo, {})


def test_taking_the_restart_away_in_the_middle_changes_nothing() -> None:
    demo = ready()
    demo.restart("x")
    demo.wait(4)
    demo.restart(None)
    demo.run()
    assert demo.steps[-1] == "A+x* 1/1 | Ready AllReplicasReady"


def test_going_back_takes_the_stored_revision_with_a_higher_number() -> None:
    demo = ready()
    first = demo.world.of_kind("ControllerRevision")[0]
    demo.change(model="b")
    demo.run()
    demo.change(model="a")
    demo.platform = replace(PLATFORM, serving_image="aixcoder/serving:2")
    demo.run()
    revisions = {name(revision): revision for revision in demo.world.of_kind("ControllerRevision")}
    assert len(revisions) == 2
    assert revisions[name(first)]["revision"] == 3
    assert revisions[name(first)]["data"] == first["data"]
    assert demo.serving() == name(first)


def test_history_keeps_what_is_used_and_as_many_others_as_its_limit() -> None:
    demo = ready(rollout={"revisionHistoryLimit": 2})
    for model in "bcde":
        demo.change(model=model)
        demo.run()
    assert sorted(demo.alias(name(found)) for found in demo.world.of_kind("ControllerRevision")) == ["C", "D", "E"]


def test_no_history_still_keeps_both_sides_of_a_change() -> None:
    demo = ready(rollout={"revisionHistoryLimit": 0})
    demo.change(model="b")
    demo.wait(4)
    assert sorted(demo.alias(name(found)) for found in demo.world.of_kind("ControllerRevision")) == ["A", "B"]
    demo.run()
    assert [demo.alias(name(found)) for found in demo.world.of_kind("ControllerRevision")] == ["B"]


def test_scaled_in_the_middle_of_a_change() -> None:
    demo = ready()
    demo.change(model="b")
    demo.wait(3)
    demo.change(replicas=3)
    tells(
        demo,
        {
            "only the new one grows": "A* 1/1, B 0/3 | Ready RollingOut | Reconciling",
            "one of three is not enough": "A* 1/1, B 1/3 | Ready RollingOut | Reconciling",
            "all three are": "A 1/1, B* 3/3 | Ready TrafficSwitching | Reconciling",
            "the old one drains": "A 1/0 serve 1, B* 3/3 | Ready AllReplicasReady",
            "its head goes last": "A 0/0 serve 1, B* 3/3 | Ready AllReplicasReady",
            "it is gone": "B* 3/3 | Ready AllReplicasReady",
        },
    )


def test_changed_and_scaled_to_0_at_once() -> None:
    demo = ready()
    demo.change(model="b", replicas=0)
    demo.run()
    assert demo.steps[-1] == "B* 0/0 | Ready ScaledToZero"
    demo.change(replicas=1)
    demo.run()
    assert demo.steps[-1] == "B* 1/1 | Ready AllReplicasReady"


def test_suspended_in_the_middle_of_a_change() -> None:
    demo = ready()
    demo.change(model="b")
    demo.wait(3)
    demo.change(suspend=True)
    demo.run()
    assert demo.steps[-1] == "nothing | Ready Suspended"
    demo.change(suspend=None)
    demo.run()
    assert demo.steps[-1] == "B* 1/1 | Ready AllReplicasReady"


def test_another_version_of_the_operator_changes_nothing_and_says_that_an_image_waits() -> None:
    demo = ready(replicas=2)
    before = {key: obj for key, obj in demo.world.objects.items() if key[0] != "Secret"}
    stored = {key: obj["metadata"]["uid"] for key, obj in before.items()}
    templates = {key: obj["spec"]["template"] for key, obj in before.items() if key[0] == "ReplicaSet"}
    demo.platform = replace(PLATFORM, serving_image="aixcoder/serving:2", env=({"name": "NEW", "value": "1"},))
    demo.world.changed = True
    tells(demo, {})
    assert demo.condition("Ready") == (
        "AllReplicasReady: 2 of 2 ready; a newer serving image is taken with the next change or restart"
    )
    assert {key: obj["metadata"]["uid"] for key, obj in demo.world.objects.items() if key[0] != "Secret"} == stored
    assert {
        key: obj["spec"]["template"] for key, obj in demo.world.objects.items() if key[0] == "ReplicaSet"
    } == templates
    demo.restart("x")
    demo.run()
    assert demo.workers()[0]["spec"]["containers"][0]["image"] == "aixcoder/serving:2"
    demo.platform = PLATFORM
    demo.world.changed = True
    tells(demo, {})


def test_a_gateway_that_does_not_answer_holds_the_old_one() -> None:
    demo = ready()
    demo.world.gateways[1].reachable = False
    demo.change(model="b")
    follows(demo.wait(300), dict(list(A_TO_B.items())[:3]))
    demo.world.gateways[1].reachable = True
    tells(demo, dict(list(A_TO_B.items())[3:]))


def test_a_gateway_that_lags_holds_the_old_one() -> None:
    demo = ready()
    demo.world.gateways[1].lag = 25
    demo.change(model="b")
    tells(demo, A_TO_B)


def test_without_any_gateway_nobody_is_waited_for() -> None:
    demo = Simulator()
    demo.world.gateways.clear()
    demo.create()
    demo.run()
    demo.change(model="b")
    tells(demo, A_TO_B)


def test_no_gateway_knows_the_first_traffic_yet() -> None:
    demo = Simulator()
    demo.world.gateways[0].lag = 20
    demo.create()
    follows(
        demo.run(12)[-1:],
        {"ready, and not routable": "A* 1/1 | NotReady GatewayNotRouting | Reconciling"},
    )
    tells(demo, {"all route to it": "A* 1/1 | Ready AllReplicasReady"})
