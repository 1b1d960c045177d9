"""Right resources: accepted, stored whole, and unchanged by a second apply."""

from typing import Any

import pytest
import yaml

from aixcoder_operator.api.definition import schema
from aixcoder_operator.api.deployment import read
from aixcoder_operator.api.status import (
    AutoscalingStatus,
    Condition,
    ConditionType,
    DeploymentStatus,
    RevisionStatus,
    RolloutStatus,
    ScalingDecision,
    TrafficStatus,
)
from aixcoder_operator.api.values import Timestamp

from .conftest import ROOT, Kubectl
from .resources import REMOVED, autoscaled, changed, full, largest, minimal

REFERENCE = "spec.model.source.image.reference"
DIGEST = "sha256:" + "0123456789abcdef" * 4


def _scheduled(start: str, end: str, time_zone: str) -> dict[str, Any]:
    entry = {"start": start, "end": end, "timeZone": time_zone, "minReplicas": 2}
    return {"maxReplicas": 2, "schedule": [entry, {"start": start, "end": end, "minReplicas": 0}]}


GOOD: list[tuple[str, Any]] = [
    ("metadata.name", "a" * 38),
    ("metadata.name", "a-7b"),
    (REFERENCE, "aixcoder-7b"),
    (REFERENCE, "localhost:5000/team_a/sub.path/aixcoder--7b:1.0-rc.1"),
    (REFERENCE, f"registry.example:443/models/aixcoder-7b@{DIGEST}"),
    (REFERENCE, f"registry.example/models/aixcoder-7b:1@{DIGEST}"),
    ("spec.model.source.image.path", "weights/..hidden"),
    ("spec.engine", {}),
    ("spec.engine", {"device": "cpu", "dtype": "float32"}),
    ("spec.engine", {"device": "cpu"}),
    ("spec.engine.tensorParallelSize", 8),
    ("spec.engine.maxModelLength", 32768),
    ("spec.replicas", 0),
    ("spec.replicas", 256),
    ("spec.autoscaling", {"maxReplicas": 1}),
    ("spec.autoscaling", {"minReplicas": 0, "maxReplicas": 256, "keepHead": True}),
    ("spec.autoscaling", {"minReplicas": 8, "maxReplicas": 8, "queueTimeTargetMs": 10}),
    ("spec.autoscaling", _scheduled("0 8 * * MON-FRI", "0 18 * * *", "Asia/Shanghai")),
    ("spec.autoscaling", _scheduled("*/15 0-6/2,22 1,15 JAN-MAR,12 0", "5-10,59 23 31 * 7", "UTC")),
    ("spec.autoscaling", _scheduled("0 8 * * 1", "0 9 * * 1", "America/Argentina/ComodRivadavia")),
    ("spec.resources.cpu", 1),
    ("spec.resources.cpu", "0.5"),
    ("spec.resources.memory", "1.5Gi"),
    ("spec.resources.memory", "25e9"),
    ("spec.resources.gpu.resourceName", "amd.com/gpu"),
    ("spec.scheduling.nodeSelector", {"a.example/b": "", "c": "D_e.f"}),
    ("spec.scheduling.tolerations", [{"operator": "Exists"}, {"key": "a"}, {"key": "a", "value": "b"}]),
    ("spec.worker.labels", {}),
    ("spec.worker.env", [{"name": "A"}, {"name": "_B1", "value": "$(A)"}]),
    ("spec.completion.temperature", 0),
    ("spec.completion.temperature", 2),
    ("spec.suspend", True),
]


@pytest.mark.parametrize(("path", "value"), GOOD, ids=[f"{path}={value}"[:60] for path, value in GOOD])
def test_accepted(kubectl_default: Kubectl, path: str, value: Any) -> None:
    assert kubectl_default.refusal(changed(minimal(), path, value)) == ""


def test_no_gpu_is_needed_on_cpu(kubectl_default: Kubectl) -> None:
    resource = changed(changed(minimal(), "spec.engine.device", "cpu"), "spec.resources", REMOVED)
    assert kubectl_default.refusal(resource) == ""


def test_the_largest_resource_is_within_what_rules_may_cost(kubectl: Kubectl) -> None:
    kubectl("create", "-f", "-", stdin=largest())
    assert kubectl.get("sample")["spec"] == largest()["spec"]


@pytest.mark.parametrize("flags", [(), ("--server-side",)], ids=["client-side", "server-side"])
@pytest.mark.parametrize("resource", [minimal(), full(), autoscaled()], ids=["minimal", "full", "autoscaled"])
def test_a_second_apply_changes_nothing(kubectl: Kubectl, resource: dict[str, Any], flags: tuple[str, ...]) -> None:
    kubectl("apply", *flags, "-f", "-", stdin=resource)
    # The operator looks. Before it has, the server stores status' default with whatever writes first, and the
    # resourceVersion moves once.
    kubectl(
        "patch", "axd", "sample", "--subresource=status", "--type=merge", "-p", '{"status":{"observedGeneration":1}}'
    )
    first = kubectl.get("sample")
    again = kubectl("apply", *flags, "-f", "-", stdin=resource)
    second = kubectl.get("sample")
    assert again.strip().endswith("serverside-applied" if flags else "unchanged")
    assert first["metadata"]["resourceVersion"] == second["metadata"]["resourceVersion"]
    assert first["metadata"]["generation"] == second["metadata"]["generation"] == 1


