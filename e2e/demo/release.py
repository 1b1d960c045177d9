"""Install the chart and the demo's resource into a cluster, and take them out again."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from e2e.cluster import progress
from e2e.cluster.errors import ClusterError
from e2e.demo.kubernetes import Json, Kubernetes
from e2e.demo.readiness import KIND

REPOSITORY = Path(__file__).resolve().parents[2]
CHART = REPOSITORY / "helm" / "aixcoder"
EXAMPLE = REPOSITORY / "examples" / "tiny-cpu.yaml"

RELEASE = "aixcoder"
SYSTEM_NAMESPACE = "aixcoder-system"
NAMESPACE = "aixcoder-demo"
GATEWAY_SERVICE = f"service/{RELEASE}-gateway"
# On the namespaces that the demo made, and so may remove.
MADE_BY_DEMO = {"app.kubernetes.io/managed-by": "aixcoder-demo"}
CRD = f"customresourcedefinition.apiextensions.k8s.io/{KIND}"


@dataclass(frozen=True)
class Installation:
    """What differs between clusters: the chart's values, objects that must be there first, changes to the example."""

    values: Mapping[str, Any]
    objects: tuple[Json, ...] = ()
    model_image: str | None = None
    gpus: bool = True


def namespaces() -> list[Json]:
    """The two namespaces of the demo, under Pod Security `restricted`."""
    labels = {**MADE_BY_DEMO, "pod-security.kubernetes.io/enforce": "restricted"}
    return [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}
        for name in (SYSTEM_NAMESPACE, NAMESPACE)
    ]


def strangers(found: list[Json]) -> list[str]:
    """Names of the namespaces among `found` that someone else made under the demo's names."""
    return [
        item["metadata"]["name"]
        for item in found
        if not MADE_BY_DEMO.items() <= (item["metadata"].get("labels") or {}).items()
    ]


def resource(example: str, *, model_image: str | None, gpus: bool) -> Json:
    """The example as the cluster can run it: its model from `model_image`, without GPUs where the nodes have none."""
    found: Json = next(item for item in yaml.safe_load_all(example) if item)
    if model_image is not None:
        found["spec"]["model"]["source"]["image"]["reference"] = model_image
    if not gpus:
        found["spec"]["resources"].pop("gpu", None)
    return found


def install(kubernetes: Kubernetes, installation: Installation) -> str:
    """Namespaces, chart, resource, in this order; the second time it changes nothing. Returns the resource's name.

    Raises ClusterError where a namespace of the demo's name is someone else's.
    """
    taken = strangers(kubernetes.get("namespaces", SYSTEM_NAMESPACE, NAMESPACE).get("items", []))
    if taken:
        raise ClusterError(f"Not the demo's to use: the namespace {' and '.join(taken)} is there without its label.")
    kubernetes.apply(*namespaces(), *installation.objects)
    with progress.step(f"helm upgrade --install {RELEASE} helm/aixcoder --namespace {SYSTEM_NAMESPACE}"):
        arguments = [f"--namespace={SYSTEM_NAMESPACE}", "--wait", "--timeout=5m", "--values=-"]
        kubernetes.helm("upgrade", "--install", RELEASE, str(CHART), *arguments, stdin=json.dumps(installation.values))
    wanted = resource(EXAMPLE.read_text(), model_image=installation.model_image, gpus=installation.gpus)
    name: str = wanted["metadata"]["name"]
    with progress.step(f"kubectl apply --namespace {NAMESPACE} --filename {EXAMPLE.relative_to(REPOSITORY)}"):
        kubernetes.kubectl("apply", f"--namespace={NAMESPACE}", "--filename=-", stdin=json.dumps(wanted))
    return name


def uninstall(kubernetes: Kubernetes) -> None:
    """Resource, release, namespaces; the resource's definition too where no one else has such a resource."""
    with progress.step(f"Removing the resource, the release and the namespaces {NAMESPACE} and {SYSTEM_NAMESPACE}"):
        if kubernetes.get(CRD):
            kubernetes.kubectl("delete", KIND, "--all", f"--namespace={NAMESPACE}", "--cascade=foreground")
        if kubernetes.get("namespace", SYSTEM_NAMESPACE):
            kubernetes.helm("uninstall", RELEASE, f"--namespace={SYSTEM_NAMESPACE}", "--ignore-not-found", "--wait")
        selector = ",".join(f"{key}={value}" for key, value in MADE_BY_DEMO.items())
        kubernetes.kubectl("delete", "namespace", f"--selector={selector}", "--ignore-not-found")
        if kubernetes.get(CRD):
            others = kubernetes.get(KIND, "--all-namespaces").get("items", [])
            if others:
                progress.say(f"  the definition {KIND} stays: {len(others)} resources of others need it")
            else:
                kubernetes.kubectl("delete", CRD)
