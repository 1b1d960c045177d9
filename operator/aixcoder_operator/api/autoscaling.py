"""`spec.autoscaling`: the bounds between which the operator chooses the number of replicas. Changed in place."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from aixcoder_operator.api.base import Kube, Part, rule, ruled

MAX_REPLICAS = 256

_MONTHS = "JAN|FEB|MAR|APR|MAY|JUN|JUL|AUG|SEP|OCT|NOV|DEC"
_DAYS = "SUN|MON|TUE|WED|THU|FRI|SAT"


def _field(*values: str) -> str:
    """The pattern of one field of a cron expression. `values`: patterns of single values; a range has two of a kind."""
    ranges = "|".join(f"({value})(-({value}))?" for value in values)
    item = f"([*]|{ranges})(/[1-9][0-9]?)?"
    return f"{item}(,{item})*"


_FIELDS = " ".join(
    (
        _field("[0-5]?[0-9]"),
        _field("2[0-3]|[01]?[0-9]"),
        _field("3[01]|[12][0-9]|0?[1-9]"),
        _field("1[0-2]|0?[1-9]", _MONTHS),
        _field("[0-7]", _DAYS),
    )
)
_NAMES = f"{_DAYS}|{_MONTHS}"
# Ranges are compared by number; names by where they stand in the week or the year.
_RISING = (
    "self.findAll('[A-Z0-9]+-[A-Z0-9]+').all(range, range.matches('^[A-Z]')"
    f" ? '{_NAMES}'.indexOf(range.substring(0, 3)) <= '{_NAMES}'.indexOf(range.substring(4))"
    " : int(range.split('-')[0]) <= int(range.split('-')[1]))"
)

Cron = Annotated[
    str,
    Field(min_length=9, max_length=64),
    Kube(
        rules=(
            rule(
                f"self.matches('^{_FIELDS}$')",
                "write five fields with one space between them: minute 0-59, hour 0-23, day 1-31, month 1-12 or "
                "JAN-DEC, weekday 0-7 or SUN-SAT, as 0 8 * * MON-FRI",
            ),
            rule(_RISING, "a range ends no earlier than it begins, and a week begins with SUN: SAT-SUN is SAT,SUN"),
        )
    ),
]
"""A moment that recurs: minute, hour, day of month, month, day of week."""

TimeZone = Annotated[
    str,
    Field(min_length=1, max_length=64),
    Kube(
        rules=(
            rule(
                "!self.contains(':') && self != 'Local' && timestamp('2026-01-01T00:00:00Z').getHours(self) >= 0",
                "write a time zone's name from the IANA database, as Europe/Berlin or UTC",
            ),
        )
    ),
]
"""A name of the IANA time zone database."""


class Rate(Part):
    """A bound on how fast the number of replicas changes."""

    replicas: Annotated[int, Field(ge=1, le=MAX_REPLICAS)] = Field(
        description="Most replicas by which the number changes at once, after which it waits for periodSeconds."
    )
    period_seconds: Annotated[int, Field(ge=1, le=3600)] = Field(
        description="Seconds from one change to the next in the same direction."
    )


class ScheduledMinimum(Part):
    """A minimum that holds at certain times: from each start until the next end."""

    start: Cron = Field(description="When it begins, as a cron expression: 30 7 * * MON-FRI is 7:30 on working days.")
    end: Cron = Field(description="When it ends, likewise. May be on a later day than its start.")
    time_zone: TimeZone | None = Field(
        default=None,
        description="Time zone of start and end, as Europe/Berlin; it knows of summer time. Absent: UTC.",
    )
    min_replicas: Annotated[int, Field(ge=0, le=MAX_REPLICAS)] = Field(
        description="Fewest replicas in that time. Where several minima hold, minReplicas included, the highest counts."
    )


class Autoscaling(Part):
    """Bounds of the operator's own scaling. What is left out needs no tuning."""

    model_config = ruled(
        rule(
            "!has(self.minReplicas) || self.minReplicas <= self.maxReplicas",
            "minReplicas is above maxReplicas: lower it, or raise maxReplicas",
            ".minReplicas",
        ),
        rule(
            "!has(self.schedule) || self.schedule.all(one, one.minReplicas <= self.maxReplicas)",
            "a schedule's minReplicas is above maxReplicas: lower it, or raise maxReplicas",
            ".schedule",
        ),
    )

    min_replicas: Annotated[int, Field(ge=0, le=MAX_REPLICAS)] | None = Field(
        default=None,
        description=(
            "Fewest replicas (default 1). 0: after scaleToZeroAfterSeconds without a request all GPUs are given back; "
            "the next request is held while a replica starts, for as long as its client waits."
        ),
    )
    max_replicas: Annotated[int, Field(ge=1, le=MAX_REPLICAS)] = Field(
        description="Most replicas, of engine.tensorParallelSize GPUs each. During a rollout both revisions have pods."
    )
    queue_time_target_ms: Annotated[int, Field(ge=10, le=60000)] | None = Field(
        default=None,
        description=(
            "Milliseconds for which a request may wait until a replica begins with it (default 200); there are enough "
            "replicas that 99 of 100 wait no longer."
        ),
    )
    scale_up: Rate | None = Field(
        default=None, description="How fast replicas may be added. Absent: as many as are needed, at once."
    )
    scale_down: Rate | None = Field(
        default=None,
        description=(
            "How fast replicas may be taken away. Absent: at once, when all of the time since a higher need has been "
            "twice as long as a start takes."
        ),
    )
    scale_to_zero_after_seconds: Annotated[int, Field(ge=1, le=86400)] | None = Field(
        default=None,
        description=(
            "With minReplicas 0: seconds without a request after which the last replica goes (default 600), never "
            "less than twice what a start takes."
        ),
    )
    keep_head: bool | None = Field(
        default=None,
        description=(
            "true keeps the head pod, which needs no GPU, at zero replicas: a replica is there some 20 s sooner. false "
            "or absent: no pod is left."
        ),
    )
    schedule: Annotated[tuple[ScheduledMinimum, ...], Field(max_length=16)] = Field(
        default=(), description="Higher minima at certain times, as before people begin to work."
    )
