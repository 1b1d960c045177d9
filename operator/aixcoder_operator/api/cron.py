"""The moments that a schedule names: five fields as Debian's cron reads them, in a time zone that may have summer time.

A moment that the clock leaves out in spring is the next one that it shows; one that it shows twice in autumn is the
first of the two.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

DEFAULT_ZONE = "UTC"
_FOLD = timedelta(hours=1)
"""By how much a clock is ever set back; what lies that far ahead on its face may be over already."""


def problem(expression: str, zone: str) -> str | None:
    """What is wrong with `expression` in time zone `zone`; None where it can be followed."""
    try:
        zoned = ZoneInfo(zone)
    except (KeyError, ValueError, OSError):
        return f"{zone} is no time zone that this operator knows"
    try:
        CronSim(expression, datetime(2026, 1, 1, tzinfo=zoned))
    except CronSimError as error:
        return f"{expression!r}: {str(error).lower()}"
    return None


def last(expression: str, zone: str, at: datetime) -> datetime | None:
    """The last moment up to `at`, itself included, that `expression` names in time zone `zone`, in UTC.

    None where there is none in fifty years, or where it cannot be followed (`problem`).
    """
    return _last(expression, zone, at.astimezone(UTC).replace(second=0, microsecond=0))


@lru_cache(maxsize=16384)
def _last(expression: str, zone: str, minute: datetime) -> datetime | None:
    if problem(expression, zone) is not None:
        return None
    local = minute.astimezone(ZoneInfo(zone))
    # The search goes by the face of the clock, and leaves its starting point out.
    begin = local + _FOLD if local.fold else local
    for found in CronSim(expression, begin + timedelta(seconds=1), reverse=True):
        if found.astimezone(UTC) <= minute:
            return found.astimezone(UTC)
    return None