def test_no_field_is_lost_and_none_is_added(kubectl: Kubectl) -> None:
    for resource in (full("full"), autoscaled("autoscaled"), minimal("small")):
        kubectl("create", "-f", "-", stdin=resource)
        assert kubectl.get(resource["metadata"]["name"])["spec"] == resource["spec"]


def test_the_full_resources_use_every_field() -> None:
    used = _paths_of_value(full()["spec"]) | _paths_of_value(autoscaled()["spec"])
    assert _paths_of_schema(schema()["properties"]["spec"]) - used == {
        # The other one of the two sources: the table of right resources has it.
        "model.source.image",
        "model.source.image.path",
        "model.source.image.reference",
    }


@pytest.mark.parametrize("resource", [full(), autoscaled()], ids=["full", "autoscaled"])
def test_the_operator_reads_what_is_stored(kubectl: Kubectl, resource: dict[str, Any]) -> None:
    kubectl("create", "-f", "-", stdin=resource)
    stored = kubectl.get("sample")
    spec = read(stored).spec.model_dump(mode="json", by_alias=True, exclude_none=True)
    assert spec == changed(resource, "spec.resources.cpu", "4")["spec"]


def test_status_is_minus_one_before_the_operator_has_looked(kubectl: Kubectl) -> None:
    kubectl("create", "-f", "-", stdin=minimal())
    assert kubectl.get("sample")["status"] == {"observedGeneration": -1}


def test_no_field_of_a_status_is_lost(kubectl: Kubectl) -> None:
    kubectl("create", "-f", "-", stdin=minimal())
    status = _full_status(kubectl.get("sample")["metadata"]["creationTimestamp"])
    kubectl("patch", "axd", "sample", "--subresource=status", "--type=merge", "-p", yaml.safe_dump({"status": status}))
    stored = kubectl.get("sample")
    assert stored["status"] == status
    assert stored["metadata"]["generation"] == 1
    assert read(stored).status.model_dump(mode="json", by_alias=True, exclude_none=True) == status


def _full_status(now: Timestamp) -> dict[str, Any]:
    kinds: tuple[ConditionType, ...] = ("Ready", "Reconciling", "Stalled", "Valid")
    conditions = tuple(
        Condition(
            type=kind,
            status="True",
            reason="AsWished",
            message="x" * 5000,
            last_transition_time=now,
            observed_generation=1,
        )
        for kind in kinds
    )
    made = DeploymentStatus(
        observed_generation=1,
        conditions=conditions,
        replicas=3,
        ready_replicas=2,
        selector="serving.aixcoder.io/deployment=sample,app.kubernetes.io/component=worker",
        revisions=(RevisionStatus(name="sample-bcdfgh-1", replicas=3, ready=2),),
        traffic=TrafficStatus(version=4, weights={"sample-bcdfgh-1": 100}),
        rollout=RolloutStatus(
            stable="sample-bcdfgh-1", target="sample-jklmnp", failed="sample-jklmnp", phase="Waiting", step_started=now
        ),
        autoscaling=AutoscalingStatus(
            desired=3,
            hold_until=now,
            last_decision=ScalingDecision(time=now, reason="x" * 600),
            cold_start_seconds=94,
            margin_percent=-7,
        ),
        endpoint="http://aixcoder-gateway.aixcoder-system.svc.cluster.local",
    )
    status: dict[str, Any] = made.model_dump(mode="json", by_alias=True, exclude_none=True)
    assert _paths_of_schema(schema()["properties"]["status"]) <= _paths_of_value(status)
    return status


@pytest.mark.parametrize("example", sorted(path.name for path in (ROOT / "examples").glob("*.yaml")))
def test_an_example_is_accepted_and_kept(kubectl: Kubectl, example: str) -> None:
    given = yaml.safe_load((ROOT / "examples" / example).read_text(encoding="utf-8"))
    kubectl("apply", "-f", str(ROOT / "examples" / example))
    assert kubectl.get(given["metadata"]["name"])["spec"] == given["spec"]


def _paths_of_schema(node: dict[str, Any], path: str = "") -> set[str]:
    found = {path} - {""}
    node = node.get("items", node)
    for name, child in node.get("properties", {}).items():
        found |= _paths_of_schema(child, f"{path}.{name}".lstrip("."))
    return found


def _paths_of_value(node: Any, path: str = "") -> set[str]:
    """Paths of the fields in `node`; an entry of a list counts for the list."""
    found = {path} - {""}
    if isinstance(node, list):
        return found.union(*(_paths_of_value(item, path) for item in node))
    if isinstance(node, dict):
        return found.union(*(_paths_of_value(item, f"{path}.{name}".lstrip(".")) for name, item in node.items()))
    return found
