"""Deployments that are scaled, as reconcile sees them, and a loop that asks gateways in the same process."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Any

from prometheus_client import CollectorRegistry

from aixcoder_operator.api.children import Children
from aixcoder_operator.api.deployment import read
from aixcoder_operator.api.objects import Object
from aixcoder_operator.plan import names
from aixcoder_operator.plan.observed import Observed, ReplicaView
from aixcoder_operator.scaling.history import History
from aixcoder_operator.scaling.loop import Autoscaler
from aixcoder_operator.scaling.metrics import ScalingMetrics
from aixcoder_serving.protocol import ReplicaStats
from tests.unit.scaling.gateways import World

UNIT = "demo-aaaaaa"


def text(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def worker(name: str, made: float, ready: float | None = None) -> Object:
    """Made, and ready since then."""
    condition = {"type": "Ready", "status": str(ready is not None), "lastTransitionTime": text(ready or made)}
    labels = {names.UNIT_LABEL: UNIT, names.REVISION_LABEL: UNIT, names.COMPONENT_LABEL: names.WORKER}
    return {
        "kind": "Pod",
        "metadata": {
            "name": name,
            "uid": f"uid-{name}",
            "labels": labels,
            "creationTimestamp": text(made),
            "ownerReferences": [{"uid": "uid-set"}],
        },
        "status": {"phase": "Running", "startTime": text(made), "conditions": [condition]},
    }


def sight(
    *workers: Object,
    name: str = "demo",
    uid: str = "",
    autoscaling: Object | None = None,
    status: Object | None = None,
    stats: ReplicaStats | None = None,
    **spec: Any,
) -> Observed:
    """One deployment with spec.autoscaling, up to 20 replicas where not said otherwise, as reconcile has seen it."""
    parent = {
        "apiVersion": "serving.aixcoder.io/v1alpha1",
        "kind": "AixcoderDeployment",
        "metadata": {
            "namespace": "ns",
            "name": name,
            "uid": uid or f"uid-{name}",
            "creationTimestamp": text(0),
            "resourceVersion": "1",
            "generation": 1,
        },
        "spec": {
            "model": {"source": {"image": {"reference": "example/model:1"}}},
            "engine": {"device": "cpu", "maxConcurrentSequences": 8},
            "autoscaling": {"maxReplicas": 20} if autoscaling is None else autoscaling,
            **spec,
        },
        "status": {"autoscaling": status} if status else {},
    }
    if autoscaling == {}:
        del parent["spec"]["autoscaling"]  # type: ignore[attr-defined]
    labels = {names.UNIT_LABEL: UNIT, names.REVISION_LABEL: UNIT}
    replica_set = {
        "kind": "ReplicaSet",
        "metadata": {"uid": "uid-set", "name": UNIT, "labels": labels, "ownerReferences": [{"uid": f"uid-{name}"}]},
        "spec": {"replicas": len(workers)},
    }
    return Observed(
        read(parent),
        datetime.now(UTC),
        Children(pods=workers, replica_sets=(replica_set,)),
        replicas={} if stats is None else {pod["metadata"]["name"]: ReplicaView(stats=stats) for pod in workers},
    )


class Loop:
    """An `Autoscaler` that looks at a `World` of gateways. `changes`: the keys that it told, with the second."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.registry = CollectorRegistry()
        self.autoscaler = Autoscaler(self, ScalingMetrics(self.registry), clock=lambda: world.now)
        self.changes: list[tuple[int, str]] = []

    @property
    def history(self) -> History:
        """The world's."""
        return self.world.history

    async def collect(self) -> None:
        """One round."""
        self.world.ask()

    def unheard(self) -> list[str]:
        """As a collector tells it."""
        return self.world.history.unheard(self.world.now, self.world.ready) if self.world.ready else ["?"]

    async def end(self) -> None:
        """Nothing is under way."""

    def learn(self, observed: Observed) -> None:
        """As reconcile does."""
        self.autoscaler.learn(observed)
        self.autoscaler.measure(observed)

    def play(self, seconds: int, **requests: int) -> None:
        """Seconds go by, with so many requests at each address; the loop looks after each."""
        for _ in range(seconds):
            self.world.bring(**requests)
            self.world.now += 0.25
            asyncio.run(self.autoscaler.look(lambda key: self.changes.append((round(self.world.now), key))))
            self.world.now -= 0.25

    def desired(self, observed: Observed) -> int:
        """As it is decided now."""
        decided = self.autoscaler.decided(observed.deployment)
        assert decided is not None
        return decided.desired

    def value(self, metric: str, **labels: str) -> float | None:
        """Of a metric of `ns/demo` where not said otherwise."""
        name = f"aixcoder_operator_autoscaling_{metric}"
        return self.registry.get_sample_value(name, {"namespace": "ns", "name": "demo", **labels})
