"""What became of one request: its line in the log and its share of the metrics. Never holds a prompt or an answer."""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager

from aixcoder_serving.gateway.exchange import Exchange
from aixcoder_serving.gateway.metrics import Metrics
from aixcoder_serving.protocol import Finished

logger = logging.getLogger(__name__)


class Account:
    """One request's account. `id` names it to the client, to the replica and in the log."""

    def __init__(self, dialect: str) -> None:
        self.id = f"cmpl-{uuid.uuid4().hex}"
        self.dialect = dialect
        self.began_at = time.time()
        self._began = time.monotonic()
        self._first_byte: float | None = None
        self.key: str | None = None
        self.model = ""
        self.stream = False
        self.retries = 0
        # What stands where the server cuts a request off at the end of its grace.
        self.outcome = "aborted"
        self._finished: Finished | None = None

    @property
    def headers(self) -> list[tuple[str, str]]:
        """What every answer says of its request."""
        return [("x-request-id", self.id)]

    def first_byte(self) -> None:
        """The first byte of a completion goes out now."""
        self._first_byte = time.monotonic() - self._began

    def completed(self, finished: Finished) -> None:
        """The client has the whole completion."""
        self.outcome = "completed"
        self._finished = finished

    @contextmanager
    def kept(self, metrics: Metrics, exchange: Exchange) -> Iterator[None]:
        """Count the request as in flight while the block runs, then write it down."""
        metrics.in_flight.inc()
        try:
            yield
        finally:
            metrics.in_flight.dec()
            metrics.requests.labels(self.model, self.outcome).inc()
            if self._first_byte is not None:
                metrics.first_byte.labels(self.model).observe(self._first_byte)
            if self._finished is not None:
                metrics.tokens.labels(self.model, "prompt").inc(self._finished.prompt_tokens)
                metrics.tokens.labels(self.model, "completion").inc(self._finished.completion_tokens)
            logger.info("request", extra={"fields": self._line(exchange)})

    def _line(self, exchange: Exchange) -> dict[str, str | int | float | None]:
        finished = self._finished
        return {
            "request_id": self.id,
            "dialect": self.dialect,
            "key": self.key,
            "model": self.model,
            "stream": self.stream,
            "status": exchange.status or None,
            "outcome": self.outcome,
            "retries": self.retries,
            "prompt_tokens": finished.prompt_tokens if finished else None,
            "completion_tokens": finished.completion_tokens if finished else None,
            "first_byte_ms": None if self._first_byte is None else round(self._first_byte * 1000, 1),
            "total_ms": round((time.monotonic() - self._began) * 1000, 1),
        }
