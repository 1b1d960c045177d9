"""Suspend and resume, restart, delete; and what other programs read of the status."""

from __future__ import annotations

import copy
import json
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from pathlib import Path

import pytest
import yaml

from e2e.cluster.errors import ClusterError
from e2e.demo.kubernetes import Json
from e2e.service import Service, record


def test_suspend_removes_workers_and_head_and_resume_brings_them_back(service: Service) -> None:
    deployment = service.deployment
    deployment.patch({"spec": {"suspend": True}})
    deployment.wait_reason("Ready", "Suspended")
    deployment.wait("had no pods", lambda _: not deployment.all_pods())
    assert deployment.condition("Ready")["status"] == "True"
    deployment.patch({"spec": {"suspend": None}})
    record("resume", seconds=deployment.wait_ready())


@pytest.mark.long  # the way is that of any change: test_rollout
def test_a_restart_makes_new_pods_and_its_removal_none(service: Service) -> None:
    deployment = service.deployment
    before = {pod["metadata"]["uid"] for pod in deployment.pods()}
    deployment.patch({"metadata": {"annotations": {"serving.aixcoder.io/restart": "1"}}})
    deployment.wait("went to another unit", lambda found: len(found["status"]["revisions"]) == 2)
    deployment.wait_ready()
    after = {pod["metadata"]["uid"] for pod in deployment.pods()}
    assert not before & after
    deployment.patch({"metadata": {"annotations": {"serving.aixcoder.io/restart": None}}})
    deployment.wait_ready()
    assert {pod["metadata"]["uid"] for pod in deployment.pods()} == after


def test_kubectl_wait_and_helm_wait_read_the_status(service: Service, tmp_path: Path) -> None:
    """Both return once the resource is ready, not before; Helm ends with Stalled's message where it never will be."""
    never = copy.deepcopy(service.spec)
    never["model"]["source"]["image"]["reference"] = "aixcoder/no-such-model:2"
    never["rollout"] = {"progressDeadlineSeconds": 15}
    with service.deployments("helmed", "never") as (helmed, failed), ThreadPoolExecutor() as pool:
        try:
            installing: Future[object] = pool.submit(_install, service, tmp_path, "helmed", copy.deepcopy(service.spec))
            failing = pool.submit(_install, service, tmp_path, "never", never)
            helmed.wait("existed", bool)
            waiting: Future[object] = pool.submit(
                service.kubectl, "wait", "--for=condition=Ready", "aixcoderdeployments/helmed", "--timeout=4m"
            )
            assert helmed.condition("Ready").get("status") != "True"
            for returned in as_completed([installing, waiting]):
                returned.result()
                assert helmed.condition("Ready")["status"] == "True"
            with pytest.raises(ClusterError, match=r"(?s)no-such-model"):
                failing.result()
            assert failed.condition("Stalled")["reason"] == "ImagePullFailed"
        finally:
            for release in ("helmed", "never"):
                service.helm("uninstall", release, f"--namespace={helmed.namespace}", "--ignore-not-found")


def _install(service: Service, folder: Path, name: str, spec: Json) -> None:
    """`helm install --wait` of a chart that holds one resource."""
    chart = folder / name
    (chart / "templates").mkdir(parents=True)
    (chart / "Chart.yaml").write_text(yaml.safe_dump({"apiVersion": "v2", "name": name, "version": "0.1.0"}))
    resource = {
        "apiVersion": "serving.aixcoder.io/v1alpha1",
        "kind": "AixcoderDeployment",
        "metadata": {"name": name},
        "spec": spec,
    }
    (chart / "templates" / "deployment.yaml").write_text(json.dumps(resource))
    service.helm("install", name, str(chart), f"--namespace={service.deployment.namespace}", "--wait", "--timeout=4m")


@pytest.mark.long  # a worker that starts and has lost its head takes its whole grace
def test_deletion_leaves_nothing(service: Service) -> None:
    with service.deployments("short-lived") as (deployment,):
        deployment.apply(copy.deepcopy(service.spec))
        deployment.wait("had pods", lambda _: bool(deployment.pods("worker")))
        children = deployment.children()
        assert {child.split("/")[0] for child in children} >= {"pod", "service", "secret"}
        service.kubectl("delete", "aixcoderdeployments", "short-lived", "--cascade=foreground")
        assert deployment.children() == []
