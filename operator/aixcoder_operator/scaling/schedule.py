"""The minimum of replicas that a schedule asks for. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from aixcoder_operator.api.autoscaling import ScheduledMinimum
from aixcoder_operator.api.cron import DEFAULT_ZONE, last


def minimum(schedule: Sequence[ScheduledMinimum], at: datetime) -> int:
    """The highest minimum that is in force `at` that time; 0 where none is."""
    return max((entry.min_replicas for entry in schedule if _in_force(entry, at)), default=0)


def _in_force(entry: ScheduledMinimum, at: datetime) -> bool:
    """Its last start is later than its last end. Where both name one moment, it has ended."""
    zone = entry.time_zone or DEFAULT_ZONE
    started, ended = last(entry.start, zone, at), last(entry.end, zone, at)
    return started is not None and (ended is None or started > ended)
