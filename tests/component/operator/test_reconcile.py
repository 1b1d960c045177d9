"""`reconcile()` itself against a real API server and controller manager; no node, so no pod ever starts."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime

import aiohttp
import pytest

from aixcoder_operator.api.deployment import read
from aixcoder_operator.api.objects import Object
from aixcoder_operator.cluster.apply import Occupied
from aixcoder_operator.cluster.client import Client, Forbidden, Invalid
from aixcoder_operator.cluster.events import EventRecorder
from aixcoder_operator.cluster.observe import GatewayEndpoint
from aixcoder_operator.cluster.probe import Prober
from aixcoder_operator.context import Context
from aixcoder_operator.metrics import Metrics
from aixcoder_operator.ray.serve import ServeClient
from aixcoder_operator.reconcile import reconcile
from aixcoder_operator.scaling.collector import Collector
from aixcoder_operator.scaling.loop import Autoscaler
from aixcoder_operator.served_names import ServedNames
from aixcoder_operator.settings import OperatorSettings
from e2e.cluster.controlplane import ControlPlane
from tests.component.operator.conftest import AuditLog, MakeParent

CHILDREN = "controllerrevisions,pods,replicasets,services,poddisruptionbudgets,networkpolicies,secrets"


async def no_gateways() -> tuple[GatewayEndpoint, ...]:
    return ()


@pytest.fixture
async def context(client: Client, namespace: str) -> AsyncIterator[Context]:
    """What a leading operator acts with."""
    settings = OperatorSettings.model_validate(
        {
            "servingImage": "example/serving:1",
            "gateway": {"namespace": namespace},
            "lease": {"namespace": namespace},
        }
    )
    async with aiohttp.ClientSession() as session:
        yield Context(
            settings=settings,
            client=client,
            serve=lambda host, token: ServeClient(session, host, token, guard=lambda: 60.0),
            prober=Prober(session),
            events=EventRecorder(client, "test"),
            key=b"k" * 32,
            data_key=b"d" * 32,
            served_names=ServedNames(),
            autoscaler=Autoscaler(Collector(session, no_gateways), Metrics().scaling),
            now=lambda: datetime.now(UTC),
        )


class Cluster:
    """The test's namespace, as kubectl sees it."""

    def __init__(self, plane: ControlPlane, namespace: str) -> None:
        self._plane = plane
        self._namespace = namespace

    def run(self, *arguments: str, stdin: str = "") -> str:
        return self._plane.kubectl(*arguments, f"--namespace={self._namespace}", stdin=stdin)

    def get(self, kind: str, name: str) -> Object:
        found: Object = json.loads(self.run("get", kind, name, "--output=json"))
        return found

    def children(self) -> set[str]:
        return set(self.run("get", CHILDREN, "--selector=serving.aixcoder.io/deployment=demo", "--output=name").split())

    def condition(self, kind: str) -> Object:
        conditions = self.get("axd", "demo")["status"]["conditions"]
        return next((found for found in conditions if found["type"] == kind), {})

    def becomes(self, pod: str, *, ready: bool) -> None:
        """What a node would say of `pod`."""
        condition = {"type": "Ready", "status": str(ready), "lastTransitionTime": "2026-01-01T00:00:00Z"}
        address = {"podIP": "127.0.0.2", "podIPs": [{"ip": "127.0.0.2"}]}
        self._status(pod, {"phase": "Running", "conditions": [condition], **address})

    def decided(self, desired: int) -> None:
        """What another process has decided before it ended."""
        self._status("axd/demo", {"autoscaling": {"desired": desired}})

    def _status(self, called: str, status: Object) -> None:
        self.run("patch", called, "--subresource=status", "--type=merge", "-p", json.dumps({"status": status}))


@pytest.fixture
def cluster(plane: ControlPlane, namespace: str) -> Cluster:
    return Cluster(plane, namespace)


async def settle(context: Context, namespace: str) -> None:
    """Reconcile until two looks in a row write nothing of their own to tell."""
    for _ in range(4):
        await reconcile(f"{namespace}/demo", context=context)
        await asyncio.sleep(0.5)  # the controller manager makes the pod


