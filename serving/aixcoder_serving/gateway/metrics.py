"""What Prometheus reads of a gateway: OpenTelemetry's names for generative AI where they fit, with Prometheus' rules.

gen_ai.server.request.duration, gen_ai.server.time_to_first_token and gen_ai.client.token.usage of the semantic
conventions 1.37.
"""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

CONTENT_TYPE = CONTENT_TYPE_LATEST

# 0.2 and 0.5 are what users of editors feel (Copilot's mean, llama.vscode's patience).
_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 2.0, 5.0, 10.0, 30.0)
_TOKENS = (1, 4, 16, 64, 256, 1024, 4096, 16384, 65536)


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
        self.replicas_heard = Gauge(
            "aixcoder_gateway_replicas_heard", "Replicas that tell this gateway their load.", registry=self.registry
        )
        self.duration = Histogram(
            "gen_ai_server_request_duration_seconds",
            "Time from a request's headers to its end, whatever became of it.",
            ["gen_ai_request_model"],
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.first_byte = Histogram(
            "gen_ai_server_time_to_first_token_seconds",
            "Time from a request's headers to the first byte of its completion.",
            ["gen_ai_request_model"],
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.waited = Histogram(
            "aixcoder_gateway_waited_seconds",
            "Time that completions waited for a replica, those whose client left meanwhile too.",
            ["model"],
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.retries = Counter(
            "aixcoder_gateway_upstream_retries",
            "Requests sent to another replica, by what happened to them at the one before.",
            ["reason"],
            registry=self.registry,
        )
        self.refusals = Counter(
            "aixcoder_gateway_upstream_refusals",
            "Requests that a replica had no room for: they went back to their place in the queue.",
            registry=self.registry,
        )
        self.tokens = Histogram(
            "gen_ai_client_token_usage",
            "Tokens of completions that ended well.",
            ["gen_ai_request_model", "gen_ai_token_type"],
            buckets=_TOKENS,
            registry=self.registry,
        )

    def page(self) -> bytes:
        """The page /metrics."""
        return generate_latest(self.registry)
