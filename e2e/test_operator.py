"""The operator may die at any time, be another version, or have nothing to do: running pods do not notice."""

from __future__ import annotations

import copy
import time

import pytest

from e2e.load import Load
from e2e.service import Service, record


@pytest.mark.long  # as in mid change
def test_killed_in_mid_creation(service: Service) -> None:
    with service.deployments("young") as (young,):
        young.apply(copy.deepcopy(service.spec))
        young.wait("had pods", lambda _: bool(young.pods()))
        service.kill_operators()
        seconds = young.wait_ready()
        record("operator_killed_in_creation", seconds=seconds)
        units = {pod["metadata"]["labels"]["serving.aixcoder.io/unit"] for pod in young.pods()}
        assert len(units) == 1


def test_killed_in_mid_change(service: Service) -> None:
    deployment = service.deployment
    with Load(service.url, clients=2) as load:
        load.wait_for(4)
        deployment.patch({"spec": {"engine": {"maxConcurrentSequences": 7}}})
        deployment.wait("had two units", lambda found: len(found["status"].get("revisions", [])) == 2)
        service.kill_operators()
        seconds = deployment.wait_ready()
        load.wait_for(10)
    record("operator_killed_in_change", load.tally, seconds=seconds)
    assert (load.tally.failed, load.tally.cut) == (0, 0), load.tally.reasons


@pytest.mark.parametrize("seconds", [20.0, pytest.param(60.0, marks=pytest.mark.long)])
def test_a_steady_resource_costs_no_write_and_no_ray_request(service: Service, seconds: float) -> None:
    service.deployment.wait_ready()
    time.sleep(5)  # what followed Ready, such as the last event, is written by now
    writes = service.writes_of_operator()
    requests = service.ray_requests()
    assert writes
    assert requests > 0, "bringing it up took requests: where none are counted, none are seen"
    time.sleep(seconds)
    record("steady", writes=len(service.writes_of_operator()) - len(writes), ray=service.ray_requests() - requests)
    assert service.writes_of_operator() == writes
    assert service.ray_requests() == requests


def test_an_operator_of_another_version_restarts_nothing(service: Service) -> None:
    deployment = service.deployment
    uids = {pod["metadata"]["uid"] for pod in deployment.pods()}
    templates = service.child_templates()
    with service.operator_of_another_version():
        deployment.wait(
            "heard of a newer serving image",
            lambda found: any("newer serving image" in c["message"] for c in found["status"]["conditions"]),
        )
        time.sleep(5)
        assert {pod["metadata"]["uid"] for pod in deployment.pods()} == uids
        assert service.child_templates() == templates
    deployment.wait(
        "heard of no newer image any more",
        lambda found: not any("newer serving image" in c["message"] for c in found["status"]["conditions"]),
    )
    assert {pod["metadata"]["uid"] for pod in deployment.pods()} == uids
    assert service.child_templates() == templates
