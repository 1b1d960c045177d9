"""How long from `kubectl apply` of an AixcoderDeployment to Ready, and where that time goes.

    python -m benchmarks.create_to_ready [--file examples/tiny-cpu.yaml] [--namespace aixcoder-demo] [--runs 3]

Runs against the cluster that KUBECONFIG names, with the operator and the gateway installed. Prints one JSON object a
line: a part with the seconds since creation (`at`) and since the part before it (`took`), and a last line for each
run. A run makes a resource of its own and deletes it.

Seconds are those at which a watch, or for Ray and the replica a poll each quarter of a second, showed the change
here: the time stamps in the objects themselves have whole seconds only.
"""

from __future__ import annotations

import argparse
import base64
import json
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml
from kubernetes import client, config, dynamic

GROUP = "serving.aixcoder.io"
API_VERSION = f"{GROUP}/v1alpha1"
KIND = "AixcoderDeployment"
DEPLOYMENT_LABEL = f"{GROUP}/deployment"
UNIT_LABEL = f"{GROUP}/unit"
COMPONENT_LABEL = "app.kubernetes.io/component"
SERVE_PORT, REPLICA_PORT, GATEWAY_INTERNAL_PORT = 8265, 30000, 9090
POLL_SECONDS = 0.25
REQUEST_SECONDS = 2.0

# In the order in which they happen. The head comes up while the worker is scheduled and started.
PARTS = (
    "head pod created",
    "head pod scheduled",
    "head pod running",
    "worker pod scheduled",
    "worker pod running",
    "head pod ready",
    "replica asked for",
    "worker joined Ray",
    "model loaded",
    "Serve running",
    "worker pod ready",
    "routable",
    "Ready",
)

Json = dict[str, Any]


class Timeline:
    """When each part was first seen, in seconds since `start`. Any thread may mark."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._start = clock()
        self._seen: dict[str, float] = {}
        self.finished = threading.Event()

    def mark(self, parts: Iterable[str]) -> None:
        """Note the parts that were not seen before; `Ready` ends the run."""
        at = self._clock() - self._start
        for part in parts:
            self._seen.setdefault(part, at)
        if "Ready" in self._seen:
            self.finished.set()

    def seen(self) -> Mapping[str, float]:
        """Part → seconds since the start."""
        return dict(self._seen)


def is_true(item: Json, condition: str) -> bool:
    """Whether the object has the condition with status True."""
    conditions = item.get("status", {}).get("conditions") or []
    return any(found["type"] == condition and found["status"] == "True" for found in conditions)


def pod_parts(pod: Json) -> set[str]:
    """The parts that a head's or worker's pod shows as done."""
    component = pod["metadata"].get("labels", {}).get(COMPONENT_LABEL)
    statuses = pod.get("status", {}).get("containerStatuses") or []
    done = {"created"}
    if is_true(pod, "PodScheduled"):
        done.add("scheduled")
    if statuses and all("running" in status.get("state", {}) for status in statuses):
        done.add("running")
    if is_true(pod, "Ready"):
        done.add("ready")
    return {f"{component} pod {state}" for state in done} & set(PARTS)


def resource_parts(resource: Json) -> set[str]:
    """`Ready` once the resource says it of its present generation."""
    current = resource.get("status", {}).get("observedGeneration") == resource["metadata"]["generation"]
    return {"Ready"} if current and is_true(resource, "Ready") else set()


def ray_parts(nodes: Json, applications: Json) -> set[str]:
    """What a Ray head tells: `nodes` of GET /api/v0/nodes, `applications` of GET /api/serve/applications/."""
    parts: set[str] = set()
    listed = nodes.get("data", {}).get("result", {}).get("result", [])
    if any(node["state"] == "ALIVE" and not node["is_head_node"] for node in listed):
        parts.add("worker joined Ray")
    for application in applications.get("applications", {}).values():
        replicas = [
            replica["state"]
            for deployment in application.get("deployments", {}).values()
            for replica in deployment.get("replicas", [])
        ]
        if replicas:
            parts.add("replica asked for")
        if application.get("status") == "RUNNING" and "RUNNING" in replicas:
            parts.add("Serve running")
    return parts


def route_parts(routes: Json, name: str) -> set[str]:
    """`routable` once a gateway's GET /routes has an endpoint of the deployment that has traffic."""
    for route in routes.get("routes", []):
        if route["name"] == name and route["traffic_version"] > 0 and any(route["endpoints"].values()):
            return {"routable"}
    return set()


