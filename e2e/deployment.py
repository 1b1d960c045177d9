"""One AixcoderDeployment on a real cluster, as a test sees and changes it."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from e2e.demo.kubernetes import Json, Kubernetes
from e2e.demo.readiness import KIND, condition, is_ready

GUARD_SECONDS = 240.0
"""When a wait counts as hung: about 5 times what creation takes."""


class NeverError(AssertionError):
    """What was waited for did not come; the message shows what there was instead."""


@dataclass(frozen=True)
class Deployment:
    """The resource `name` in `namespace`."""

    kubernetes: Kubernetes
    namespace: str
    name: str

    def get(self) -> Json:
        """The resource; {} where there is none."""
        return self.kubernetes.get(KIND, self.name, f"--namespace={self.namespace}")

    def apply(self, spec: Json) -> None:
        """Apply it with this spec, as a user would with a file."""
        resource = {
            "apiVersion": "serving.aixcoder.io/v1alpha1",
            "kind": "AixcoderDeployment",
            "metadata": {"name": self.name, "namespace": self.namespace},
            "spec": spec,
        }
        self.kubernetes.kubectl("apply", "--filename=-", stdin=json.dumps(resource))

    def patch(self, patch: Json) -> None:
        """Merge `patch` into it."""
        self.kubernetes.kubectl(
            "patch", KIND, self.name, f"--namespace={self.namespace}", "--type=merge", f"--patch={json.dumps(patch)}"
        )

    def delete(self) -> None:
        """Delete it and wait until it is gone."""
        self.kubernetes.kubectl("delete", KIND, self.name, f"--namespace={self.namespace}", "--ignore-not-found")

    def scale(self, replicas: int) -> None:
        """`kubectl scale`."""
        self.kubernetes.kubectl("scale", KIND, self.name, f"--namespace={self.namespace}", f"--replicas={replicas}")

    def condition(self, kind: str) -> Json:
        """Its condition of that type; {} where it has none."""
        found: Json = condition(self.get(), kind)
        return found

    def status(self) -> Json:
        """Its status."""
        found: Json = self.get().get("status", {})
        return found

    def serving(self) -> str | None:
        """The unit with the traffic."""
        weights: dict[str, int] = self.status().get("traffic", {}).get("weights", {})
        return next(iter(weights), None)

    def pods(self, component: str | None = None) -> list[Json]:
        """Its pods, heads and workers or one of the two, those that are going left out."""
        return [pod for pod in self.all_pods(component) if not pod["metadata"].get("deletionTimestamp")]

    def all_pods(self, component: str | None = None) -> list[Json]:
        """Its pods, those that are going too."""
        selector = f"serving.aixcoder.io/deployment={self.name}"
        if component:
            selector += f",app.kubernetes.io/component={component}"
        listed = self.kubernetes.get("pods", f"--namespace={self.namespace}", f"--selector={selector}")
        items: list[Json] = listed.get("items", [])
        return items

    def children(self) -> list[str]:
        """Names of all that carries its label, in every kind that it could be."""
        kinds = (
            "pods,services,endpointslices,replicasets,statefulsets,controllerrevisions,secrets,poddisruptionbudgets,"
            "networkpolicies,persistentvolumeclaims"
        )
        selector = f"--selector=serving.aixcoder.io/deployment={self.name}"
        out = self.kubernetes.kubectl("get", kinds, f"--namespace={self.namespace}", selector, "--output=name")
        return out.split()

    def wait(self, what: str, reached: Callable[[Json], bool], *, seconds: float = GUARD_SECONDS) -> float:
        """Wait until the resource is as `reached` wants; returns the seconds it took. Raises NeverError."""
        start = time.monotonic()
        while True:
            resource = self.get()
            if resource and reached(resource):
                return time.monotonic() - start
            if time.monotonic() - start > seconds:
                pods = self.kubernetes.kubectl("get", "pods", f"--namespace={self.namespace}", "--output=wide")
                status = json.dumps(resource.get("status", {}), indent=1)
                raise NeverError(f"{self.name} never {what} within {seconds} s\n{status}\n{pods}")
            time.sleep(1.0)  # each look starts a kubectl, on the machine that the test loads

    def wait_ready(self, *, seconds: float = GUARD_SECONDS) -> float:
        """Wait until all of what is wished for now is ready."""
        return self.wait("was wholly ready", is_wholly_ready, seconds=seconds)

    def wait_reason(self, kind: str, reason: str, *, seconds: float = GUARD_SECONDS) -> Json:
        """Wait until the condition `kind` has that reason, and return it."""
        self.wait(f"had {kind} {reason}", lambda found: condition(found, kind).get("reason") == reason, seconds=seconds)
        return self.condition(kind)


def is_wholly_ready(resource: Json) -> bool:
    """Ready for its generation, nothing being worked on, and nothing left of what was before."""
    status: dict[str, Any] = resource.get("status", {})
    return (
        is_ready(resource)
        and status.get("observedGeneration") == resource["metadata"]["generation"]
        and condition(resource, "Ready").get("reason") in ("AllReplicasReady", "ScaledToZero", "Suspended")
        and not condition(resource, "Reconciling")
        and len(status.get("revisions", [])) <= 1
    )
