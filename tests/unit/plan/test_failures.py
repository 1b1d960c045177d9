"""Revisions that do not get ready: what is given up, what keeps trying, and how it is mended."""

from __future__ import annotations

import pytest

from aixcoder_operator.api.objects import name
from tests.unit.plan import invariants
from tests.unit.plan.simulator import Simulator
from tests.unit.plan.story import follows, ready, tells
from tests.unit.plan.world import Fault, image_of

REASONS: dict[Fault, str] = {"pull": "ImagePullFailed", "crash": "ReplicaCrashed", "stuck": "Starting"}


def failed(fault: Fault = "crash") -> Simulator:
    """A deployment whose change to model b was given up."""
    demo = ready()
    demo.world.faults["models/b:1"] = fault
    demo.change(model="b")
    demo.run()
    return demo


@pytest.mark.parametrize("fault", ["pull", "crash", "stuck"])
def test_a_revision_that_never_gets_ready_is_given_up(fault: Fault) -> None:
    demo = ready()
    demo.world.faults["models/b:1"] = fault
    demo.change(model="b")
    tells(
        demo,
        {
            "it comes up beside the old": "A* 1/1, B 0/1 serve 0 | Ready RollingOut | Reconciling",
            "Serve is told": "A* 1/1, B 0/1 | Ready RollingOut | Reconciling",
            "after 600 s its GPUs are given back": (
                f"A* 1/1, B 0/0 serve 1 | Ready AllReplicasReady | Stalled {REASONS[fault]}"
            ),
            "it is gone": f"A* 1/1 | Ready AllReplicasReady | Stalled {REASONS[fault]}",
        },
    )
    status = demo.resource["status"]
    assert (status["rollout"]["phase"], demo.alias(status["rollout"]["failed"])) == ("Failed", "B")
    assert (status["traffic"]["version"], demo.alias(demo.serving())) == (1, "A")
    assert "not ready within 600 s" in demo.condition("Stalled")
    assert "serving.aixcoder.io/restart" in demo.condition("Stalled")


def test_the_progress_deadline_is_the_specs() -> None:
    demo = ready(rollout={"progressDeadlineSeconds": 30})
    demo.world.faults["models/b:1"] = "stuck"
    started = demo.world.now
    demo.change(model="b")
    demo.run()
    assert demo.steps[-1] == "A* 1/1 | Ready AllReplicasReady | Stalled Starting"
    assert 30 <= (demo.world.now - started).total_seconds() < 60


def test_a_failed_revision_is_not_tried_again_by_itself() -> None:
    demo = failed()
    demo.world.faults.clear()
    demo.world.changed = True
    assert demo.wait(5000) == []
    demo.change(completion={"maxTokens": 7})
    tells(demo, {})


def test_a_failed_revision_is_tried_again_on_restart() -> None:
    demo = failed()
    demo.world.faults.clear()
    demo.restart("now")
    demo.run()
    assert demo.steps[-1] == "B+now* 1/1 | Ready AllReplicasReady"
    invariants.check_steady(demo)


def test_a_failed_revision_is_forgotten_with_the_spec_that_asked_for_it() -> None:
    demo = failed()
    demo.change(model="a")
    tells(demo, {"nothing is stalled": "A* 1/1 | Ready AllReplicasReady"})
    demo.world.faults.clear()
    demo.change(model="b")
    demo.run()
    assert demo.steps[-1] == "B* 1/1 | Ready AllReplicasReady"


def test_from_a_failed_revision_on_to_another() -> None:
    demo = failed()
    demo.change(model="c")
    demo.run()
    assert demo.steps[-1] == "C* 1/1 | Ready AllReplicasReady"
    assert "failed" not in demo.resource["status"]["rollout"]


def test_the_stable_one_can_be_scaled_while_the_wished_one_is_failed() -> None:
    demo = failed()
    demo.change(replicas=2)
    tells(
        demo,
        {
            "no word of reconciling: it stays stalled": "A* 1/2 | Ready Starting | Stalled ReplicaCrashed",
            "two answer": "A* 2/2 | Ready AllReplicasReady | Stalled ReplicaCrashed",
        },
    )


def test_the_stable_one_that_loses_its_head_while_the_wished_one_is_failed_comes_back_as_itself() -> None:
    demo = failed()
    demo.lose_head()
    demo.run()
    assert demo.steps[-1] == "A-1* 1/1 | Ready AllReplicasReady | Stalled ReplicaCrashed"
    assert image_of(demo.workers()[0]["spec"]) == "models/a:1"
    invariants.check_steady(demo)


