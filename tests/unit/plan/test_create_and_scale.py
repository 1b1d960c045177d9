"""From nothing to replicas, up, down, away and back."""

from __future__ import annotations

from aixcoder_operator.api.objects import name
from tests.unit.plan.simulator import Simulator
from tests.unit.plan.story import follows, ready, tells


def test_create_1() -> None:
    demo = Simulator()
    demo.create()
    tells(
        demo,
        {
            "head and worker are made, the traffic is its own from the start": (
                "A* 0/1 serve 0 | NotReady Starting | Reconciling"
            ),
            "the head is ready: Serve is told to run one": "A* 0/1 | NotReady Starting | Reconciling",
            "it is": "A* 1/1 | Ready AllReplicasReady",
        },
    )
    assert demo.resource["status"]["traffic"]["version"] == 1
    assert demo.condition("Ready") == "AllReplicasReady: 1 of 1 ready"


def test_create_2_is_ready_with_the_first_and_reconciling_until_the_second() -> None:
    demo = Simulator()
    demo.world.gpus = 1
    demo.create(replicas=2)
    follows(
        demo.wait(60),
        {
            "both workers are made": "A* 0/2 serve 0 | NotReady Starting | Reconciling",
            "one has no node": "A* 0/2 serve 0 | NotReady InsufficientGPU | Reconciling",
            "Serve is told to run two": "A* 0/2 | NotReady InsufficientGPU | Reconciling",
            "one answers": "A* 1/2 | Ready InsufficientGPU | Reconciling",
        },
    )
    assert demo.condition("Ready").startswith("InsufficientGPU: 1 of 2 ready: InsufficientGPU: 1 of 2 replicas wait")
    demo.world.gpus = 2
    tells(
        demo,
        {
            "the other got its node": "A* 1/2 | Ready Starting | Reconciling",
            "both answer": "A* 2/2 | Ready AllReplicasReady",
        },
    )


def test_create_0_makes_a_head_and_nothing_more() -> None:
    demo = Simulator()
    demo.create(replicas=0)
    tells(demo, {"ready as it is": "A* 0/0 | Ready ScaledToZero"})
    assert demo.world.head(demo.serving()) is not None


def test_scale_1_to_3() -> None:
    demo = ready()
    demo.change(replicas=3)
    tells(
        demo,
        {
            "the ReplicaSet and Serve get their number": "A* 1/3 | Ready Starting | Reconciling",
            "all answer": "A* 3/3 | Ready AllReplicasReady",
        },
    )
    assert demo.resource["status"]["traffic"]["version"] == 1


def test_scale_3_to_1_marks_then_lowers_then_tells_serve() -> None:
    demo = ready(replicas=3)
    before = demo.workers()
    demo.world.busy = {name(before[0]): 5, name(before[1]): 9, name(before[2]): 1}
    demo.change(replicas=1)
    follows(
        demo.run(30),
        {
            "the two with the least work are marked": "A* 3/3 marked 2 | Ready AllReplicasReady",
            "2 s later the ReplicaSet is lowered": "A* 3/1 marked 2 serve 3 | Ready AllReplicasReady",
            "they terminate, Serve is told": "A* 1/1 | Ready AllReplicasReady",
        },
    )
    assert [name(pod) for pod in demo.workers()] == [name(before[1])]
    demo.world.busy.clear()
    tells(demo, {})


def test_a_scale_down_taken_back_takes_the_marks_back() -> None:
    demo = ready(replicas=3)
    demo.change(replicas=1)
    demo.run(1)
    demo.change(replicas=3)
    tells(demo, {"nobody is marked": "A* 3/3 | Ready AllReplicasReady"})


def test_another_scale_down_while_the_first_is_on_its_way() -> None:
    demo = ready(replicas=4)
    demo.change(replicas=3)
    demo.run(1)
    demo.change(replicas=1)
    tells(
        demo,
        {
            "two more are marked": "A* 4/4 marked 3 | Ready AllReplicasReady",
            "the ReplicaSet is lowered once": "A* 4/1 marked 3 serve 4 | Ready AllReplicasReady",
            "one is left": "A* 1/1 | Ready AllReplicasReady",
        },
    )


def test_replicas_0_and_back_keeps_the_head() -> None:
    demo = ready(replicas=2)
    head = demo.world.head(demo.serving())
    demo.change(replicas=0)
    tells(
        demo,
        {
            "the workers go": "A* 2/0 serve 2 | Ready ScaledToZero",
            "Serve is told": "A* 0/0 | Ready ScaledToZero",
        },
    )
    assert demo.world.head(demo.serving()) is head
    demo.change(replicas=1)
    tells(
        demo,
        {
            "a worker comes": "A* 0/1 | NotReady Starting | Reconciling",
            "it answers": "A* 1/1 | Ready AllReplicasReady",
        },
    )
    assert demo.world.head(demo.serving()) is head


def test_suspend_and_resume() -> None:
    demo = ready(replicas=2)
    demo.change(suspend=True)
    tells(
        demo,
        {
            "no unit has the traffic": "A 2/2 | Ready Suspended",
            "all gateways know: it drains": "A 2/0 serve 2 | Ready Suspended",
            "the head stays until the last worker is gone": "A 0/0 serve 2 | Ready Suspended",
            "nothing is left": "nothing | Ready Suspended",
        },
    )
    demo.run()
    assert not demo.world.of_kind("Pod")
    demo.change(suspend=False)
    tells(
        demo,
        {
            "the same revision is made again": "A* 0/2 serve 0 | NotReady Starting | Reconciling",
            "Serve is told": "A* 0/2 | NotReady Starting | Reconciling",
            "it answers": "A* 2/2 | Ready AllReplicasReady",
        },
    )


def test_suspended_while_it_is_created() -> None:
    demo = Simulator()
    demo.create()
    demo.wait(3)
    demo.change(suspend=True)
    tells(
        demo,
        {
            "what never answered drains at once": "A 0/0 | Ready Suspended",
            "nothing is left": "nothing | Ready Suspended",
        },
    )


def test_resumed_while_the_head_still_ends_takes_another_name() -> None:
    demo = ready()
    demo.change(suspend=True)
    while demo.world.of_kind("ReplicaSet"):
        demo.wait(1)
    demo.change(suspend=False)
    tells(
        demo,
        {
            "no head comes back at an address that just had one": (
                "A-1* 0/1 serve 0 | NotReady Starting | Reconciling"
            ),
            "Serve is told": "A-1* 0/1 | NotReady Starting | Reconciling",
            "it answers": "A-1* 1/1 | Ready AllReplicasReady",
        },
    )


def test_resumed_while_it_drains_goes_on_where_it_was() -> None:
    demo = ready()
    demo.world.busy[name(demo.workers()[0])] = 1
    demo.change(suspend=True)
    demo.wait(10)
    demo.change(suspend=False)
    tells(
        demo,
        {
            "it has the traffic again": "A* 1/1 | NotReady GatewayNotRouting | Reconciling",
            "the gateways know": "A* 1/1 | Ready AllReplicasReady",
        },
    )
