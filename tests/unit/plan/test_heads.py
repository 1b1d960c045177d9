"""A Ray head that goes: bare, its unit gets a successor beside it; with a claim, it comes back as it was."""

from __future__ import annotations

from aixcoder_operator.api.objects import name
from aixcoder_operator.plan import names
from tests.unit.plan import invariants
from tests.unit.plan.simulator import Simulator
from tests.unit.plan.story import follows, ready, tells

CLAIM = {"storageClassName": "fast"}

SUCCESSION = {
    "the workers serve on, a new unit comes up beside them": "A*! 1/1, A-1 0/1 serve 0 | Ready RollingOut",
    "Serve on its head is told": "A*! 1/1, A-1 0/1 | Ready RollingOut",
    "it is ready: the traffic switches": "A! 1/1, A-1* 1/1 | Ready TrafficSwitching",
    "every gateway confirmed: the old workers drain": "A! 1/0, A-1* 1/1 | Ready AllReplicasReady",
    "they end": "A! 0/0, A-1* 1/1 | Ready AllReplicasReady",
    "the old unit is gone": "A-1* 1/1 | Ready AllReplicasReady",
}


def test_a_head_deleted_under_a_stable_unit() -> None:
    demo = ready()
    demo.lose_head()
    tells(demo, SUCCESSION)


def test_lost_twice() -> None:
    demo = ready()
    demo.lose_head()
    demo.wait(4)
    demo.lose_head(f"{demo.serving()}-1")
    tells(
        demo,
        {
            "the successor never answered: it drains, another one comes": (
                "A*! 1/1, A-1! 0/0, A-2 0/1 serve 0 | Ready RollingOut"
            ),
            "Serve on its head is told": "A*! 1/1, A-2 0/1 | Ready RollingOut",
            "the traffic switches": "A! 1/1, A-2* 1/1 | Ready TrafficSwitching",
            "the first one drains": "A! 1/0, A-2* 1/1 | Ready AllReplicasReady",
            "its workers end": "A! 0/0, A-2* 1/1 | Ready AllReplicasReady",
            "it is gone": "A-2* 1/1 | Ready AllReplicasReady",
        },
    )


def test_lost_again_and_again_at_rest() -> None:
    demo = ready()
    for number in (1, 2, 3):
        demo.lose_head()
        demo.run()
        assert demo.steps[-1] == f"A-{number}* 1/1 | Ready AllReplicasReady"
        invariants.check_steady(demo)


def test_lost_while_it_is_created() -> None:
    demo = Simulator()
    demo.create()
    demo.wait(3)
    demo.lose_head()
    follows(
        demo.run()[-3:],
        {
            "nothing was served: the new unit has the traffic": (
                "A! 0/0, A-1* 0/1 serve 0 | NotReady Starting | Reconciling"
            ),
            "the old one is gone, Serve is told": "A-1* 0/1 | NotReady Starting | Reconciling",
            "it answers": "A-1* 1/1 | Ready AllReplicasReady",
        },
    )
    invariants.check_steady(demo)


def test_a_head_that_failed_and_stays_is_lost_too() -> None:
    demo = ready()
    head = demo.world.head(demo.serving())
    assert head is not None
    head["status"]["phase"] = "Failed"
    demo.world.changed = True
    demo.run()
    assert demo.steps[-1] == "A-1* 1/1 | Ready AllReplicasReady"
    invariants.check_steady(demo)


def test_a_head_that_failed_before_any_worker_was_made() -> None:
    demo = Simulator()
    demo.create()
    demo.world.changed = False
    demo.look()
    demo.world.delete("ReplicaSet", demo.serving())
    head = demo.world.head(demo.serving())
    assert head is not None
    head["status"]["phase"] = "Failed"
    demo.run()
    assert demo.steps[-1] == "A-1* 1/1 | Ready AllReplicasReady"


def test_without_gpus_for_two_the_old_workers_serve_on() -> None:
    demo = ready(replicas=2)
    demo.world.gpus = 2
    demo.lose_head()
    demo.wait(2000)
    assert demo.steps[-1] == "A*! 2/2, A-1 0/2 | Ready RollingOut | Stalled InsufficientGPU"


def test_workers_that_are_lost_with_their_head_do_not_keep_the_gpus() -> None:
    demo = ready()
    demo.world.gpus = 1
    demo.lose_head()
    demo.wait(20)
    demo.world.delete("Pod", name(demo.workers()[0]))
    demo.run()
    assert demo.steps[-1] == "A-1* 1/1 | Ready AllReplicasReady"


def test_head_and_worker_lost_at_once() -> None:
    demo = ready()
    demo.world.gpus = 1
    worker = demo.workers()[0]
    demo.lose_head()
    demo.world.delete("Pod", name(worker))
    demo.run()
    assert demo.steps[-1] == "A-1* 1/1 | Ready AllReplicasReady"
    invariants.check_steady(demo)


def test_a_change_while_the_head_is_lost() -> None:
    demo = ready()
    demo.lose_head()
    demo.wait(3)
    demo.change(model="b")
    demo.run()
    assert demo.steps[-1] == "B* 1/1 | Ready AllReplicasReady"
    invariants.check_steady(demo)


def test_the_old_ones_head_lost_in_the_middle_of_a_change() -> None:
    demo = ready()
    demo.change(model="b")
    demo.wait(3)
    demo.lose_head()
    follows(
        demo.run()[:1],
        {"nothing but the change goes on": "A*! 1/1, B 0/1 | Ready RollingOut | Reconciling"},
    )
    assert demo.steps[-1] == "B* 1/1 | Ready AllReplicasReady"


def test_lost_at_zero_replicas() -> None:
    demo = ready(replicas=0)
    demo.lose_head()
    tells(demo, {"no worker could miss it: at once another head": "A-1* 0/0 | Ready ScaledToZero"})


def test_a_head_with_a_claim_comes_back_as_it_was() -> None:
    demo = ready(head=CLAIM)
    before = [pod["metadata"]["uid"] for pod in demo.workers()]
    demo.lose_head()
    tells(
        demo,
        {
            "its StatefulSet makes it again": "A*! 1/1 | Ready AllReplicasReady",
            "with its store": "A* 1/1 | Ready AllReplicasReady",
        },
    )
    assert [pod["metadata"]["uid"] for pod in demo.workers()] == before


def test_a_change_with_heads_that_have_claims() -> None:
    demo = ready(head=CLAIM)
    demo.change(model="b")
    demo.run()
    assert demo.steps[-1] == "B* 1/1 | Ready AllReplicasReady"
    assert [name(found) for found in demo.world.of_kind("StatefulSet")] == [names.head_name(demo.serving())]


def test_a_head_whose_statefulset_is_deleted_is_lost_with_its_store() -> None:
    demo = ready(head=CLAIM)
    demo.world.delete("StatefulSet", names.head_name(demo.serving()))
    demo.run()
    assert demo.steps[-1] == "A-1* 1/1 | Ready AllReplicasReady"
    invariants.check_steady(demo)
