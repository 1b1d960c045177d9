"""Which minimum a schedule asks for, at which time."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from aixcoder_operator.api.autoscaling import ScheduledMinimum
from aixcoder_operator.scaling.schedule import minimum


def entry(start: str, end: str, least: int, zone: str | None = None) -> ScheduledMinimum:
    fields: dict[str, Any] = {"start": start, "end": end, "minReplicas": least, "timeZone": zone}
    return ScheduledMinimum.model_validate(fields)


OFFICE = entry("30 7 * * MON-FRI", "0 19 * * MON-FRI", 4)
NIGHT = entry("0 22 * * *", "0 6 * * *", 2)
LUNCH = entry("0 12 * * *", "0 13 * * *", 6)
WEEKEND = entry("0 0 * * SAT", "0 0 * * MON", 1)

# 2026-06-05 is a Friday.
CASES: dict[str, tuple[list[ScheduledMinimum], str, int]] = {
    "no schedule": ([], "2026-06-05 12:00", 0),
    "before": ([OFFICE], "2026-06-05 07:29", 0),
    "from its first minute on": ([OFFICE], "2026-06-05 07:30", 4),
    "until its last minute": ([OFFICE], "2026-06-05 18:59:59", 4),
    "ended": ([OFFICE], "2026-06-05 19:00", 0),
    "not on Saturday": ([OFFICE], "2026-06-06 12:00", 0),
    "over midnight: before": ([NIGHT], "2026-06-05 23:59", 2),
    "over midnight: after": ([NIGHT], "2026-06-06 05:59", 2),
    "over midnight: ended": ([NIGHT], "2026-06-06 06:00", 0),
    "over days": ([WEEKEND], "2026-06-07 12:00", 1),
    "the highest of several": ([OFFICE, LUNCH], "2026-06-05 12:30", 6),
    "the highest of several, in any order": ([LUNCH, OFFICE], "2026-06-05 12:30", 6),
    "what ends leaves the others": ([OFFICE, LUNCH], "2026-06-05 13:00", 4),
    "start and end at one moment": ([entry("0 8 * * *", "0 8 * * *", 3)], "2026-06-05 08:00", 0),
    "an end that never is": ([entry("0 8 * * *", "0 0 31 2 *", 3)], "2026-06-05 03:00", 3),
    "a start that never is": ([entry("0 0 31 2 *", "0 8 * * *", 3)], "2026-06-05 12:00", 0),
    "in its own time zone: not yet": ([entry("0 8 * * *", "0 18 * * *", 3, "Asia/Tokyo")], "2026-06-04 22:59", 0),
    "in its own time zone": ([entry("0 8 * * *", "0 18 * * *", 3, "Asia/Tokyo")], "2026-06-04 23:00", 3),
    "a zone that nobody knows": ([entry("0 8 * * *", "0 18 * * *", 3, "Asia/Tokio"), OFFICE], "2026-06-05 12:00", 4),
    "the night that has 02:30 twice: begun once": (
        [entry("30 2 * * *", "45 2 * * *", 3, "Europe/Berlin")],
        "2026-10-25 01:35",
        0,
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_minimum(case: str) -> None:
    schedule, at, expected = CASES[case]
    assert minimum(schedule, datetime.fromisoformat(at).replace(tzinfo=UTC)) == expected
