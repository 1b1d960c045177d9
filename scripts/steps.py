"""Run commands as named steps: print how long each took, keep the times, end what hangs."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from e2e.cluster import cache

REPOSITORY = Path(__file__).resolve().parent.parent

INTERRUPT_GRACE_SECONDS = 60.0
"""How long an interrupted or hanging step may take to clean up after itself before it is killed."""


@dataclass(frozen=True)
class Step:
    """One command. `guard_seconds` ends a hang and is several times what the command may take."""

    name: str
    command: tuple[str, ...]
    guard_seconds: float


@dataclass(frozen=True)
class Outcome:
    """How a step ended; `output` is empty where it went straight to the terminal."""

    name: str
    seconds: float
    ok: bool
    output: str = ""


def line(outcome: Outcome) -> str:
    """One line of a list of steps: ok or FAILED, name, seconds."""
    return f"{'ok' if outcome.ok else 'FAILED':<7} {outcome.name:<28} {outcome.seconds:7.1f} s"


def summary(title: str, outcomes: Sequence[Outcome], planned: Sequence[str]) -> str:
    """The closing table: every outcome, what was not run after a failure, and the total."""
    done = {outcome.name for outcome in outcomes}
    rows = [line(outcome) for outcome in outcomes]
    rows += [f"{'-':<7} {name:<28} not run" for name in planned if name not in done]
    total = sum(outcome.seconds for outcome in outcomes)
    verdict = "passed" if all(outcome.ok for outcome in outcomes) and len(done) == len(planned) else "FAILED"
    return "\n".join([f"{title}: {verdict} in {total:.1f} s", *(f"  {row}" for row in rows)])


def run_live(step: Step) -> Outcome:
    """Run a step with its output on the terminal and nothing on its stdin; Ctrl-C reaches it and lets it clean up."""
    return _run(step, capture=False)


def run_quietly(steps: Sequence[Step], report: Callable[[Outcome], None]) -> list[Outcome]:
    """Run independent steps side by side, one a processor; `report` gets each outcome as it comes."""

    def one(step: Step) -> Outcome:
        outcome = _run(step, capture=True)
        report(outcome)
        return outcome

    with ThreadPoolExecutor(max_workers=os.cpu_count() or 1) as pool:
        return list(pool.map(one, steps))


def record(target: str, outcomes: Sequence[Outcome]) -> None:
    """Append the times to `times.jsonl` in the cache, one JSON object a step: when, target, step, seconds, ok."""
    path = cache.root() / "times.jsonl"
    at = datetime.now(UTC).isoformat(timespec="seconds")
    with path.open("a", encoding="utf-8") as file:
        for outcome in outcomes:
            row = {"at": at, "target": target, **asdict(outcome), "seconds": round(outcome.seconds, 2)}
            row.pop("output")
            file.write(json.dumps(row) + "\n")


def _run(step: Step, *, capture: bool) -> Outcome:
    started = time.monotonic()
    process = subprocess.Popen(
        step.command,
        cwd=REPOSITORY,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE if capture else None,
        stderr=subprocess.STDOUT if capture else None,
        text=True,
        start_new_session=True,
    )
    note = ""
    try:
        output, _ = process.communicate(timeout=step.guard_seconds)
    except subprocess.TimeoutExpired:
        note = f"ended after {step.guard_seconds:.0f} s: it hung\n"
        output = _stop(process)
    except KeyboardInterrupt:
        _stop(process)
        raise
    if note and not capture:
        sys.stderr.write(f"{step.name}: {note}")
    seconds = time.monotonic() - started
    return Outcome(step.name, seconds, process.returncode == 0 and not note, (output or "") + note)


def _stop(process: subprocess.Popen[str]) -> str:
    os.killpg(process.pid, signal.SIGINT)
    try:
        output, _ = process.communicate(timeout=INTERRUPT_GRACE_SECONDS)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        output, _ = process.communicate()
    return output or ""
