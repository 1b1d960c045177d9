"""Suspend and resume, restart, delete; and what other programs read of the status."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import yaml

from e2e.service import Service, record


def test_suspend_removes_workers_and_head_and_resume_brings_them_back(service: Service) -> None:
    deployment = service.deployment
    deployment.patch({"spec": {"suspend": True}})
    deployment.wait_reason("Ready", "Suspended")
    deployment.wait("had no pods", lambda _: not deployment.all_pods())
    assert deployment.condition("Ready")["status"] == "True"
    deployment.patch({"spec": {"suspend": None}})
    record("resume", seconds=deployment.wait_ready())


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
    """Both return once the resource is ready, and not before: each is started together with its creation."""
    chart = tmp_path / "chart"
    (chart / "templates").mkdir(parents=True)
    (chart / "Chart.yaml").write_text(yaml.safe_dump({"apiVersion": "v2", "name": "team", "version": "0.1.0"}))
    resource = {
        "apiVersion": "serving.aixcoder.io/v1alpha1",
        "kind": "AixcoderDeployment",
        "metadata": {"name": "helmed"},
        "spec": copy.deepcopy(service.spec),
    }
    (chart / "templates" / "deployment.yaml").write_text(json.dumps(resource))
    with service.deployments("helmed") as (helmed,):
        try:
            service.helm("install", "team", str(chart), f"--namespace={helmed.namespace}", "--wait", "--timeout=4m")
            assert helmed.condition("Ready")["status"] == "True"
            service.kubectl("wait", "--for=condition=Ready", "aixcoderdeployments/helmed", "--timeout=5s")
            assert not helmed.condition("Reconciling")
        finally:
            service.helm("uninstall", "team", f"--namespace={helmed.namespace}", "--ignore-not-found")


def test_deletion_leaves_nothing(service: Service) -> None:
    with service.deployments("short-lived") as (deployment,):
        deployment.apply(copy.deepcopy(service.spec))
        deployment.wait("had pods", lambda _: bool(deployment.pods("worker")))
        children = deployment.children()
        assert {child.split("/")[0] for child in children} >= {"pod", "service", "secret"}
        service.kubectl("delete", "aixcoderdeployments", "short-lived", "--cascade=foreground")
        assert deployment.children() == []