async def test_all_children_are_made_and_belong_to_the_resource(
    context: Context, namespace: str, make_parent: MakeParent, cluster: Cluster
) -> None:
    parent = make_parent()
    await settle(context, namespace)
    status = cluster.get("axd", "demo")["status"]
    unit = next(iter(status["traffic"]["weights"]))
    made = cluster.children()
    workers = {name for name in made if name.startswith("pod/") and not name.endswith("-head")}
    assert made - workers == {
        f"controllerrevision.apps/{unit}",
        f"pod/{unit}-head",
        f"replicaset.apps/{unit}",
        f"service/{unit}",
        f"service/{unit}-head",
        "poddisruptionbudget.policy/demo",
        "networkpolicy.networking.k8s.io/demo-head",
        "networkpolicy.networking.k8s.io/demo-worker",
        "secret/demo-tokens",
    }
    assert len(workers) == 1
    owner = cluster.get("replicaset", unit)["metadata"]["ownerReferences"][0]
    assert (owner["uid"], owner["controller"]) == (parent["metadata"]["uid"], True)
    assert status["observedGeneration"] == parent["metadata"]["generation"]
    assert cluster.condition("Ready")["status"] == "False"
    assert cluster.condition("Reconciling")["status"] == "True"


async def test_another_look_writes_nothing(
    context: Context, namespace: str, make_parent: MakeParent, audit: AuditLog
) -> None:
    make_parent()
    await settle(context, namespace)
    audit.mark()
    await reconcile(f"{namespace}/demo", context=context)
    assert audit.ours(namespace) == []


async def test_a_child_that_somebody_changed_or_deleted_is_mended(
    context: Context, namespace: str, make_parent: MakeParent, cluster: Cluster
) -> None:
    make_parent()
    await settle(context, namespace)
    cluster.run("delete", "networkpolicy", "demo-head")
    cluster.run("patch", "pdb", "demo", "--type=merge", '--patch={"spec":{"maxUnavailable":5}}')
    await settle(context, namespace)
    assert "networkpolicy.networking.k8s.io/demo-head" in cluster.children()
    assert cluster.get("pdb", "demo")["spec"]["maxUnavailable"] == 1


async def test_deletion_takes_all_children_away(
    context: Context, namespace: str, make_parent: MakeParent, cluster: Cluster
) -> None:
    make_parent()
    await settle(context, namespace)
    cluster.run("delete", "axd", "demo")
    assert await reconcile(f"{namespace}/demo", context=context) is None
    start = time.monotonic()
    while cluster.children():
        assert time.monotonic() - start < 60, cluster.children()
        await asyncio.sleep(0.2)


async def test_a_name_that_is_somebody_elses_is_told(
    context: Context, namespace: str, make_parent: MakeParent, cluster: Cluster
) -> None:
    cluster.run("create", "-f", "-", stdin=json.dumps(
        {
            "apiVersion": "policy/v1",
            "kind": "PodDisruptionBudget",
            "metadata": {"name": "demo"},
            "spec": {"maxUnavailable": 2, "selector": {"matchLabels": {"app": "other"}}},
        }
    ))  # fmt: skip
    make_parent()
    with pytest.raises(Occupied):
        await reconcile(f"{namespace}/demo", context=context)
    told = cluster.condition("Valid")
    assert (told["status"], told["reason"]) == ("False", "ObjectRefused")
    assert "PodDisruptionBudget/demo" in told["message"]
    assert cluster.get("pdb", "demo")["spec"]["maxUnavailable"] == 2
    cluster.run("delete", "pdb", "demo")
    await settle(context, namespace)
    assert cluster.condition("Valid")["status"] == "True"


async def test_what_the_api_server_refuses_of_a_free_block_is_told(
    context: Context, namespace: str, make_parent: MakeParent, cluster: Cluster
) -> None:
    expression = {"key": "zone", "operator": "Near", "values": ["a"]}
    terms = {"nodeSelectorTerms": [{"matchExpressions": [expression]}]}
    make_parent(
        scheduling={"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": terms}}},
    )
    with pytest.raises(Invalid):
        await settle(context, namespace)
    told = cluster.condition("Valid")
    assert (told["status"], told["reason"]) == ("False", "ObjectRefused")
    assert "Near" in told["message"]


async def test_what_a_quota_refuses_is_told(
    context: Context, namespace: str, make_parent: MakeParent, cluster: Cluster
) -> None:
    cluster.run("create", "quota", "no-pods", "--hard=pods=0")
    make_parent()
    with pytest.raises(Forbidden):
        await settle(context, namespace)
    told = cluster.condition("Valid")
    assert (told["status"], told["reason"]) == ("False", "ObjectRefused")
    assert "exceeded quota" in told["message"]
    assert cluster.condition("Ready")["status"] == "False"


