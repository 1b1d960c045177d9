"""`python -m scripts TARGET`: the targets of the Makefile that check or generate."""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Callable
from itertools import chain
from types import FrameType

from e2e.cluster.errors import ClusterError
from e2e.cluster.programs import kubernetes_programs
from scripts.lint import lint_steps
from scripts.steps import Outcome, Step, line, record, run_live, run_quietly, summary

# Guards against a hang: five times what each part may take with warm caches, and a cold build on top.
COLD_BUILD_SECONDS = 1800.0
PYTEST = (sys.executable, "-m", "pytest")
SHORT = ("-m", "not long")
# tests/component/conftest.py: what may run side by side. What computes has a processor each; what waits shares them.
BY_TWO = ("-n", "2", "--dist", "loadscope")
BY_THREE = ("-n", "3", "--dist", "loadscope")
ENGINE = "tests/component/engine"
PARTS = {
    "unit": (Step("unit", (*PYTEST, "-q", *SHORT, *BY_TWO, "tests/unit"), 900.0),),
    "component": (
        Step(
            "component",
            (*PYTEST, "--durations=5", *SHORT, *BY_THREE, "tests/component", f"--ignore={ENGINE}"),
            3000.0 + COLD_BUILD_SECONDS,
        ),
        Step("engine", (*PYTEST, "--durations=5", *SHORT, *BY_TWO, ENGINE), 2000.0),
    ),
    "e2e": (Step("e2e", (*PYTEST, "-v", "--durations=10", *SHORT, "e2e"), 4500.0 + COLD_BUILD_SECONDS),),
}
LONG = (
    Step("unit", (*PYTEST, "-q", "tests/unit"), 7200.0),
    Step("component", (*PYTEST, "--durations=20", "tests/component"), 14400.0),
    Step("e2e", (*PYTEST, "-v", "--durations=20", "e2e"), 28800.0),
)


def lint() -> bool:
    """Run every lint step, print the output of those that failed."""
    outcomes = run_quietly(lint_steps(kubernetes_programs() / "helm"), lambda outcome: print(line(outcome), flush=True))
    record("lint", outcomes)
    for outcome in outcomes:
        if not outcome.ok:
            print(f"\n--- {outcome.name}\n{outcome.output.rstrip()}", flush=True)
    return all(outcome.ok for outcome in outcomes)


def part(name: str) -> bool:
    """Run one part of the tests."""
    return in_order(name, list(PARTS[name]))


def in_order(target: str, steps: list[Step]) -> bool:
    """Run steps one after the other up to the first that fails; print a closing summary and keep the times."""
    outcomes: list[Outcome] = []
    for step in steps:
        print(f"\n=== {step.name}", flush=True)
        outcomes.append(run_live(step))
        if not outcomes[-1].ok:
            break
    record(target, outcomes)
    print("\n" + summary(f"make {target}", outcomes, [step.name for step in steps]), flush=True)
    return all(outcome.ok for outcome in outcomes)


def test() -> bool:
    """All of it in its short form: lint, unit, component, e2e, up to the first part that fails."""
    lint_step = Step("lint", (sys.executable, "-m", "scripts", "lint"), 900.0 + COLD_BUILD_SECONDS)
    return in_order("test", [lint_step, *chain.from_iterable(PARTS.values())])


def test_long() -> bool:
    """The tests in their long form."""
    return in_order("test-long", list(LONG))


def generate() -> bool:
    """Write every generated file."""
    return in_order("generate", [Step("CRDs", (sys.executable, "-m", "aixcoder_operator.api.crd"), 120.0)])


TARGETS: dict[str, Callable[[], bool]] = {
    "lint": lint,
    "unit": lambda: part("unit"),
    "component": lambda: part("component"),
    "e2e": lambda: part("e2e"),
    "test": test,
    "test-long": test_long,
    "generate": generate,
}


def main() -> int:
    """Run one target; 0 where it passed, 1 where it failed, 130 where it was interrupted."""
    parser = argparse.ArgumentParser(prog="python -m scripts", description=__doc__)
    parser.add_argument("target", choices=TARGETS)
    target = TARGETS[parser.parse_args().target]

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupt)
    try:
        return 0 if target() else 1
    except KeyboardInterrupt:
        return 130
    except ClusterError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
