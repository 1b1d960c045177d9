"""The installed service as an end-to-end test sees it: its resource, its gateway, its operator, and what they did."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from e2e.cluster import cache
from e2e.cluster.local import LocalCluster
from e2e.demo.kubernetes import Json, Kubernetes
from e2e.demo.release import CHART, RELEASE, REPOSITORY, SYSTEM_NAMESPACE
from e2e.deployment import Deployment
from e2e.images import aixcoder, model
from e2e.load import Tally

OPERATOR = f"system:serviceaccount:{SYSTEM_NAMESPACE}:{RELEASE}-operator"
OPERATOR_PODS = "app.kubernetes.io/component=operator"
GATEWAY = f"{RELEASE}-gateway"
GATEWAY_PODS = "app.kubernetes.io/component=gateway"
_WRITES = frozenset({"create", "update", "patch", "delete", "deletecollection"})
_RAY_REQUESTS = """
import urllib.request
total = 0
for line in urllib.request.urlopen("http://127.0.0.1:44227/metrics").read().decode().splitlines():
    if line.startswith("ray_dashboard_api_requests_count_requests_total"):
        total += float(line.rsplit(" ", 1)[1])
print(int(total))
"""


def record(what: str, tally: Tally | None = None, **figures: float) -> None:
    """Print figures as a JSON line and keep them in the cache, for the notes."""
    seen = {key: round(value, 2) for key, value in figures.items()}
    line = json.dumps({"e2e": what, **seen, **(json.loads(tally.line(what)) if tally else {})})
    print(line, flush=True)
    with (cache.root() / "e2e.jsonl").open("a") as kept:
        kept.write(f"{line}\n")


@dataclass(frozen=True)
class Service:
    """The demo on the tests' cluster. `values` are the chart's, as installed."""

    cluster: LocalCluster
    kubernetes: Kubernetes
    deployment: Deployment
    url: str
    values: Json

    @property
    def spec(self) -> Json:
        """A spec that works here, to change and apply under another name: four of them fit the node's 2 CPUs."""
        found: Json = copy.deepcopy(self.deployment.get()["spec"])
        found["resources"]["cpu"] = found["head"]["resources"]["cpu"] = "100m"
        return found

    def kubectl(self, *arguments: str) -> str:
        """Kubectl in the namespace of the deployment."""
        return self.kubernetes.kubectl(f"--namespace={self.deployment.namespace}", *arguments)

    def helm(self, *arguments: str) -> str:
        """Helm, as a user would call it."""
        return self.kubernetes.helm(*arguments)

    def exec(self, pod: str, container: str, *command: str) -> str:
        """Run a command in a container and return its stdout."""
        return self.kubectl("exec", pod, f"--container={container}", "--", *command)

    def gateways(self) -> list[Json]:
        """The gateways' pods, those that are going left out."""
        listed = self.kubernetes.get("pods", f"--namespace={SYSTEM_NAMESPACE}", f"--selector={GATEWAY_PODS}")
        return [pod for pod in listed["items"] if not pod["metadata"].get("deletionTimestamp")]

    @contextmanager
    def reached(self, target: str) -> Iterator[str]:
        """The URL, from this machine, of an ADDRESS:PORT in the cluster's network; it needs no API server."""
        port = self.cluster.forward(target, target)
        try:
            yield f"http://127.0.0.1:{port}"
        finally:
            self.cluster.unforward(target)

    @contextmanager
    def deployments(self, *names: str) -> Iterator[tuple[Deployment, ...]]:
        """Further deployments beside the demo's, by name; none is applied yet, and all are deleted at the end."""
        found = tuple(replace(self.deployment, name=name) for name in names)
        try:
            yield found
        finally:
            for deployment in found:
                deployment.delete()

    def load_model_image(self, reference: str) -> None:
        """Put the tiny model on the node under another name, as a registry that gets it late."""
        self.cluster.load([model.image(REPOSITORY / "models" / "tiny", reference)])

    @contextmanager
    def model_claim(self, name: str) -> Iterator[None]:
        """A PersistentVolumeClaim over the tiny model's folder."""
        common: Json = {"accessModes": ["ReadOnlyMany"], "storageClassName": ""}
        folder = {"path": str(REPOSITORY / "models" / "tiny"), "type": "Directory"}
        volume: Json = {
            "apiVersion": "v1",
            "kind": "PersistentVolume",
            "metadata": {"name": name},
            "spec": common
            | {"capacity": {"storage": "1Gi"}, "hostPath": folder, "persistentVolumeReclaimPolicy": "Retain"},
        }
        claim: Json = {
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "metadata": {"name": name, "namespace": self.deployment.namespace},
            "spec": common | {"volumeName": name, "resources": {"requests": {"storage": "1Gi"}}},
        }
        self.kubernetes.apply(volume, claim)
        try:
            yield
        finally:
            self.kubectl("delete", "persistentvolumeclaim", name, "--ignore-not-found")
            self.kubectl("delete", "persistentvolume", name, "--ignore-not-found")

    def kill_operators(self) -> None:
        """End every operator pod at once, without a chance to tidy up."""
        self.kubernetes.kubectl(
            "delete",
            "pods",
            f"--namespace={SYSTEM_NAMESPACE}",
            f"--selector={OPERATOR_PODS}",
            "--force",
            "--grace-period=0",
        )

    def writes_of_operator(self) -> list[str]:
        """Every write that the operator asked for so far, its Lease's renewals left out: verb and address."""
        found = []
        for line in self.cluster.audit_log.read_text().splitlines():
            entry: dict[str, Any] = json.loads(line)
            lease = entry.get("objectRef", {}).get("resource") == "leases"
            if entry["user"]["username"] == OPERATOR and entry["verb"] in _WRITES and not lease:
                found.append(f"{entry['verb']} {entry['requestURI']}")
        return found

    def ray_requests(self) -> int:
        """Requests for its REST interface that the head has answered so far, by its own count."""
        head = self.deployment.pods("head")[0]["metadata"]["name"]
        return int(self.exec(head, "head", "python3", "-c", _RAY_REQUESTS))

    def child_templates(self) -> dict[str, Json]:
        """The pod template of each ReplicaSet of the deployment, and its stored revisions."""
        selector = f"serving.aixcoder.io/deployment={self.deployment.name}"
        namespace = f"--namespace={self.deployment.namespace}"
        sets = self.kubernetes.get("replicasets", namespace, f"--selector={selector}").get("items", [])
        revisions = self.kubernetes.get("controllerrevisions", namespace, f"--selector={selector}").get("items", [])
        return {item["metadata"]["name"]: item["spec"]["template"] for item in sets} | {
            f"revision {item['metadata']['name']}": item["data"] for item in revisions
        }

    @contextmanager
    def operator_of_another_version(self) -> Iterator[None]:
        """An operator with another image, other templates and another serving image; rolled back at the end."""
        made = aixcoder.build(tag="another", environment={"ANOTHER_VERSION": "1"})
        self.cluster.load([made.control, made.serving])
        values = copy.deepcopy(self.values)
        values["image"] = {"control": {"tag": "another"}, "serving": {"tag": "another"}}
        values["serving"]["env"] = [{"name": "ANOTHER_DEFAULT", "value": "1"}]
        self.upgrade(values)
        try:
            yield
        finally:
            self.helm("rollback", RELEASE, f"--namespace={SYSTEM_NAMESPACE}", "--wait", "--timeout=5m")

    def upgrade(self, values: Json) -> None:
        """`helm upgrade` with these values."""
        self.kubernetes.helm(
            "upgrade", RELEASE, str(CHART), f"--namespace={SYSTEM_NAMESPACE}", "--wait", "--timeout=5m", "--values=-",
            stdin=json.dumps(values),
        )  # fmt: skip
