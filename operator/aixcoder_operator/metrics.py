"""The operator's Prometheus metrics."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from aixcoder_operator.scaling.metrics import ScalingMetrics

_RECONCILE_BUCKETS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_REQUEST_BUCKETS = (0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)


class Metrics:
    """One set of metrics in a registry of its own. Times in seconds."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._reconciles = Counter(
            "aixcoder_operator_reconciles", "Finished reconciles.", ["result"], registry=self._registry
        )
        self._errors = Counter(
            "aixcoder_operator_reconcile_errors",
            "Failed reconciles by type of error.",
            ["error"],
            registry=self._registry,
        )
        self._duration = Histogram(
            "aixcoder_operator_reconcile_seconds",
            "How long a reconcile takes.",
            buckets=_RECONCILE_BUCKETS,
            registry=self._registry,
        )
        self._queue_length = Gauge(
            "aixcoder_operator_queue_length", "Resources that are due and wait for a worker.", registry=self._registry
        )
        self._leader = Gauge(
            "aixcoder_operator_leader", "1 where this process leads, 0 where it stands by.", registry=self._registry
        )
        self._requests = Counter(
            "aixcoder_operator_api_requests",
            "Requests to the API server; code 0 where no answer came.",
            ["verb", "kind", "code"],
            registry=self._registry,
        )
        self._request_seconds = Histogram(
            "aixcoder_operator_api_request_seconds",
            "How long a request to the API server takes.",
            ["verb"],
            buckets=_REQUEST_BUCKETS,
            registry=self._registry,
        )
        self.scaling = ScalingMetrics(self._registry)

    def reconciled(self, result: str, seconds: float) -> None:
        """Count one reconcile; `result` is `done`, `requeued` or `failed`."""
        self._reconciles.labels(result).inc()
        self._duration.observe(seconds)

    def failed(self, error: Exception) -> None:
        """Count one error by its type."""
        self._errors.labels(type(error).__name__).inc()

    def requested(self, verb: str, kind: str, code: int, seconds: float) -> None:
        """Count one request to the API server; see `RequestObserver`."""
        self._requests.labels(verb, kind, str(code)).inc()
        self._request_seconds.labels(verb).observe(seconds)

    def leading(self, leads: bool) -> None:
        """Say whether this process leads."""
        self._leader.set(int(leads))

    def watch_queue(self, length: Callable[[], int]) -> None:
        """Read the queue's length from `length` at each scrape."""
        self._queue_length.set_function(lambda: float(length()))

    def page(self) -> bytes:
        """The metrics in Prometheus' text format."""
        return generate_latest(self._registry)
