"""What one key may have under way, and ask for in a minute."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from aixcoder_serving.gateway import problems
from aixcoder_serving.gateway.keys import Key

_MINUTE = 60.0


@dataclass(slots=True)
class _Bucket:
    """What is left of a minute's amount, which a minute fills; below zero where more was used than was expected."""

    left: float
    at: float

    def fill(self, most: float, now: float) -> None:
        self.left = min(self.left + (now - self.at) * most / _MINUTE, most)
        self.at = now


class Limits:
    """Counts by key. `clock`: seconds of a monotonic clock."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._under_way: Counter[str] = Counter()
        self._requests: dict[str, _Bucket] = {}
        self._tokens: dict[str, _Bucket] = {}

    @contextmanager
    def counted(self, key: Key) -> Iterator[None]:
        """Count one request of `key` while the block runs.

        Raises:
            Problem: the key has as many as it may.

        """
        if key.concurrent_requests is not None and self._under_way[key.id] >= key.concurrent_requests:
            raise problems.over_limit(1)
        if key.requests_per_minute is not None:
            self._take(self._requests, key.id, key.requests_per_minute, least=1.0).left -= 1
        self._under_way[key.id] += 1
        try:
            yield
        finally:
            self._under_way[key.id] -= 1
            if not self._under_way[key.id]:
                del self._under_way[key.id]

    @contextmanager
    def charged(self, key: Key, expected: int, used: Callable[[], int]) -> Iterator[None]:
        """Charge `key` for so many tokens while the block runs, and for those that were `used` at its end.

        A key is let in while it has any left: a request may be larger than a minute's tokens.

        Raises:
            Problem: the key has none left.

        """
        if key.tokens_per_minute is None:
            yield
            return
        bucket = self._take(self._tokens, key.id, key.tokens_per_minute, least=0.0)
        bucket.left -= expected
        try:
            yield
        finally:
            bucket.left += expected - used()

    def _take(self, buckets: dict[str, _Bucket], key_id: str, most: int, *, least: float) -> _Bucket:
        now = self._clock()
        bucket = buckets.setdefault(key_id, _Bucket(float(most), now))
        bucket.fill(float(most), now)
        if bucket.left < least or bucket.left <= 0:
            raise problems.over_limit(math.ceil((least - bucket.left) * _MINUTE / most))
        return bucket
