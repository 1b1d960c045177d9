"""How long a replica takes from the pod that is asked for to its first ready moment. Pure.

A node that is made for it belongs to that; waiting for hours because there are no more GPUs does not.
"""

from __future__ import annotations

import statistics
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from aixcoder_operator.api.objects import Object, condition, timestamp, uid

_LAST = 5
_MOST_SECONDS = 86400  # as in the schema of status
_MOST_WITHOUT_NODE_S = 300.0
"""Of the time before a node took the pod, what counts: the longest in which an autoscaler usually brings a node."""
_TURNED = timedelta(seconds=2)


@dataclass(frozen=True, slots=True)
class Start:
    """A pod that became ready. Times in seconds since 1970."""

    made_at: float
    taken_at: float
    """By its node."""
    ready_at: float

    @property
    def seconds(self) -> float:
        """What counts as its cold start."""
        without_node_s = min(max(self.taken_at - self.made_at, 0.0), _MOST_WITHOUT_NODE_S)
        return without_node_s + max(self.ready_at - max(self.taken_at, self.made_at), 0.0)


class ColdStarts:
    """The starts of one deployment's worker pods. `seconds`: what was measured before, by another process.

    Only a pod counts that was seen before it was ever ready: the condition of one that is ready says when it last
    turned, which is later than its start where it was unready in between.
    """

    def __init__(self, seconds: float | None) -> None:
        self.seconds = seconds
        """The median of the last few; None where none was measured."""
        self._awaited: set[str] = set()
        self._last: deque[float] = deque(maxlen=_LAST)

    @property
    def whole_seconds(self) -> int | None:
        """As status tells it."""
        return None if self.seconds is None else min(round(self.seconds), _MOST_SECONDS)

    def see(self, pods: Iterable[Object]) -> list[Start]:
        """Take in all worker pods as they are now; the starts that have ended since the last time."""
        awaited: set[str] = set()
        starts = []
        for pod in pods:
            ready = condition(pod, "Ready")
            if ready is not None and ready["status"] == "True":
                if uid(pod) in self._awaited:
                    starts.append(_start(pod, ready))
            elif not _was_ready(pod, ready):
                awaited.add(uid(pod))
        self._awaited = awaited
        self._last.extend(start.seconds for start in starts)
        if self._last:
            self.seconds = statistics.median(self._last)
        return starts


def _start(pod: Object, ready: Mapping[str, Any]) -> Start:
    made = pod["metadata"]["creationTimestamp"]
    taken = pod["status"].get("startTime") or made
    return Start(*(timestamp(each).timestamp() for each in (made, taken, ready["lastTransitionTime"])))


def _was_ready(pod: Object, ready: Mapping[str, Any] | None) -> bool:
    """Whether a pod that is not ready may have been: its condition turned after the node took it."""
    taken = (pod.get("status") or {}).get("startTime")
    if ready is None or taken is None or not ready.get("lastTransitionTime"):
        return False
    return timestamp(ready["lastTransitionTime"]) - timestamp(taken) > _TURNED
