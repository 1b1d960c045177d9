"""What a person sees of the resource through kubectl: explain, get, scale."""

import json
import time
from typing import Any

import pytest

from e2e.cluster.controlplane import ControlPlane
from e2e.cluster.errors import ClusterError

from .conftest import Kubectl
from .resources import autoscaled, full, minimal

OPENAPI = "/openapi/v3/apis/serving.aixcoder.io/v1alpha1"
HANG_SECONDS = 60.0


@pytest.fixture(scope="session")
def published(crd_plane: ControlPlane) -> dict[str, Any]:
    """The resource's schema as the API server publishes it, some moments after the CRD is established."""
    deadline = time.monotonic() + HANG_SECONDS
    while OPENAPI.removeprefix("/openapi/v3/") not in crd_plane.api.get("/openapi/v3")["paths"]:
        assert time.monotonic() < deadline, "the API server published no schema"
        time.sleep(0.2)
    schemas: dict[str, Any] = crd_plane.api.get(OPENAPI)["components"]["schemas"]
    found: dict[str, Any] = schemas["io.aixcoder.serving.v1alpha1.AixcoderDeployment"]
    return found


def test_every_field_has_a_description(published: dict[str, Any]) -> None:
    assert len(published["description"]) > 40
    described = {
        **_descriptions(published["properties"]["spec"], "spec"),
        **_descriptions(published["properties"]["status"], "status"),
    }
    assert {"spec.worker.env.valueFrom", "status.rollout.stepStarted"} <= described.keys()
    assert [path for path, text in described.items() if len(text) < 15] == []


def test_explain_lists_every_field(kubectl_default: Kubectl, published: dict[str, Any]) -> None:
    lines = kubectl_default("explain", "axd.spec", "--recursive").splitlines()
    listed = {line.split("\t")[0].strip() for line in lines}
    named = {path.rpartition(".")[2] for path in _descriptions(published["properties"]["spec"], "spec")}
    assert named <= listed


def test_explain_names_the_licence_where_a_variant_is_picked(
    kubectl_default: Kubectl, published: dict[str, Any]
) -> None:
    text = " ".join(kubectl_default("explain", "axd.spec.model.variant").split())
    assert "free for academic research; commercial use needs an application to the vendor" in text


def test_get_shows_the_columns(kubectl: Kubectl) -> None:
    kubectl("create", "-f", "-", stdin=full())
    ready = {
        "type": "Ready",
        "status": "False",
        "reason": "ModelLoading",
        "message": "loading the model: 40 %",
        "lastTransitionTime": "2026-01-02T03:04:05Z",
    }
    status = {"observedGeneration": 1, "conditions": [ready], "readyReplicas": 1}
    kubectl("patch", "axd", "sample", "--subresource=status", "--type=merge", "-p", json.dumps({"status": status}))
    header, row = kubectl("get", "axd", "-o", "wide").splitlines()
    assert header.split() == ["NAME", "MODEL", "TP", "REPLICAS", "AUTOSCALED", "READY", "STATUS", "REASON", "AGE"]
    assert row.split()[:6] == ["sample", "aixcoder-7b-base", "2", "3", "1", "ModelLoading"]
    assert "loading the model: 40 %" in row
    assert "REASON" not in kubectl("get", "axd")
    assert kubectl("get", "aixcoder", "-o", "name").strip() == "aixcoderdeployment.serving.aixcoder.io/sample"


def test_get_shows_what_autoscaling_decided(kubectl: Kubectl) -> None:
    kubectl("create", "-f", "-", stdin=autoscaled())
    status = {"observedGeneration": 1, "autoscaling": {"desired": 5}, "readyReplicas": 4}
    kubectl("patch", "axd", "sample", "--subresource=status", "--type=merge", "-p", json.dumps({"status": status}))
    _, row = kubectl("get", "axd").splitlines()
    assert row.split()[:5] == ["sample", "aixcoder-7b-base", "2", "5", "4"]


def test_wait_reads_the_condition(kubectl: Kubectl) -> None:
    kubectl("create", "-f", "-", stdin=minimal())
    ready = {"type": "Ready", "status": "True", "reason": "x", "lastTransitionTime": "2026-01-02T03:04:05Z"}
    status = {"observedGeneration": 1, "conditions": [ready | {"observedGeneration": 1}]}
    kubectl("patch", "axd", "sample", "--subresource=status", "--type=merge", "-p", json.dumps({"status": status}))
    assert "condition met" in kubectl("wait", "axd/sample", "--for=condition=Ready", "--timeout=10s")


def test_scale_sets_replicas_where_there_were_none(kubectl: Kubectl) -> None:
    kubectl("create", "-f", "-", stdin=minimal())
    kubectl("scale", "axd/sample", "--replicas=2")
    assert kubectl.get("sample")["spec"]["replicas"] == 2


def test_scale_beyond_the_bound_is_refused(kubectl: Kubectl) -> None:
    kubectl("create", "-f", "-", stdin=full())
    with pytest.raises(ClusterError, match="should be less than or equal to 256"):
        kubectl("scale", "axd/sample", "--replicas=300")


def test_scale_beside_autoscaling_is_refused_with_a_sentence(kubectl: Kubectl) -> None:
    kubectl("create", "-f", "-", stdin=autoscaled())
    with pytest.raises(ClusterError, match="replicas and autoscaling exclude each other: remove replicas to let the"):
        kubectl("scale", "axd/sample", "--replicas=2")
    assert "replicas" not in kubectl.get("sample")["spec"]


def test_from_a_number_to_autoscaling_and_back(kubectl: Kubectl) -> None:
    kubectl("apply", "-f", "-", stdin=full())
    kubectl("apply", "-f", "-", stdin=autoscaled())
    assert "replicas" not in kubectl.get("sample")["spec"]
    kubectl("apply", "-f", "-", stdin=full())
    assert kubectl.get("sample")["spec"]["replicas"] == 3


def test_the_scale_subresource_has_what_an_autoscaler_reads(kubectl: Kubectl) -> None:
    kubectl("create", "-f", "-", stdin=full())
    status = {"observedGeneration": 1, "replicas": 3, "selector": "serving.aixcoder.io/deployment=sample"}
    kubectl("patch", "axd", "sample", "--subresource=status", "--type=merge", "-p", json.dumps({"status": status}))
    scale = json.loads(kubectl("get", "axd", "sample", "--subresource=scale", "-o", "json"))
    assert scale["spec"] == {"replicas": 3}
    assert scale["status"] == {"replicas": 3, "selector": "serving.aixcoder.io/deployment=sample"}


def _descriptions(node: dict[str, Any], path: str) -> dict[str, str]:
    """Path of each field beneath `node` → its description, "" where it has none."""
    found: dict[str, str] = {}
    inner = node.get("items", node)
    for name, child in inner.get("properties", {}).items():
        found[f"{path}.{name}"] = child.get("description", "")
        found |= _descriptions(child, f"{path}.{name}")
    return found
