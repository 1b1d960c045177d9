"""`kubectl scale` up and down under load: nothing fails, nothing is cut."""

from __future__ import annotations

from e2e.load import Load
from e2e.service import Service, record


def test_1_to_2_to_1_with_load(service: Service) -> None:
    deployment = service.deployment
    with Load(service.url) as load:
        load.wait_for(10)
        deployment.scale(2)
        up = deployment.wait_ready()
        load.wait_for(40)
        deployment.scale(1)
        down = deployment.wait_ready()
        deployment.wait("had one worker left", lambda _: len(deployment.all_pods("worker")) == 1)
        load.wait_for(20)
    record("scale_1_2_1", load.tally, up_s=up, down_s=down)
    assert (load.tally.failed, load.tally.cut) == (0, 0), load.tally.reasons


def test_zero_replicas_keep_the_head_and_are_ready(service: Service) -> None:
    deployment = service.deployment
    head = deployment.pods("head")[0]["metadata"]["uid"]
    deployment.scale(0)
    deployment.wait_reason("Ready", "ScaledToZero")
    deployment.wait("had no workers", lambda _: not deployment.all_pods("worker"))
    assert deployment.condition("Ready")["status"] == "True"
    assert [pod["metadata"]["uid"] for pod in deployment.pods("head")] == [head]
    deployment.scale(1)
    seconds = deployment.wait_ready()
    record("scale_0_1", up_s=seconds)
    assert [pod["metadata"]["uid"] for pod in deployment.pods("head")] == [head]
