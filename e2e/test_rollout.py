"""A change that needs new replicas comes in beside the old ones: nothing fails, and a bad one changes nothing."""

from __future__ import annotations

from e2e.demo.readiness import condition
from e2e.load import Load
from e2e.service import Service, record


def test_an_engine_change_with_load(service: Service) -> None:
    deployment = service.deployment
    before, version = deployment.serving(), deployment.status()["traffic"]["version"]
    with Load(service.url) as load:
        load.wait_for(10)
        deployment.patch({"spec": {"engine": {"maxConcurrentSequences": 6}}})
        deployment.wait("was worked on", lambda found: condition(found, "Reconciling").get("status") == "True")
        seconds = deployment.wait_ready()
        load.wait_for(20)
    record("engine_change", load.tally, seconds=seconds)
    assert (load.tally.failed, load.tally.cut) == (0, 0), load.tally.reasons
    assert deployment.serving() != before
    assert deployment.status()["traffic"]["version"] == version + 1
    assert {pod["metadata"]["labels"]["serving.aixcoder.io/unit"] for pod in deployment.pods()} == {
        deployment.serving()
    }


def test_a_change_that_never_gets_ready_leaves_the_old_one_serving(service: Service) -> None:
    deployment = service.deployment
    before = deployment.serving()
    uids = {pod["metadata"]["uid"] for pod in deployment.pods()}
    good = deployment.get()["spec"]["model"]["source"]["image"]["reference"]
    with Load(service.url, clients=2) as load:
        deployment.patch(
            {
                "spec": {
                    "model": {"source": {"image": {"reference": "aixcoder/no-such-model:1"}}},
                    "rollout": {"progressDeadlineSeconds": 15},
                }
            }
        )
        stalled = deployment.wait_reason("Stalled", "ImagePullFailed")
        deployment.wait("gave the GPUs back", lambda _: {p["metadata"]["uid"] for p in deployment.all_pods()} == uids)
        load.wait_for(10)
    record("failed_change", load.tally)
    assert (load.tally.failed, load.tally.cut) == (0, 0), load.tally.reasons
    assert "no-such-model" in stalled["message"]
    assert deployment.condition("Ready")["status"] == "True"
    assert deployment.serving() == before
    assert deployment.status()["rollout"]["phase"] == "Failed"

    deployment.patch({"spec": {"model": {"source": {"image": {"reference": good}}}, "rollout": None}})
    deployment.wait_ready()
    assert not deployment.condition("Stalled")
    assert {pod["metadata"]["uid"] for pod in deployment.pods()} == uids
