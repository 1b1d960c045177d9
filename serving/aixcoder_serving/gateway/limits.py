"""What one key may have under way, and ask for in a minute."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from aixcoder_serving.gateway import problems
from aixcoder_serving.gateway.keys import Key

_MINUTE = 60.0


class Limits:
    """Counts requests by key. `clock`: seconds of a monotonic clock."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._under_way: Counter[str] = Counter()
        self._left: dict[str, tuple[float, float]] = {}  # requests of the minute that are left, and when that was so

    @contextmanager
    def counted(self, key: Key) -> Iterator[None]:
        """Count one request of `key` while the block runs.

        Raises:
            Problem: the key has as many as it may.

        """
        if key.most_at_once is not None and self._under_way[key.id] >= key.most_at_once:
            raise problems.over_limit(1)
        if key.most_a_minute is not None:
            self._take(key.id, key.most_a_minute)
        self._under_way[key.id] += 1
        try:
            yield
        finally:
            self._under_way[key.id] -= 1
            if not self._under_way[key.id]:
                del self._under_way[key.id]

    def _take(self, key_id: str, most: int) -> None:
        """A bucket that a minute fills."""
        now = self._clock()
        left, at = self._left.get(key_id, (float(most), now))
        left = min(left + (now - at) * most / _MINUTE, float(most))
        if left < 1:
            raise problems.over_limit(math.ceil((1 - left) * _MINUTE / most))
        self._left[key_id] = left - 1, now
