"""Zero and back: nothing is left, the first request wakes it, and what wakes is what worked."""

from __future__ import annotations

from typing import Any

import pytest

from aixcoder_operator.api.objects import name
from aixcoder_operator.plan import names
from tests.unit.plan import invariants
from tests.unit.plan.simulator import Simulator
from tests.unit.plan.story import follows, ready, tells

BOUNDS = {"minReplicas": 0, "maxReplicas": 4}
WAKES = {
    "head and worker are made at once": "A* 0/1 serve 0 | Ready WakingUp",
    "Serve is told": "A* 0/1 | Ready WakingUp",
    "it answers": "A* 1/1 | Ready AllReplicasReady",
}


def serving(**spec: Any) -> Simulator:
    """One that has one replica and may go to zero."""
    demo = ready(autoscaling=BOUNDS, **spec)
    demo.scale(1)
    demo.run()
    demo.told.clear()
    return demo


def asleep(**spec: Any) -> Simulator:
    """One that went to zero."""
    demo = serving(**spec)
    demo.scale(0, "no request for 600 s: 0")
    demo.run()
    assert demo.steps[-1] == "nothing | Ready ScaledToZero"
    invariants.check_steady(demo)
    return demo


def test_to_zero_nothing_is_left() -> None:
    demo = serving()
    demo.scale(0, "no request for 600 s: 0")
    tells(
        demo,
        {
            "no unit has the traffic": "A 1/1 | Ready ScaledToZero",
            "all gateways know: it drains": "A 1/0 serve 1 | Ready ScaledToZero",
            "the head stays until the last worker is gone": "A 0/0 serve 1 | Ready ScaledToZero",
            "nothing is left": "nothing | Ready ScaledToZero",
        },
    )
    assert demo.world.of_kind("Pod") == demo.world.of_kind("Service") == []
    assert demo.condition("Ready") == "ScaledToZero: nobody has asked for a while: the first request wakes it"
    status = demo.resource["status"]
    assert (status["rollout"]["phase"], status["traffic"]["weights"]) == ("Complete", {})
    assert status["autoscaling"]["desired"] == 0
    assert [(event.reason, event.message) for event in demo.told] == [
        ("ScaledDown", "from 1 to 0: no request for 600 s: 0")
    ]


def test_with_storage_nothing_is_left_either() -> None:
    demo = asleep(head={"storageClassName": "fast"})
    assert demo.world.of_kind("StatefulSet") == []
    demo.scale(1)
    demo.run()
    assert demo.steps[-1] == "A* 1/1 | Ready AllReplicasReady"
    invariants.check_steady(demo)


def test_the_first_request_wakes_it() -> None:
    demo = asleep()
    demo.told.clear()
    demo.scale(1, "queued 1: 1")
    tells(demo, WAKES)
    assert [(event.reason, event.message) for event in demo.told] == [("ScaledUp", "from 0 to 1: queued 1: 1")]


def test_it_wakes_with_as_many_as_the_queue_needs() -> None:
    demo = asleep()
    demo.scale(3)
    demo.wait(2)
    assert demo.condition("Ready") == "WakingUp: 0 of 3 ready, requests are held: waiting for the Ray head to start"
    assert len(demo.workers()) == 3
    demo.run()
    assert demo.steps[-1] == "A* 3/3 | Ready AllReplicasReady"


def test_again_and_again_it_is_the_same_unit() -> None:
    demo = asleep()
    for _ in range(3):
        demo.scale(1)
        demo.run()
        assert demo.steps[-1] == "A* 1/1 | Ready AllReplicasReady"
        demo.scale(0)
        demo.run()
        assert demo.steps[-1] == "nothing | Ready ScaledToZero"
    assert len(demo.world.of_kind("ControllerRevision")) == 1


def test_woken_while_it_drains_it_goes_on_where_it_was() -> None:
    demo = serving()
    worker = name(demo.workers()[0])
    demo.world.busy[worker] = 1
    demo.scale(0)
    demo.wait(10)
    assert demo.steps[-1] == "A 1/1 | Ready ScaledToZero"
    demo.scale(1)
    demo.run()
    assert [name(pod) for pod in demo.workers()] == [worker]
    assert demo.steps[-1] == "A* 1/1 | Ready AllReplicasReady"


def test_woken_while_its_head_still_ends_it_takes_another_name() -> None:
    demo = serving()
    demo.scale(0)
    while demo.world.of_kind("ReplicaSet"):
        demo.wait(1)
    demo.scale(1)
    tells(demo, {moment: line.replace("A*", "A-1*") for moment, line in WAKES.items()})


