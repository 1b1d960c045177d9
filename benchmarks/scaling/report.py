"""All policies on all traces of a folder, for cold starts of 30 and 120 s, with clients that stay and with typing.

    python -m benchmarks.scaling.report FOLDER [--plot FILE]

FOLDER and the folders in it are searched for CSV files. JSON lines on standard output as `python -m benchmarks.scaling`
prints them, each with `cancel` beside; progress, and a table at the end, on standard error: share in time, in per cent
and rounded down, @ cost over the clairvoyant. `--plot` draws the first day, our wish for a cold start of 30 s.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import NamedTuple

from benchmarks.scaling.files import Family, UnusableTrace, families
from benchmarks.scaling.measure import NAMES, Line, measure
from benchmarks.scaling.plot import draw_day
from benchmarks.scaling.run import counts
from benchmarks.scaling.traces import read

COLD_STARTS_S = (30.0, 120.0)
CANCELS = (0.0, 0.7)


class Job(NamedTuple):
    """One day, to be played by all policies; it gives no line where it is too short for any request to count."""

    family: Family
    day: int | None
    cancel: float
    cold_start_s: float
    plot: Path | None

    def __str__(self) -> str:
        day = "" if self.day is None else f", day {self.day}"
        return f"{self.family.name}{day}, {self.cancel:.0%} cancelled, cold start {self.cold_start_s:.0f} s"


def main() -> int:
    """Print the lines, then the table."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.scaling.report",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--plot", type=Path, metavar="FILE")
    given = parser.parse_args()
    try:
        jobs = _jobs(families(map(str, sorted(given.folder.rglob("*.csv")))), given.plot)
    except UnusableTrace as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if not jobs:
        print(f"error: {given.folder} holds no traces: no CSV file is in it", file=sys.stderr)
        return 2
    with ProcessPoolExecutor() as processes:
        playing = {processes.submit(_play, job): job for job in jobs}
        for number, done in enumerate(as_completed(playing), 1):
            job = playing[done]
            for line in done.result():
                print(json.dumps({**line, "cancel": job.cancel}), flush=True)
            print(f"{number} of {len(jobs)}: {job}", file=sys.stderr, flush=True)
    print(table((job, line) for done, job in playing.items() for line in done.result()), file=sys.stderr)
    return 0


def _jobs(found: Sequence[Family], plot: Path | None) -> list[Job]:
    jobs = [
        Job(family, day, cancel, cold_start_s, None)
        for family in sorted(found, key=lambda family: not family.windowed)
        for day in family.days()
        for cancel in CANCELS
        for cold_start_s in COLD_STARTS_S
    ]
    return [job._replace(plot=plot) if number == 0 else job for number, job in enumerate(jobs)]


def _play(job: Job) -> list[Line]:
    trace = read(job.family, job.day)
    if not counts(trace.at, trace.end).any():
        return []
    played = trace.cancelled(job.cancel) if job.cancel else trace
    lines: list[Line] = []
    for measured in measure(played, NAMES, job.cold_start_s):
        lines.append(measured.line)
        if job.plot is not None and measured.line["policy"] == NAMES[0]:
            draw_day(job.plot, played, measured)
    return lines


def table(done: Iterable[tuple[Job, Line]]) -> str:
    """Markdown: a row for each policy and share of cancels, a column for each day and cold start."""
    cells: dict[tuple[str, float], dict[str, str]] = {}
    columns: dict[str, None] = {}
    for job, line in done:
        day = "" if line["day"] is None else f" day {line['day']}"
        column = f"{line['trace']}{day}, D={line['cold_start_s']:.0f}"
        columns[column] = None
        cost = "no clairvoyant" if line["cost_ratio"] is None else f"{line['cost_ratio']:.3f}"
        in_time = round(line["slo"] * 100_000) // 10 / 100
        cells.setdefault((line["policy"], job.cancel), {})[column] = f"{in_time:.2f} @ {cost}"
    rows = [["", *columns], ["---"] * (len(columns) + 1)]
    for (policy, cancel), row in sorted(cells.items(), key=lambda cell: cell[0][1]):
        name = f"{policy}, {cancel:.0%} cancelled" if cancel else policy
        rows.append([name, *(row.get(column, "") for column in columns)])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


if __name__ == "__main__":
    sys.exit(main())
