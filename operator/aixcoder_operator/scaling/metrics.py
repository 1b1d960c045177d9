"""What the scaling of each deployment goes by and what it decides, for Prometheus."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

_PREFIX = "aixcoder_operator_autoscaling_"
_OF = ("namespace", "name")
_GAUGES = {
    "wish": "Replicas that the last second's load needs, with no hold and no bounds.",
    "desired": "Replicas that are wished for.",
    "max_replicas": "Replicas that spec.autoscaling allows at most.",
    "ready_replicas": "Replicas that are ready.",
    "queued": "Requests that wait for a replica.",
    "running": "Requests that have one.",
    "arrivals_per_second": "Requests that arrive, the mean of the last five seconds.",
    "busiest_arrivals_per_second": "Requests that arrive in the busiest seconds that are remembered.",
    "memory_seconds": "For how long the busiest seconds are remembered.",
    "work_seconds": "Seconds of a replica that a request takes.",
    "margin": "Share that is added, or taken off, by how many were late.",
    "cold_start_seconds": "What a start is taken to last: as measured, or two minutes before it was.",
    "gateways_unheard": "Gateways that should tell their load and do not; nothing is scaled down meanwhile.",
}
_START_BUCKETS = (5, 10, 15, 20, 30, 45, 60, 90, 120, 180, 300, 600, 1200)
_LOOP_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5)


class ScalingMetrics:
    """Kept in `registry`. Times in seconds."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._gauges = {name: Gauge(_PREFIX + name, text, _OF, registry=registry) for name, text in _GAUGES.items()}
        self._decisions = Counter(
            _PREFIX + "decisions", "Changes of the wished replicas.", [*_OF, "direction"], registry=registry
        )
        self._burst_to_ready = Histogram(
            _PREFIX + "burst_to_ready_seconds",
            "From a decision for more replicas to the first new one that is ready.",
            _OF,
            buckets=_START_BUCKETS,
            registry=registry,
        )
        self._loop = Histogram(
            _PREFIX + "loop_seconds",
            "How long it takes to ask all gateways and to decide for all deployments.",
            buckets=_LOOP_BUCKETS,
            registry=registry,
        )

    def begin(self, namespace: str, name: str) -> None:
        """Tell of a deployment from now on, counters at 0: the first growth from nothing would not be seen."""
        self._burst_to_ready.labels(namespace, name)
        for direction in ("up", "down"):
            self._decisions.labels(namespace, name, direction)

    def state(self, namespace: str, name: str, **values: float) -> None:
        """Set gauges by their names."""
        for gauge, value in values.items():
            self._gauges[gauge].labels(namespace, name).set(value)

    def decided(self, namespace: str, name: str, direction: str) -> None:
        """Count a change; `direction` is `up` or `down`."""
        self._decisions.labels(namespace, name, direction).inc()

    def became_ready(self, namespace: str, name: str, seconds: float) -> None:
        """Count the time from a decision for more to the first new replica."""
        self._burst_to_ready.labels(namespace, name).observe(seconds)

    def looped(self, seconds: float) -> None:
        """Count one look at everything."""
        self._loop.observe(seconds)

    def forget(self, namespace: str, name: str) -> None:
        """Tell no more of a deployment that is gone."""
        of = {"namespace": namespace, "name": name}
        for metric in (*self._gauges.values(), self._decisions, self._burst_to_ready):
            metric.remove_by_labels(of)