@pytest.mark.parametrize("lag", range(1, 12))
def test_woken_at_any_moment_of_the_way_down(lag: int) -> None:
    demo = serving()
    demo.scale(0)
    demo.wait(lag)
    demo.scale(2)
    demo.run()
    assert demo.steps[-1].endswith("2/2 | Ready AllReplicasReady")
    assert not any("NotReady" in step or "Reconciling" in step for step in demo.steps[3:])
    invariants.check_steady(demo)


def test_it_wakes_while_another_process_takes_over() -> None:
    demo = asleep()
    demo.scale(2)
    demo.wait(2)
    demo.start_again()
    demo.run()
    assert demo.steps[-1] == "A* 2/2 | Ready AllReplicasReady"


def test_a_wake_that_finds_no_gpu_says_so_and_is_a_standstill_in_the_end() -> None:
    demo = asleep()
    demo.world.gpus = 0
    demo.scale(1)
    follows(
        demo.wait(700),
        {
            "head and worker are made": "A* 0/1 serve 0 | Ready WakingUp",
            "no node": "A* 0/1 serve 0 | NotReady InsufficientGPU",
            "Serve is told": "A* 0/1 | NotReady InsufficientGPU",
            "it does not come": "A* 0/1 | NotReady InsufficientGPU | Stalled InsufficientGPU",
        },
    )
    demo.world.gpus = 1
    demo.run()
    assert demo.steps[-1] == "A* 1/1 | Ready AllReplicasReady"


def test_a_wake_that_fails_says_so() -> None:
    demo = asleep()
    demo.world.faults["models/a:1"] = "pull"
    demo.scale(1)
    demo.wait(30)
    assert demo.steps[-1] == "A* 0/1 | NotReady ImagePullFailed"
    demo.wait(700)
    assert demo.steps[-1] == "A* 0/1 | NotReady ImagePullFailed | Stalled ImagePullFailed"


def test_a_replica_that_crashes_after_the_wake_is_no_wake() -> None:
    demo = asleep()
    demo.scale(1)
    demo.run()
    demo.world.unready(demo.workers()[0])
    demo.wait(2)
    assert demo.steps[-1] == "A* 0/1 | NotReady Starting"


def test_ready_after_a_wake_is_what_the_gateways_said() -> None:
    demo = asleep()
    for gateway in demo.world.gateways:
        gateway.reachable = False
    demo.scale(1)
    demo.wait(60)
    assert demo.steps[-1] == "A* 1/1 | NotReady GatewayNotRouting"
    for gateway in demo.world.gateways:
        gateway.reachable = True
    demo.run()
    assert demo.steps[-1] == "A* 1/1 | Ready AllReplicasReady"


def test_a_head_that_is_kept() -> None:
    demo = ready(autoscaling=BOUNDS | {"keepHead": True})
    head = demo.world.head(demo.serving())
    demo.scale(0)
    tells(
        demo,
        {
            "the worker goes": "A* 1/0 serve 1 | Ready ScaledToZero",
            "Serve is told": "A* 0/0 | Ready ScaledToZero",
        },
    )
    assert demo.condition("Ready") == "ScaledToZero: nobody has asked for a while: the first request wakes it"
    demo.scale(2)
    tells(demo, {"workers come": "A* 0/2 | Ready WakingUp", "they answer": "A* 2/2 | Ready AllReplicasReady"})
    assert demo.world.head(demo.serving()) is head


def test_keep_head_is_changed_at_zero() -> None:
    demo = asleep()
    demo.change(autoscaling=BOUNDS | {"keepHead": True})
    demo.run()
    assert demo.steps[-1] == "A* 0/0 | Ready ScaledToZero"
    invariants.check_steady(demo)
    demo.change(autoscaling=BOUNDS)
    demo.run()
    assert demo.steps[-1] == "nothing | Ready ScaledToZero"
    invariants.check_steady(demo)


def test_a_kept_head_that_is_lost_at_zero_is_replaced() -> None:
    demo = ready(autoscaling=BOUNDS | {"keepHead": True})
    demo.scale(0)
    demo.run()
    demo.lose_head()
    demo.run()
    assert demo.steps[-1] == "A-1* 0/0 | Ready ScaledToZero"
    invariants.check_steady(demo)