def test_suspended_and_resumed_after_a_failure_tries_what_is_asked_for() -> None:
    demo = failed()
    demo.change(suspend=True)
    demo.run()
    assert demo.steps[-1] == "nothing | Ready Suspended"
    demo.world.faults.clear()
    demo.change(suspend=False)
    demo.run()
    assert demo.steps[-1] == "B* 1/1 | Ready AllReplicasReady"


def test_a_half_ready_revision_is_given_up_too() -> None:
    demo = ready(replicas=2)
    demo.world.gpus = 3
    demo.change(model="b")
    demo.wait(20)
    demo.world.faults["models/b:1"] = "stuck"
    demo.world.gpus = 4
    follows(
        demo.run(),
        {
            "the second has its node and never gets ready: both go": (
                "A* 2/2, B 1/0 serve 2 | Ready AllReplicasReady | Stalled Starting"
            ),
            "B's head goes last": "A* 2/2, B 0/0 serve 2 | Ready AllReplicasReady | Stalled Starting",
            "B is gone": "A* 2/2 | Ready AllReplicasReady | Stalled Starting",
        },
    )


@pytest.mark.parametrize("fault", ["pull", "crash", "stuck"])
def test_a_first_revision_keeps_trying_and_recovers(fault: Fault) -> None:
    demo = Simulator()
    demo.world.faults["models/a:1"] = fault
    demo.create()
    demo.wait(2000)
    assert demo.steps[-1] == f"A* 0/1 | NotReady {REASONS[fault]} | Stalled {REASONS[fault]}"
    demo.world.faults.clear()
    tells(demo, {"mended outside the spec": "A* 1/1 | Ready AllReplicasReady"})


def test_what_a_replica_said_is_told_until_it_says_something_else() -> None:
    demo = Simulator()
    demo.world.faults["models/a:1"] = "missing"
    demo.create()
    follows(
        demo.wait(2000),
        {
            "head and worker are made": "A* 0/1 serve 0 | NotReady Starting | Reconciling",
            "Serve is told": "A* 0/1 | NotReady Starting | Reconciling",
            "the replica found no weights": "A* 0/1 | NotReady ModelNotFound | Reconciling",
            "nor after 600 s": "A* 0/1 | NotReady ModelNotFound | Stalled ModelNotFound",
        },
    )
    assert demo.condition("Stalled") == "ModelNotFound: not ready within 600 s: /models: no config.json"
    demo.world.faults.clear()
    tells(demo, {"mended outside the spec": "A* 1/1 | Ready AllReplicasReady"})


def test_what_the_replicas_of_a_failed_revision_said_is_told_of_it_alone() -> None:
    demo = failed("missing")
    assert demo.steps[-1] == "A* 1/1 | Ready AllReplicasReady | Stalled ModelNotFound"
    assert demo.condition("Stalled").startswith("ModelNotFound: revision demo-")
    assert "not ready within 600 s: /models: no config.json. To try again, change" in demo.condition("Stalled")
    demo.change(replicas=2)
    assert demo.run()[0] == "A* 1/2 | Ready Starting | Stalled ModelNotFound"


def test_a_first_revision_that_never_gets_ready_makes_way_for_the_next() -> None:
    demo = Simulator()
    demo.world.faults["models/a:1"] = "crash"
    demo.world.gpus = 1
    demo.create()
    demo.wait(2000)
    demo.change(model="b")
    follows(
        demo.run()[-2:],
        {
            "B got the GPU of A, which served nothing": "B* 0/1 | NotReady Starting | Reconciling",
            "it answers": "B* 1/1 | Ready AllReplicasReady",
        },
    )


def test_too_few_gpus_for_a_first_revision() -> None:
    demo = Simulator()
    demo.world.gpus = 0
    demo.create(engine={"device": "cuda", "tensorParallelSize": 2})
    demo.wait(500)
    assert demo.steps[-1] == "A* 0/1 | NotReady InsufficientGPU | Reconciling"
    assert demo.resource["status"]["conditions"][0]["message"].startswith(
        "0 of 1 ready: 1 of 1 replicas wait for a node with 2 free nvidia.com/gpu"
    )
    demo.wait(200)
    assert demo.steps[-1] == "A* 0/1 | NotReady InsufficientGPU | Stalled InsufficientGPU"
    demo.world.gpus = 2
    demo.run()
    assert demo.steps[-1] == "A* 1/1 | Ready AllReplicasReady"


