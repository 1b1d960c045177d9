"""What Prometheus reads of a gateway."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

CONTENT_TYPE = CONTENT_TYPE_LATEST

# Seconds. 0.2 and 0.5 are what users of editors feel (Copilot's mean, llama.vscode's patience).
_FIRST_BYTE_BUCKETS = (0.01, 0.025, 0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 2.0, 5.0, 10.0, 30.0)


class Metrics:
    """The metrics of one gateway, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "aixcoder_gateway_requests",
            "Completion requests that have ended, by model and outcome.",
            ["model", "outcome"],
            registry=self.registry,
        )
        self.in_flight = Gauge(
            "aixcoder_gateway_requests_in_flight", "Completion requests being served.", registry=self.registry
        )
        self.first_byte = Histogram(
            "aixcoder_gateway_first_byte_seconds",
            "Time from a request's headers to the first byte of its completion.",
            ["model"],
            buckets=_FIRST_BYTE_BUCKETS,
            registry=self.registry,
        )
        self.retries = Counter(
            "aixcoder_gateway_upstream_retries",
            "Requests sent to a replica again, by what happened to them at the one before.",
            ["reason"],
            registry=self.registry,
        )
        self.tokens = Counter(
            "aixcoder_gateway_tokens",
            "Tokens of completions that ended well.",
            ["model", "kind"],
            registry=self.registry,
        )

    def page(self) -> bytes:
        """The page /metrics."""
        return generate_latest(self.registry)
