"""The policies by name, and what each gives and costs on one trace."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, TypedDict

import numpy as np
from numpy.typing import NDArray

from benchmarks.scaling import peers
from benchmarks.scaling.clairvoyant import clairvoyant, follow
from benchmarks.scaling.ours import ours
from benchmarks.scaling.run import MAX_REPLICAS, SLO_SHARE, Outcome, Policy, run
from benchmarks.scaling.traces import Trace

POLICIES: dict[str, Callable[[float], Policy]] = {
    "ours": ours,
    "ray-serve": lambda _: peers.ray_serve(),
    "ray-serve-tuned": lambda _: peers.ray_serve_tuned(),
    "knative": lambda _: peers.knative(),
    "hpa-queue": lambda _: peers.hpa_queue(),
    "llm-d": lambda _: peers.llm_d(),
    "aibrix": lambda _: peers.aibrix(),
}
NAMES = (*POLICIES, "static", "clairvoyant")


class Line(TypedDict):
    """What is printed of a policy and a day; see the benchmark's help."""

    trace: str
    day: int | None
    policy: str
    cold_start_s: float
    slo: float
    shed: float
    cost_ratio: float | None
    changes_per_day: float
    worst_s: float


class Measured(NamedTuple):
    """Wishes are replicas at each second; the clairvoyant's are None where no schedule was good enough."""

    line: Line
    wishes: NDArray[np.int64]
    clairvoyant: NDArray[np.int64] | None


def measure(trace: Trace, names: Sequence[str], cold_start_s: float) -> Iterator[Measured]:
    """One policy after the other. The clairvoyant is left out where no schedule of it is good enough."""
    cheapest = clairvoyant(trace, cold_start_s)
    for name in names:
        outcome = _outcome(trace, name, cold_start_s, cheapest)
        if outcome is None:
            continue
        line = Line(
            trace=trace.name,
            day=trace.day,
            policy=name,
            cold_start_s=cold_start_s,
            slo=round(outcome.slo, 5),
            shed=round(outcome.shed, 6),
            cost_ratio=round(outcome.gpu_s / cheapest.gpu_s, 4) if cheapest else None,
            changes_per_day=round(outcome.changes_per_day, 1),
            worst_s=outcome.worst_s,
        )
        yield Measured(line, outcome.targets, cheapest.targets if cheapest else None)


def _outcome(trace: Trace, name: str, cold_start_s: float, cheapest: Outcome | None) -> Outcome | None:
    if name == "clairvoyant":
        return cheapest
    if name == "static":
        return _static(trace, cold_start_s)
    return run(trace, POLICIES[name](cold_start_s), cold_start_s)


def _static(trace: Trace, cold_start_s: float) -> Outcome:
    """The smallest fleet that had enough in time, or the largest where none had. It stands from the beginning."""

    def of(size: int) -> Outcome:
        return run(trace, follow(np.full(1, size)), cold_start_s, least=size)

    low, high = 1, MAX_REPLICAS
    found: Outcome | None = None
    while low < high:
        middle = (low + high) // 2
        outcome = of(middle)
        if outcome.slo >= SLO_SHARE:
            high, found = middle, outcome
        else:
            low = middle + 1
    return found if found is not None else of(low)