def rows(run: int, seen: Mapping[str, float]) -> list[Json]:
    """The lines to print: the parts as they happened, then the whole."""
    lines: list[Json] = []
    before = 0.0
    for part, at in sorted(seen.items(), key=lambda item: (item[1], PARTS.index(item[0]))):
        lines.append({"run": run, "part": part, "at": round(at, 2), "took": round(at - before, 2)})
        before = at
    missing = [part for part in PARTS if part not in seen]
    lines.append({"run": run, "create_to_ready_seconds": round(seen.get("Ready", before), 2), "not_seen": missing})
    return lines


class Measurement:
    """One run: watches and polls that mark a timeline until the resource is Ready."""

    def __init__(self, api: client.ApiClient, namespace: str, name: str) -> None:
        self._api = api
        self._dynamic = dynamic.DynamicClient(api)
        self._namespace = namespace
        self._name = name
        self._timeline = Timeline()
        self._token = ""

    def run(self, body: Json, guard_seconds: float) -> Mapping[str, float]:
        """Create the resource, follow it to Ready, delete it. Raises TimeoutError where it hangs."""
        resources = self._dynamic.resources.get(api_version=API_VERSION, kind=KIND)
        pods = self._dynamic.resources.get(api_version="v1", kind="Pod")
        mine = {"field_selector": f"metadata.name={self._name}"}
        children = {"label_selector": f"{DEPLOYMENT_LABEL}={self._name}"}
        followers = [
            threading.Thread(target=self._watch, args=(resources, resource_parts, mine), daemon=True),
            threading.Thread(target=self._watch, args=(pods, pod_parts, children), daemon=True),
            threading.Thread(target=self._poll, args=(self._ask_ray, "head pod running", "Serve running"), daemon=True),
            threading.Thread(
                target=self._poll, args=(self._ask_replica, "worker pod running", "model loaded"), daemon=True
            ),
            threading.Thread(target=self._poll, args=(self._ask_gateways, "Serve running", "routable"), daemon=True),
        ]
        self._timeline = Timeline()
        resources.create(body=body, namespace=self._namespace)
        try:
            for follower in followers:
                follower.start()
            if not self._timeline.finished.wait(guard_seconds):
                raise TimeoutError(f"{self._name} was not Ready after {guard_seconds:.0f} s")
            return self._timeline.seen()
        finally:
            self._timeline.finished.set()
            resources.delete(name=self._name, namespace=self._namespace)
            self._wait_until_gone(pods, children, guard_seconds)

    def _watch(self, resource: Any, parts: Callable[[Json], set[str]], selector: Mapping[str, str]) -> None:
        while not self._timeline.finished.is_set():
            for event in resource.watch(namespace=self._namespace, timeout=30, **selector):
                self._timeline.mark(parts(event["raw_object"]))
                if self._timeline.finished.is_set():
                    return

    def _poll(self, ask: Callable[[], set[str]], after: str, until: str) -> None:
        """Mark what `ask` says, from when the part `after` is seen until the part `until` is."""
        # A ready pod is routable and Ready a moment later: the last poll is the quickest.
        seconds = POLL_SECONDS / 5 if until == "routable" else POLL_SECONDS
        while not self._timeline.finished.wait(seconds):
            seen = self._timeline.seen()
            if until in seen:
                return
            if after in seen:
                self._timeline.mark(ask())

    def _ask_replica(self) -> set[str]:
        pods = self._pods(f"{DEPLOYMENT_LABEL}={self._name},{COMPONENT_LABEL}=worker", self._namespace)
        phases = [self._proxy(self._namespace, pod, REPLICA_PORT, "ready").get("phase") for pod in pods]
        return {"model loaded"} if "ready" in phases else set()

    def _ask_gateways(self) -> set[str]:
        pages = [self._proxy(space, pod, GATEWAY_INTERNAL_PORT, "routes") for pod, space in self._gateways()]
        return {part for page in pages for part in route_parts(page, self._name)}

    def _ask_ray(self) -> set[str]:
        parts: set[str] = set()
        token = {"X-Ray-Authorization": f"Bearer {self._ray_token()}"}
        for pod in self._pods(f"{DEPLOYMENT_LABEL}={self._name},{COMPONENT_LABEL}=head", self._namespace):
            nodes = self._proxy(self._namespace, pod, SERVE_PORT, "api/v0/nodes", token)
            applications = self._proxy(self._namespace, pod, SERVE_PORT, "api/serve/applications/", token)
            parts |= ray_parts(nodes, applications)
        return parts

    def _ray_token(self) -> str:
        if not self._token:
            secret = client.CoreV1Api(self._api).read_namespaced_secret(f"{self._name}-ray", self._namespace)
            self._token = base64.b64decode(secret.data["token"]).decode()
        return self._token

    def _pods(self, selector: str, namespace: str) -> list[str]:
        found = client.CoreV1Api(self._api).list_namespaced_pod(namespace, label_selector=selector)
        return [pod.metadata.name for pod in found.items]

    def _gateways(self) -> list[tuple[str, str]]:
        selector = f"app.kubernetes.io/name=aixcoder,{COMPONENT_LABEL}=gateway"
        found = client.CoreV1Api(self._api).list_pod_for_all_namespaces(label_selector=selector)
        return [(pod.metadata.name, pod.metadata.namespace) for pod in found.items]

    def _proxy(self, namespace: str, pod: str, port: int, path: str, headers: Mapping[str, str] | None = None) -> Json:
        """GET from a pod through the API server; {} while it does not answer with JSON."""
        request = self._api.param_serialize(
            method="GET",
            resource_path=f"/api/v1/namespaces/{namespace}/pods/{pod}:{port}/proxy/{path}",
            header_params=dict(headers or {}),
            auth_settings=["BearerToken"],
        )
        try:
            answer = self._api.call_api(*request, _request_timeout=REQUEST_SECONDS)
            found: Json = json.loads(answer.read())
        except (client.ApiException, OSError, ValueError):
            return {}
        return found

    def _wait_until_gone(self, pods: Any, selector: Mapping[str, str], guard_seconds: float) -> None:
        deadline = time.monotonic() + guard_seconds
        while pods.get(namespace=self._namespace, **selector).items:
            if time.monotonic() > deadline:
                raise TimeoutError(f"pods of {self._name} are still there {guard_seconds:.0f} s after it was deleted")
            time.sleep(POLL_SECONDS)


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.create_to_ready", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--file", type=Path, default=Path("examples/tiny-cpu.yaml"), help="the resource to create")
    parser.add_argument("--namespace", default="aixcoder-demo")
    parser.add_argument("--runs", type=int, default=1)
    parser.add_argument("--guard-seconds", type=float, default=600.0, help="when a run counts as hung")
    arguments = parser.parse_args()
    documents = [document for document in yaml.safe_load_all(arguments.file.read_text()) if document]
    body = next(document for document in documents if document["kind"] == KIND)
    config.load_kube_config()
    for run in range(1, arguments.runs + 1):
        name = f"measured-{run}"
        body["metadata"] = {**body["metadata"], "name": name, "namespace": arguments.namespace}
        measurement = Measurement(client.ApiClient(), arguments.namespace, name)
        for row in rows(run, measurement.run(body, arguments.guard_seconds)):
            print(json.dumps(row), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
