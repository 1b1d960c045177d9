"""What people and backups take away: status, children, revisions."""

from __future__ import annotations

import pytest

from aixcoder_operator.api.objects import Object, name
from aixcoder_operator.plan import names
from tests.unit.plan import invariants
from tests.unit.plan.simulator import Simulator
from tests.unit.plan.story import ready, tells


def test_status_lost_at_rest() -> None:
    demo = ready(replicas=2)
    before = {name(pod) for pod in demo.world.of_kind("Pod")}
    demo.lose_status()
    demo.run()
    assert demo.steps[-1] == "A* 2/2 | Ready AllReplicasReady"
    assert {name(pod) for pod in demo.world.of_kind("Pod")} == before
    invariants.check_steady(demo)


def test_status_lost_in_the_middle_of_a_change_keeps_what_serves() -> None:
    demo = ready()
    old = name(demo.workers()[0])
    demo.change(model="b")
    demo.wait(3)
    demo.lose_status()
    demo.look()
    assert [name(pod) for pod in demo.workers()] == [old]
    demo.run()
    assert demo.steps[-1] == "B* 1/1 | Ready AllReplicasReady"
    assert not any(step.startswith("B* 0/1") for step in demo.steps)


def test_status_lost_while_the_old_one_drains() -> None:
    demo = ready()
    demo.world.busy[name(demo.workers()[0])] = 1
    demo.change(model="b")
    demo.wait(20)
    demo.lose_status()
    demo.world.busy.clear()
    demo.run()
    assert demo.steps[-1] == "B* 1/1 | Ready AllReplicasReady"


def test_status_lost_after_a_failure_tries_again() -> None:
    demo = ready()
    demo.world.faults["models/b:1"] = "crash"
    demo.change(model="b")
    demo.run()
    demo.lose_status()
    demo.run()
    assert demo.steps[-1] == "A* 1/1 | Ready AllReplicasReady | Stalled ReplicaCrashed"


def test_a_ready_unit_is_protected_before_status_says_so() -> None:
    demo = Simulator()
    demo.create()
    while not demo.world.of_kind("ReplicaSet") or not all(
        any(c["type"] == "Ready" and c["status"] == "True" for c in pod["status"]["conditions"])
        for pod in demo.world.of_kind("Pod")
    ):
        demo.wait(1)
    demo.change(model="b")
    demo.run()
    assert not any(step.startswith(("A 1/0", "B* 0/1")) for step in demo.steps[:4])
    assert demo.steps[-1] == "B* 1/1 | Ready AllReplicasReady"


@pytest.mark.parametrize("kind", ["Service", "NetworkPolicy", "PodDisruptionBudget", "ControllerRevision"])
def test_a_child_that_somebody_deletes_is_made_again(kind: str) -> None:
    demo = ready()
    before = {name(found) for found in demo.world.of_kind(kind)}
    pods = {name(pod) for pod in demo.world.of_kind("Pod")}
    for called in before:
        demo.world.delete(kind, called)
    demo.run()
    invariants.check_steady(demo)
    assert {name(found) for found in demo.world.of_kind(kind)} == before
    assert {name(pod) for pod in demo.world.of_kind("Pod")} == pods


def test_a_replica_set_that_somebody_deletes_is_made_again() -> None:
    demo = ready()
    demo.world.delete("ReplicaSet", demo.serving())
    demo.run()
    assert demo.steps[-1] == "A* 1/1 | Ready AllReplicasReady"


def test_the_old_ones_controller_revision_deleted_in_the_middle_of_a_change() -> None:
    demo = ready()
    old = demo.serving()
    demo.change(model="b")
    demo.wait(3)
    demo.world.delete("ControllerRevision", old)
    demo.run()
    assert demo.steps[-1] == "B* 1/1 | Ready AllReplicasReady"
    invariants.check_steady(demo)


def test_a_child_that_was_applied_by_another_version_is_applied_again() -> None:
    demo = ready()
    service = demo.world.objects["Service", demo.serving()]
    service["metadata"]["annotations"]["serving.aixcoder.io/applied"] = "another digest"
    demo.world.changed = True
    tells(demo, {})


@pytest.mark.parametrize("garbage_lag", [0, 1, 5, 40])
@pytest.mark.parametrize("head", [{}, {"storageClassName": "fast"}], ids=["bare head", "head with a claim"])
def test_deleted_and_created_again_under_one_name(garbage_lag: int, head: Object) -> None:
    demo = ready(head=head)
    before = {pod["metadata"]["uid"] for pod in demo.world.of_kind("Pod")}
    demo.recreate(garbage_lag, head=head)
    demo.look()
    assert demo.steps[-1].endswith("NotReady Starting | Reconciling"), "what the earlier one left does not count"
    demo.run()
    assert demo.steps[-1].endswith("* 1/1 | Ready AllReplicasReady")
    assert before.isdisjoint({pod["metadata"]["uid"] for pod in demo.world.of_kind("Pod")})
    invariants.check_steady(demo)


def test_created_again_while_workers_that_lost_their_head_drain() -> None:
    """A head of the new deployment at the old address would end them."""
    demo = ready()
    demo.lose_head()
    for _ in range(4):
        demo.world.tick(1)
    assert not demo.world.pods(demo.serving(), names.HEAD)
    demo.recreate(5)
    demo.run()
    assert demo.steps[-1].endswith("A-1* 1/1 | Ready AllReplicasReady")
    invariants.check_steady(demo)
