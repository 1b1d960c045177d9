import asyncio
import json
from collections.abc import Sequence
from typing import Any

import pytest

from aixcoder_operator.api import objects
from aixcoder_operator.api.objects import Object, ObjectKey
from aixcoder_operator.cluster import kinds
from aixcoder_operator.cluster.apply import Applied, Occupied, apply, prune
from aixcoder_operator.cluster.client import Client, NotFound
from aixcoder_operator.cluster.kinds import Resource
from aixcoder_operator.cluster.observe import observe
from e2e.cluster.controlplane import ControlPlane
from tests.component.operator.conftest import AuditLog, MakeParent


def child(parent: Object, resource: Resource, name: str, body: dict[str, Any], **labels: str) -> Object:
    return {
        "apiVersion": resource.api_version,
        "kind": resource.kind,
        "metadata": {
            "name": name,
            "namespace": objects.namespace(parent),
            "labels": {
                "app.kubernetes.io/managed-by": "aixcoder-operator",
                "serving.aixcoder.io/deployment": objects.name(parent),
                **labels,
            },
            "ownerReferences": [
                {
                    "apiVersion": parent["apiVersion"],
                    "kind": parent["kind"],
                    "name": objects.name(parent),
                    "uid": objects.uid(parent),
                    "controller": True,
                    "blockOwnerDeletion": True,
                }
            ],
        },
        **body,
    }


def pod_spec() -> dict[str, Any]:
    """With the kinds of value that the API server writes in its own way, and lists that admission adds to."""
    return {
        "containers": [
            {
                "name": "worker",
                "image": "example/serving:1",
                "args": ["--a", "--b"],
                "env": [{"name": "EMPTY", "value": ""}, {"name": "A", "value": "1"}],
                "resources": {"requests": {"cpu": "1000m", "memory": "1024Mi"}, "limits": {"memory": "2Gi"}},
                "volumeMounts": [{"name": "tmp", "mountPath": "/tmp", "readOnly": False}],
                "readinessProbe": {"httpGet": {"path": "/ready", "port": 30000}, "periodSeconds": 1},
                "securityContext": {"runAsNonRoot": True, "capabilities": {"drop": ["ALL"]}},
            }
        ],
        "tolerations": [{"key": "gpu", "operator": "Exists"}],
        "volumes": [{"name": "tmp", "emptyDir": {"medium": "Memory", "sizeLimit": "1024Mi"}}],
    }


def desired(parent: Object) -> list[Object]:
    name = objects.name(parent)
    selector = {"serving.aixcoder.io/unit": name}
    match = {"matchLabels": selector}
    labels = {"serving.aixcoder.io/deployment": name, "app.kubernetes.io/managed-by": "aixcoder-operator"}
    template = {"metadata": {"labels": {**selector, **labels}}, "spec": pod_spec()}
    return [
        child(parent, kinds.CONTROLLER_REVISION, f"{name}-r", {"data": {"spec": {"a": None, "b": 0}}, "revision": 1}),
        child(
            parent,
            kinds.SERVICE,
            name,
            {
                "spec": {
                    "clusterIP": "None",
                    "publishNotReadyAddresses": False,
                    "selector": selector,
                    "ports": [{"name": "http", "port": 30000}],
                }
            },
        ),
        child(parent, kinds.POD, f"{name}-head", {"spec": pod_spec()}),
        child(parent, kinds.REPLICA_SET, name, {"spec": {"replicas": 0, "selector": match, "template": template}}),
        child(
            parent,
            kinds.STATEFUL_SET,
            f"{name}-head",
            {
                "spec": {
                    "replicas": 0,
                    "serviceName": name,
                    "podManagementPolicy": "Parallel",
                    "selector": match,
                    "template": template,
                    "volumeClaimTemplates": [
                        {
                            "metadata": {"name": "gcs"},
                            "spec": {
                                "accessModes": ["ReadWriteOnce"],
                                "resources": {"requests": {"storage": "1024Mi"}},
                            },
                        }
                    ],
                }
            },
        ),
        child(
            parent,
            kinds.POD_DISRUPTION_BUDGET,
            name,
            {"spec": {"maxUnavailable": 1, "unhealthyPodEvictionPolicy": "AlwaysAllow", "selector": match}},
        ),
        child(
            parent,
            kinds.NETWORK_POLICY,
            name,
            {
                "spec": {
                    "podSelector": match,
                    "policyTypes": ["Ingress"],
                    "ingress": [{"from": [{"podSelector": match}], "ports": [{"port": 6379}]}],
                }
            },
        ),
    ]


