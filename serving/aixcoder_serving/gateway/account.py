"""What became of one request: its line in the log and its share of the metrics. Never holds a prompt or an answer."""

from __future__ import annotations

import logging
import re
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from aixcoder_serving.gateway.dialects import Usage
from aixcoder_serving.gateway.exchange import Exchange
from aixcoder_serving.gateway.flight import Flight
from aixcoder_serving.gateway.metrics import Metrics
from aixcoder_serving.gateway.problems import Problem

logger = logging.getLogger(__name__)

_OUTCOMES = {
    "overloaded": "shed",
    "no_replica": "shed",
    "not_synced": "shed",
    "over_limit": "limit",
    "replica_lost": "upstream_error",
    "replica_failed": "upstream_error",
    "replica_silent": "upstream_error",
}
"""What a problem's code is to those who count; another one stands for itself."""

# W3C Trace Context: version, trace id, parent id, flags. The highest version and ids of zeros are not valid.
_TRACEPARENT = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")


class Account:
    """One request's account. `id` names it to the client, to the replica and in the log."""

    def __init__(self, dialect: str, headers: Mapping[str, str]) -> None:
        self.id = f"cmpl-{uuid.uuid4().hex}"
        self.dialect = dialect
        self.began_at = time.time()
        trace = _TRACEPARENT.fullmatch(headers.get("traceparent", ""))  # it ends here: a replica knows the id
        self.trace = trace[1] if trace else None
        self.key: str | None = None
        self.model = ""
        self.stream = False
        self.flights: list[Flight] = []
        # What stands where the server cuts a request off at the end of its grace.
        self.outcome = "aborted"
        self.code: str | None = None
        self._began = time.monotonic()
        self._first_byte: float | None = None
        self._usage: Usage | None = None

    @property
    def headers(self) -> list[tuple[str, str]]:
        """What every answer says of its request."""
        return [("x-request-id", self.id)]

    def used(self) -> Usage:
        """Tokens so far, those of a request that ended early too; the prompt of each sample is counted."""
        all_ = [flight.used for flight in dict.fromkeys(self.flights)]  # greedy samples share one
        return Usage(
            sum(used.prompt_tokens for used in all_),
            sum(used.completion_tokens for used in all_),
            sum(used.cached_tokens for used in all_),
        )

    def tokens_used(self) -> int:
        """Tokens so far, of prompts and completions."""
        used = self.used()
        return used.prompt_tokens + used.completion_tokens

    def first_byte(self) -> None:
        """The first byte of a completion goes out now."""
        self._first_byte = time.monotonic() - self._began

    def completed(self, usage: Usage) -> None:
        """The client has the whole completion."""
        self.outcome = "completed"
        self._usage = usage

    def ended(self, problem: Problem) -> None:
        """It ended in an error, or was superseded."""
        self.code = problem.code
        self.outcome = _OUTCOMES.get(problem.code, problem.code)

    def client_gone(self) -> None:
        """The client left; the outcome says how far its request was."""
        self.outcome = f"client_gone_{self.flights[0].phase}" if self.flights else "client_gone"

    @contextmanager
    def kept(self, metrics: Metrics, exchange: Exchange) -> Iterator[None]:
        """Count the request as in flight while the block runs, then write it down."""
        metrics.in_flight.inc()
        try:
            yield
        finally:
            metrics.in_flight.dec()
            metrics.requests.labels(self.model, self.outcome).inc()
            metrics.duration.labels(self.model).observe(time.monotonic() - self._began)
            if self._first_byte is not None:
                metrics.first_byte.labels(self.model).observe(self._first_byte)
            for flight in self.flights:
                metrics.waited.labels(self.model).observe(flight.waited_seconds)
            if self._usage is not None:
                metrics.tokens.labels(self.model, "input").observe(self._usage.prompt_tokens)
                metrics.tokens.labels(self.model, "output").observe(self._usage.completion_tokens)
            logger.info("request", extra={"fields": self._line(exchange)})

    def _line(self, exchange: Exchange) -> dict[str, str | int | float | None]:
        usage = self._usage or self.used()
        return {
            "request_id": self.id,
            "trace_id": self.trace,
            "dialect": self.dialect,
            "key": self.key,
            "model": self.model,
            "stream": self.stream,
            "status": exchange.status or None,
            "outcome": self.outcome,
            "code": self.code,
            "retries": sum(flight.retries for flight in self.flights),
            "prompt_tokens": usage.prompt_tokens,
            "completion_tokens": usage.completion_tokens,
            "cached_tokens": usage.cached_tokens,
            "waited_ms": round(max((flight.waited_seconds for flight in self.flights), default=0.0) * 1000, 1),
            "first_byte_ms": None if self._first_byte is None else round(self._first_byte * 1000, 1),
            "total_ms": round((time.monotonic() - self._began) * 1000, 1),
        }