async def test_a_suspended_resource_has_no_pods_and_is_ready(
    context: Context, namespace: str, make_parent: MakeParent, cluster: Cluster
) -> None:
    make_parent(suspend=True)
    await settle(context, namespace)
    assert not [name for name in cluster.children() if name.startswith(("pod/", "replicaset"))]
    told = cluster.condition("Ready")
    assert (told["status"], told["reason"]) == ("True", "Suspended")


async def test_what_scaling_decides_stands_in_status_and_in_the_replica_set_and_the_spec_stays(
    context: Context, namespace: str, make_parent: MakeParent, cluster: Cluster, audit: AuditLog
) -> None:
    parent = make_parent(autoscaling={"minReplicas": 3, "maxReplicas": 5})
    key = f"{namespace}/demo"
    await settle(context, namespace)
    changed: list[str] = []
    await context.autoscaler.look(changed.append)
    assert changed == [key], "the first decision is to be told"
    await settle(context, namespace)
    stored = cluster.get("axd", "demo")
    unit = next(iter(stored["status"]["traffic"]["weights"]))
    assert stored["status"]["autoscaling"]["desired"] == 3
    assert cluster.get("replicaset", unit)["spec"]["replicas"] == 3
    assert stored["spec"] == parent["spec"]
    assert stored["metadata"]["generation"] == parent["metadata"]["generation"]
    audit.mark()
    for _ in range(3):
        await context.autoscaler.look(changed.append)
    await reconcile(key, context=context)
    assert changed == [key]
    assert audit.ours(namespace) == []


async def test_at_zero_nothing_runs_and_one_wakes_as_what_it_was(
    context: Context, namespace: str, make_parent: MakeParent, cluster: Cluster
) -> None:
    make_parent(autoscaling={"minReplicas": 0, "maxReplicas": 5})
    await settle(context, namespace)
    unit = next(iter(cluster.get("axd", "demo")["status"]["traffic"]["weights"]))
    worker = next(name for name in cluster.children() if name.startswith("pod/") and not name.endswith("-head"))
    cluster.becomes(worker, ready=True)
    await settle(context, namespace)
    assert cluster.get("axd", "demo")["status"]["rollout"]["stable"] == unit

    cluster.becomes(worker, ready=False)
    cluster.decided(0)
    for _ in range(3):
        await settle(context, namespace)
    running = ("pod/", "replicaset", "service/")
    assert not [name for name in cluster.children() if name.startswith(running)]
    told = cluster.condition("Ready")
    assert (told["status"], told["reason"]) == ("True", "ScaledToZero")
    assert cluster.condition("Reconciling") == {}

    cluster.decided(2)
    assert await reconcile(f"{namespace}/demo", context=context) is not None
    stored = cluster.get("axd", "demo")
    assert stored["status"]["traffic"]["weights"] == {unit: 100}
    assert cluster.get("replicaset", unit)["spec"]["replicas"] == 2
    assert f"pod/{unit}-head" in cluster.children()
    assert cluster.condition("Ready")["reason"] == "WakingUp"
    assert cluster.condition("Reconciling") == {}


async def test_who_is_scaled_no_more_has_no_decision_in_status(
    context: Context, namespace: str, make_parent: MakeParent, cluster: Cluster
) -> None:
    make_parent(autoscaling={"minReplicas": 2, "maxReplicas": 5})
    await settle(context, namespace)
    await context.autoscaler.look(lambda key: None)
    await settle(context, namespace)
    assert cluster.get("axd", "demo")["status"]["autoscaling"]["desired"] == 2
    cluster.run("patch", "axd", "demo", "--type=merge", '--patch={"spec":{"autoscaling":null,"replicas":1}}')
    for _ in range(2):  # who goes is chosen, and goes 2 s later
        await settle(context, namespace)
    status = cluster.get("axd", "demo")["status"]
    unit = next(iter(status["traffic"]["weights"]))
    assert "autoscaling" not in status
    assert context.autoscaler.decided(read(cluster.get("axd", "demo"))) is None
    assert cluster.get("replicaset", unit)["spec"]["replicas"] == 1


async def test_pods_are_admitted_where_pod_security_is_restricted(
    context: Context, namespace: str, make_parent: MakeParent, cluster: Cluster, plane: ControlPlane
) -> None:
    plane.kubectl("label", "namespace", namespace, "pod-security.kubernetes.io/enforce=restricted")
    make_parent()
    await settle(context, namespace)
    pods = [name for name in cluster.children() if name.startswith("pod/")]
    assert len(pods) == 2
