"""The moments of a schedule: across nights, weeks, months, and the two nights a year in which the clock is set."""

from __future__ import annotations

import re
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aixcoder_operator.api.autoscaling import ScheduledMinimum
from aixcoder_operator.api.cron import last, problem
from aixcoder_operator.api.schema import structural

BERLIN = "Europe/Berlin"


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


# Expression, time zone, at that time in UTC → the last moment in UTC. 2026-06-05 is a Friday.
LAST: dict[str, tuple[str, str, str, str | None]] = {
    "today": ("30 7 * * *", "UTC", "2026-06-05 12:00", "2026-06-05 07:30"),
    "yesterday": ("30 7 * * *", "UTC", "2026-06-05 07:29", "2026-06-04 07:30"),
    "now": ("30 7 * * *", "UTC", "2026-06-05 07:30", "2026-06-05 07:30"),
    "some seconds after": ("30 7 * * *", "UTC", "2026-06-05 07:30:59", "2026-06-05 07:30"),
    "over a weekend": ("30 7 * * MON-FRI", "UTC", "2026-06-07 12:00", "2026-06-05 07:30"),
    "by number": ("30 7 * * 1-5", "UTC", "2026-06-07 12:00", "2026-06-05 07:30"),
    "Sunday is 7 and 0": ("0 0 * * 7", "UTC", "2026-06-10 00:00", "2026-06-07 00:00"),
    "each quarter": ("0 0 1 */3 *", "UTC", "2026-06-05 00:00", "2026-04-01 00:00"),
    "a day that few months have": ("0 0 31 * *", "UTC", "2026-06-30 12:00", "2026-05-31 00:00"),
    "a leap day": ("0 0 29 2 *", "UTC", "2026-06-05 00:00", "2024-02-29 00:00"),
    "day of the month or of the week": ("0 0 1 * MON", "UTC", "2026-06-02 00:00", "2026-06-01 00:00"),
    "a day that never is": ("0 0 31 2 *", "UTC", "2026-06-05 00:00", None),
    "in summer": ("0 8 * * *", BERLIN, "2026-06-05 12:00", "2026-06-05 06:00"),
    "in winter": ("0 8 * * *", BERLIN, "2026-01-05 12:00", "2026-01-05 07:00"),
    "west of here it is still yesterday": ("0 8 * * *", "America/Los_Angeles", "2026-06-05 12:00", "2026-06-04 15:00"),
    "spring: an hour that is left out": ("30 2 * * *", BERLIN, "2026-03-29 12:00", "2026-03-29 01:00"),
    "spring: not yet": ("30 2 * * *", BERLIN, "2026-03-29 00:59", "2026-03-28 01:30"),
    "autumn: the first of two": ("30 2 * * *", BERLIN, "2026-10-25 12:00", "2026-10-25 00:30"),
    "autumn: between the two": ("30 2 * * *", BERLIN, "2026-10-25 00:45", "2026-10-25 00:30"),
    "autumn: after the second": ("30 2 * * *", BERLIN, "2026-10-25 01:45", "2026-10-25 00:30"),
    "a zone that nobody knows": ("0 8 * * *", "Europe/Berlyn", "2026-06-05 12:00", None),
}


@pytest.mark.parametrize("case", LAST)
def test_last(case: str) -> None:
    expression, zone, at, expected = LAST[case]
    assert last(expression, zone, utc(at)) == (None if expected is None else utc(expected))


@pytest.mark.parametrize(
    ("expression", "zone", "said"),
    [
        ("0 8 * * *", "Europe/Berlyn", "Europe/Berlyn is no time zone that this operator knows"),
        ("0 8 * * *", "../etc/passwd", "../etc/passwd is no time zone that this operator knows"),
        ("0 25 * * *", "UTC", "'0 25 * * *': bad hour"),
        ("nonsense", "UTC", "'nonsense': wrong number of fields"),
    ],
)
def test_what_is_wrong(expression: str, zone: str, said: str) -> None:
    assert problem(expression, zone) == said


def _patterns() -> list[str]:
    rules = structural(ScheduledMinimum)["properties"]["start"]["x-kubernetes-validations"]
    found = [re.fullmatch(r"self\.matches\('\^(.*)\$'\)", rule["rule"]) for rule in rules]
    return [match[1] for match in found if match]


(PATTERN,) = _patterns()


def is_accepted(expression: str) -> bool:
    """What the API server's rules take: the pattern, and ranges that rise."""
    ranges = re.findall("[A-Z0-9]+-[A-Z0-9]+", expression)
    names = "SUN|MON|TUE|WED|THU|FRI|SAT|JAN|FEB|MAR|APR|MAY|JUN|JUL|AUG|SEP|OCT|NOV|DEC"

    def rank(end: str) -> int:
        return names.index(end) if end.isalpha() else int(end)

    rising = all(rank(one.split("-")[0]) <= rank(one.split("-")[1]) for one in ranges)
    return len(expression) <= 64 and re.fullmatch(PATTERN, expression) is not None and rising


@given(expression=st.from_regex(re.compile(PATTERN), fullmatch=True))
def test_what_the_api_server_takes_can_be_followed(expression: str) -> None:
    if is_accepted(expression):
        assert problem(expression, "UTC") is None


@pytest.mark.parametrize("expression", ["0 8 * * *", "*/5 0-6/2,22 1,15 JAN-MAR,12 0", "59 23 31 12 SAT"])
def test_what_people_write_is_taken(expression: str) -> None:
    assert is_accepted(expression)