def test_too_few_gpus_for_a_change_waits_and_is_not_given_up() -> None:
    demo = ready(rollout={"schedulingDeadlineSeconds": 60, "progressDeadlineSeconds": 30})
    demo.world.gpus = 1
    demo.change(model="b")
    demo.wait(50)
    assert demo.steps[-1] == "A* 1/1, B 0/1 | Ready RollingOut | Reconciling"
    assert "demo-" in demo.condition("Ready")
    assert "InsufficientGPU: 1 of 1 replicas wait for a node with 1 free nvidia.com/gpu" in demo.condition("Ready")
    demo.wait(3000)
    assert demo.steps[-1] == "A* 1/1, B 0/1 | Ready RollingOut | Stalled InsufficientGPU"
    demo.world.gpus = 2
    demo.run()
    assert demo.steps[-1] == "B* 1/1 | Ready AllReplicasReady"


def test_time_without_a_node_does_not_count_as_time_without_progress() -> None:
    demo = ready(rollout={"schedulingDeadlineSeconds": 600, "progressDeadlineSeconds": 30})
    demo.world.gpus = 1
    demo.world.load_ticks = 20
    demo.change(model="b")
    demo.wait(300)
    demo.world.gpus = 2
    demo.run()
    assert demo.steps[-1] == "B* 1/1 | Ready AllReplicasReady"


def test_an_old_one_that_serves_nothing_does_not_keep_the_gpus_its_successor_waits_for() -> None:
    demo = ready()
    demo.world.gpus = 1
    demo.world.faults["models/a:1"] = "crash"
    demo.change(model="b")
    demo.wait(500)
    assert demo.steps[-1] == "A* 0/1, B 0/1 | NotReady ReplicaCrashed | Reconciling"
    demo.wait(300)
    demo.run()
    assert demo.steps[-1] == "B* 1/1 | Ready AllReplicasReady"


def test_a_claim_that_is_not_there() -> None:
    demo = Simulator()
    demo.create()
    demo.resource["spec"]["model"] = {"source": {"persistentVolumeClaim": {"claimName": "weights"}}}
    demo.resource["spec"]["suspend"] = True
    demo.wait(30)
    assert demo.steps[-1] == "nothing | Ready Suspended | Invalid"
    valid = demo.resource["status"]["conditions"][1]
    assert (valid["type"], valid["status"], valid["reason"]) == ("Valid", "False", "ClaimNotFound")
    assert "no claim weights in namespace team" in valid["message"]
    demo.world.put({"kind": "PersistentVolumeClaim", "metadata": {"name": "weights"}})
    tells(demo, {"it is there": "nothing | Ready Suspended"})


def test_pods_that_the_api_server_refuses_are_a_reason_and_a_deadline() -> None:
    demo = ready(rollout={"progressDeadlineSeconds": 30})
    demo.world.refuses = "exceeded quota: gpus"
    demo.change(model="b")
    demo.wait(20)
    assert "PodsRefused: the API server refuses worker pods: exceeded quota: gpus" in demo.condition("Ready")
    demo.run()
    assert demo.steps[-1] == "A* 1/1 | Ready AllReplicasReady | Stalled PodsRefused"


def test_a_crash_in_steady_state_is_no_reconciling() -> None:
    demo = ready(replicas=2)
    demo.wait(5000)
    version = demo.resource["status"]["traffic"]["version"]
    demo.world.unready(demo.workers()[0])
    tells(
        demo,
        {
            "one is away": "A* 1/2 | Ready Starting",
            "Ray brought it back": "A* 2/2 | Ready AllReplicasReady",
        },
    )
    assert demo.resource["status"]["traffic"]["version"] == version


def test_all_replicas_crash_in_steady_state() -> None:
    demo = ready()
    demo.wait(5000)
    demo.world.unready(demo.workers()[0])
    tells(
        demo,
        {
            "nobody answers": "A* 0/1 | NotReady Starting",
            "Ray brought it back": "A* 1/1 | Ready AllReplicasReady",
        },
    )


def test_a_crash_that_lasts_is_stalled_after_the_deadline_and_recovers() -> None:
    demo = ready()
    demo.wait(5000)
    demo.world.faults["models/a:1"] = "crash"
    demo.world.unready(demo.workers()[0])
    demo.wait(500)
    assert demo.steps[-1] == "A* 0/1 | NotReady ReplicaCrashed"
    demo.wait(200)
    assert demo.steps[-1] == "A* 0/1 | NotReady ReplicaCrashed | Stalled ReplicaCrashed"
    demo.world.faults.clear()
    tells(demo, {"it is back": "A* 1/1 | Ready AllReplicasReady"})


def test_a_worker_pod_that_is_deleted_is_replaced() -> None:
    demo = ready(replicas=2)
    gone = name(demo.workers()[0])
    demo.world.delete("Pod", gone)
    tells(
        demo,
        {
            "one is away": "A* 1/2 | Ready Starting",
            "another one came": "A* 2/2 | Ready AllReplicasReady",
        },
    )
    assert gone not in {name(pod) for pod in demo.workers()}