async def step(client: Client, parent: Object, wanted: Sequence[Object]) -> Applied:
    seen = await observe(client, objects.namespace(parent), objects.name(parent))
    assert seen is not None
    return await apply(client, wanted, seen.children, owner=seen.parent)


async def until_statefulset_has_its_revision(client: Client, namespace: str) -> None:
    labels = {"serving.aixcoder.io/deployment": "demo", "app.kubernetes.io/managed-by": "aixcoder-operator"}
    for _ in range(600):
        if len(await client.list(kinds.CONTROLLER_REVISION, namespace, labels=labels)) == 2:
            return
        await asyncio.sleep(0.1)
    raise AssertionError("the StatefulSet never got its revision")


async def test_what_is_applied_is_observed_and_applied_again_writes_nothing(
    client: Client, make_parent: MakeParent, namespace: str, audit: AuditLog
) -> None:
    parent = make_parent()
    wanted = desired(parent)
    first = await step(client, parent, wanted)
    assert first == Applied(tuple(objects.key(obj) for obj in wanted))
    seen = await observe(client, namespace, "demo")
    assert seen is not None
    assert {objects.key(obj) for obj in wanted} <= {objects.key(obj) for obj in seen.children}
    await until_statefulset_has_its_revision(client, namespace)
    seen = await observe(client, namespace, "demo")
    assert seen is not None
    assert [objects.name(revision) for revision in seen.children.controller_revisions] == ["demo-r"]
    audit.mark()
    assert await step(client, parent, wanted) == Applied()
    assert await prune(client, wanted, seen.children, owner=parent) == ()
    assert audit.ours(namespace) == []


async def test_only_what_differs_is_written_and_what_is_no_longer_said_goes(
    client: Client, plane: ControlPlane, make_parent: MakeParent, namespace: str
) -> None:
    parent = make_parent()
    wanted = desired(parent)
    await step(client, parent, wanted)
    labelled = child(parent, kinds.SERVICE, "demo", {"spec": wanted[1]["spec"]}, team="x")
    assert (await step(client, parent, [wanted[0], labelled, *wanted[2:]])).written == (ObjectKey("Service", "demo"),)
    assert (await client.get(kinds.SERVICE, namespace, "demo"))["metadata"]["labels"]["team"] == "x"
    assert (await step(client, parent, wanted)).written == (ObjectKey("Service", "demo"),)
    assert "team" not in (await client.get(kinds.SERVICE, namespace, "demo"))["metadata"]["labels"]
    # Somebody else's change is taken back, somebody else's addition is left alone.
    plane.kubectl("scale", "-n", namespace, "rs/demo", "--replicas=3")
    plane.kubectl("label", "-n", namespace, "networkpolicy/demo", "theirs=1")
    assert (await step(client, parent, wanted)).written == (ObjectKey("ReplicaSet", "demo"),)
    assert (await client.get(kinds.REPLICA_SET, namespace, "demo"))["spec"]["replicas"] == 0


async def test_prune_takes_what_is_ours_and_not_desired_and_nothing_else(
    client: Client, plane: ControlPlane, make_parent: MakeParent, namespace: str
) -> None:
    parent, other = make_parent(), make_parent("other")
    wanted = desired(parent)
    await step(client, parent, wanted)
    # Ours by its labels, somebody else's by its owner.
    foreign = child(other, kinds.SERVICE, "foreign", {"spec": wanted[1]["spec"]})
    foreign["metadata"]["labels"]["serving.aixcoder.io/deployment"] = "demo"
    await client.apply(foreign)
    seen = await observe(client, namespace, "demo")
    assert seen is not None
    gone = await prune(client, wanted[:3], seen.children, owner=parent)
    assert set(gone) == {objects.key(obj) for obj in wanted[3:]}
    seen = await observe(client, namespace, "demo")
    assert seen is not None
    left = {objects.key(obj) for obj in seen.children if not objects.is_terminating(obj)}
    assert left >= {*(objects.key(obj) for obj in wanted[:3]), ObjectKey("Service", "foreign")}
    assert not left & set(gone)


