"""What is told of repeated measurements."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import median, quantiles


def lower_quartile(values: Sequence[float]) -> float:
    """The value that a quarter of them lie below, between two of them where it falls there."""
    return quantiles(values, n=4, method="inclusive")[0] if len(values) > 1 else values[0]


def percentile(values: Sequence[float], percent: float) -> float:
    """The smallest value that `percent` of them do not exceed. Raises ValueError where there are none."""
    if not values:
        raise ValueError("no values to take a percentile of")
    ordered = sorted(values)
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]


def summarise(repeats: Sequence[Mapping[str, float]], digits: int = 4) -> dict[str, float]:
    """Median of each value under its name, the lower quartile beside it as NAME_q1; of those that all repeats have."""
    found: dict[str, float] = {}
    for name in repeats[0]:
        if not all(name in repeat for repeat in repeats):
            continue
        values = [repeat[name] for repeat in repeats]
        found[name] = significant(median(values), digits)
        found[f"{name}_q1"] = significant(lower_quartile(values), digits)
    return found


def significant(value: float, digits: int) -> float:
    """A value with as many significant digits."""
    return float(f"{value:.{digits}g}")
