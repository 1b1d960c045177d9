"""A scenario told step by step: each picture the simulator may draw, in order, with a name for the reader."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tests.unit.plan import invariants
from tests.unit.plan.simulator import Simulator


def ready(**spec: Any) -> Simulator:
    """A deployment of model a that was brought up and stands still."""
    simulator = Simulator()
    simulator.create(**spec)
    simulator.run()
    invariants.check_steady(simulator)
    return simulator


def tells(simulator: Simulator, story: Mapping[str, str], seconds: int = 2000) -> None:
    """Run until nothing is in progress; the steps seen are those of `story`, and what is left stands still."""
    follows(simulator.run(seconds), story)
    assert simulator.due is None, "something is still in progress"
    invariants.check_steady(simulator)


def follows(steps: list[str], story: Mapping[str, str]) -> None:
    """`steps` are those of `story`, no more, no fewer, in this order."""
    assert steps == list(story.values()), "\n".join(
        ["", "told:", *(f"  {line}   # {named}" for named, line in story.items()), "seen:", *(f"  {s}" for s in steps)]
    )