async def test_what_terminates_is_waited_for(client: Client, make_parent: MakeParent, namespace: str) -> None:
    parent = make_parent()
    service = desired(parent)[1]
    held = {**service, "metadata": {**service["metadata"], "finalizers": ["example.com/hold"]}}
    await step(client, parent, [held])
    await client.delete(await client.get(kinds.SERVICE, namespace, "demo"))
    assert await step(client, parent, [service]) == Applied(waiting=(ObjectKey("Service", "demo"),))
    await client.apply({**service, "metadata": {**service["metadata"], "finalizers": []}})
    with pytest.raises(NotFound):
        await client.get(kinds.SERVICE, namespace, "demo")
    assert await step(client, parent, [service]) == Applied(written=(ObjectKey("Service", "demo"),))


async def test_what_an_earlier_deployment_of_that_name_left_is_waited_for(
    client: Client, make_parent: MakeParent
) -> None:
    parent = make_parent()
    service = desired(parent)[1]
    service["metadata"]["finalizers"] = ["example.com/hold"]
    service["metadata"]["ownerReferences"][0]["uid"] = "00000000-0000-0000-0000-000000000000"
    await client.apply(service)
    assert await step(client, parent, [desired(parent)[1]]) == Applied(waiting=(ObjectKey("Service", "demo"),))
    service["metadata"]["finalizers"] = []
    await client.apply(service)


async def test_an_object_of_somebody_else_is_never_taken_over(
    client: Client, plane: ControlPlane, make_parent: MakeParent, namespace: str
) -> None:
    parent = make_parent()
    plane.kubectl("create", "service", "externalname", "-n", namespace, "demo", "--external-name=example.com")
    with pytest.raises(Occupied, match=r"Service/demo exists in namespace .* and belongs to somebody else: delete or"):
        await step(client, parent, [desired(parent)[1]])
    assert (await client.get(kinds.SERVICE, namespace, "demo"))["spec"]["type"] == "ExternalName"


async def test_our_object_whose_labels_were_taken_off_gets_them_back(
    client: Client, plane: ControlPlane, make_parent: MakeParent, namespace: str
) -> None:
    parent = make_parent()
    service = desired(parent)[1]
    await step(client, parent, [service])
    plane.kubectl("label", "-n", namespace, "service/demo", "serving.aixcoder.io/deployment-")
    assert (await step(client, parent, [service])).written == (ObjectKey("Service", "demo"),)
    stored = await client.get(kinds.SERVICE, namespace, "demo")
    assert stored["metadata"]["labels"]["serving.aixcoder.io/deployment"] == "demo"


async def test_a_secret_is_written_without_being_read_and_never_taken_over(
    client: Client, plane: ControlPlane, make_parent: MakeParent, namespace: str, audit: AuditLog
) -> None:
    parent = make_parent()
    secret = child(parent, kinds.SECRET, "demo-tokens", {"data": {"ray": "YQ=="}})
    assert (await step(client, parent, [secret])).written == (ObjectKey("Secret", "demo-tokens"),)
    assert (await step(client, parent, [secret])).written == (ObjectKey("Secret", "demo-tokens"),)
    reads = [line for line in audit.since(namespace, ("get", "list", "watch")) if line.endswith(" aixcoder-operator")]
    assert reads
    assert not [line for line in reads if "secrets" in line]
    stored = json.loads(plane.kubectl("get", "secret", "-n", namespace, "demo-tokens", "-o", "json"))
    assert stored["data"] == {"ray": "YQ=="}
    assert "annotations" not in stored["metadata"]
    plane.kubectl("create", "secret", "generic", "-n", namespace, "theirs", "--from-literal=ray=x")
    theirs = child(parent, kinds.SECRET, "theirs", {"data": {"ray": "YQ=="}})
    with pytest.raises(Occupied, match="Secret/theirs has fields that somebody else has set"):
        await step(client, parent, [theirs])


async def test_a_deployment_that_is_not_there_is_none_and_a_claim_is_seen(
    client: Client, plane: ControlPlane, make_parent: MakeParent, namespace: str
) -> None:
    assert await observe(client, namespace, "none") is None
    source = {"source": {"persistentVolumeClaim": {"claimName": "weights"}}}
    make_parent(model=source)
    seen = await observe(client, namespace, "demo")
    assert seen is not None
    assert seen.children.claim is None
    claim = {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": "weights", "namespace": namespace},
        "spec": {"accessModes": ["ReadOnlyMany"], "resources": {"requests": {"storage": "1Gi"}}},
    }
    plane.kubectl("create", "-f", "-", stdin=json.dumps(claim))
    seen = await observe(client, namespace, "demo")
    assert seen is not None
    assert seen.children.claim is not None
    assert objects.name(seen.children.claim) == "weights"
