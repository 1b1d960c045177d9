"""The highest speed that an engine keeps up with, found by trying."""

from __future__ import annotations

import math
from collections.abc import Callable

LOW, HIGH = 1 / 8, 64.0
ROUNDING = 1e-9
"""A stride as wide as the tolerance ends the search, however it was rounded."""


def highest(passes: Callable[[float], bool], guess: float, *, stride: float, tolerance: float) -> float:
    """The highest speed that passes, to within `tolerance` as a ratio; 0 where even the lowest one does not.

    From `guess` it goes up or down by `stride`, then by its square and so on, until a speed that passes lies below one
    that does not, then tries the geometric mean of the two. A guess far off costs some tries more, not dozens. Where
    passing is a matter of luck, so is the result, within the range of that luck.
    """
    speed = min(max(guess, LOW), HIGH)
    if passes(speed):
        passed = speed
        while passed < HIGH:
            speed = min(passed * stride, HIGH)
            if not passes(speed):
                break
            passed, stride = speed, stride**2
        else:
            return passed
        failed = speed
    else:
        failed = speed
        while failed > LOW:
            speed = max(failed / stride, LOW)
            if passes(speed):
                break
            failed, stride = speed, stride**2
        else:
            return 0.0
        passed = speed
    while failed / passed > tolerance * (1 + ROUNDING):
        speed = math.sqrt(passed * failed)
        if passes(speed):
            passed = speed
        else:
            failed = speed
    return passed