def test_a_change_at_zero_is_tried_at_once_and_then_it_sleeps_again() -> None:
    demo = asleep()
    demo.change(model="b")
    tells(
        demo,
        {
            "one replica comes up": "B* 0/1 serve 0 | NotReady Starting | Reconciling",
            "Serve is told": "B* 0/1 | NotReady Starting | Reconciling",
            "it works": "B* 1/1 | Ready AllReplicasReady",
            "it may sleep": "B 1/1 | Ready ScaledToZero",
            "it drains": "B 1/0 serve 1 | Ready ScaledToZero",
            "its head goes last": "B 0/0 serve 1 | Ready ScaledToZero",
            "nothing is left": "nothing | Ready ScaledToZero",
        },
    )
    demo.scale(1)
    demo.run()
    assert demo.steps[-1] == "B* 1/1 | Ready AllReplicasReady"


def test_a_change_at_zero_beside_a_head_that_is_kept_wakes_no_worker_of_the_old_one() -> None:
    demo = ready(autoscaling=BOUNDS | {"keepHead": True})
    demo.scale(0)
    demo.run()
    demo.change(model="b")
    follows(
        demo.run(),
        {
            "one replica comes up": "A* 0/0, B 0/1 serve 0 | NotReady Starting | Reconciling",
            "Serve is told": "A* 0/0, B 0/1 | NotReady Starting | Reconciling",
            "it works": "B* 1/1 | NotReady GatewayNotRouting | Reconciling",
            "it may sleep": "B* 1/0 serve 1 | Ready ScaledToZero",
            "its head stays": "B* 0/0 | Ready ScaledToZero",
        },
    )


def test_a_change_at_zero_that_does_not_work_is_given_up_and_what_worked_wakes() -> None:
    demo = asleep(rollout={"progressDeadlineSeconds": 60, "revisionHistoryLimit": 0})
    demo.world.faults["models/b:1"] = "crash"
    demo.change(model="b")
    demo.run()
    assert demo.steps[-1] == "nothing | Ready ScaledToZero | Stalled ReplicaCrashed"
    invariants.check_steady(demo)
    demo.scale(1)
    demo.run()
    assert demo.steps[-1] == "A* 1/1 | Ready AllReplicasReady | Stalled ReplicaCrashed"
    demo.scale(0)
    demo.run()
    assert demo.steps[-1] == "nothing | Ready ScaledToZero | Stalled ReplicaCrashed"
    demo.world.faults.clear()
    demo.restart("now")
    demo.run()
    demo.scale(1)
    demo.run()
    assert demo.steps[-1] == "B+now* 1/1 | Ready AllReplicasReady"


def test_a_rollout_is_not_left_half_done_for_a_quiet_night() -> None:
    demo = serving()
    demo.world.load_ticks = 20
    demo.change(model="b")
    demo.wait(3)
    demo.scale(0)
    demo.wait(10)
    assert demo.steps[-1] == "A* 1/1, B 0/1 | Ready RollingOut | Reconciling"
    demo.run()
    assert demo.steps[-1] == "nothing | Ready ScaledToZero"
    demo.scale(1)
    demo.run()
    assert demo.steps[-1] == "B* 1/1 | Ready AllReplicasReady"


def test_a_first_revision_that_never_got_ready_does_not_sleep() -> None:
    demo = Simulator()
    demo.world.faults["models/a:1"] = "crash"
    demo.create(autoscaling=BOUNDS)
    demo.scale(0)
    demo.wait(2000)
    assert demo.steps[-1] == "A* 0/1 | NotReady ReplicaCrashed | Stalled ReplicaCrashed"


def test_a_lost_status_at_zero_brings_one_up_and_it_sleeps_again() -> None:
    demo = asleep()
    demo.lose_status()
    demo.run()
    assert demo.steps[-1] == "nothing | Ready ScaledToZero"
    invariants.check_steady(demo)


def test_suspended_at_zero() -> None:
    demo = asleep()
    demo.change(suspend=True)
    tells(demo, {"there is nothing to do": "nothing | Ready Suspended"})
    demo.decided = None
    demo.change(suspend=False)
    demo.run()
    assert demo.steps[-1] == "nothing | Ready ScaledToZero"


def test_a_minimum_that_is_raised_wakes_it() -> None:
    demo = asleep()
    demo.change(autoscaling={"minReplicas": 2, "maxReplicas": 4})
    demo.run()
    assert demo.steps[-1] == "A* 2/2 | Ready AllReplicasReady"


def test_at_zero_no_worker_keeps_a_gpu() -> None:
    demo = asleep()
    assert not [pod for pod in demo.world.of_kind("Pod") if names.COMPONENT_LABEL in pod["metadata"]["labels"]]
    assert (demo.resource["status"]["replicas"], demo.resource["status"].get("revisions")) == (0, [])
