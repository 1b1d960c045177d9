"""What a policy of scaling gives and costs on the requests of a day: simulated, ours beside others.

    python -m benchmarks.scaling --trace FILE [--trace FILE…] [--day N…] [--policy NAME…] [--cancel 0.7] --cold-start S
                                 [--json] [--plot FILE]

A trace is Azure's CSV or all the client files of a ServeGen family, in any order (`benchmarks.scaling.files`); without
`--day` all its days are played, of Azure's the whole. They are played on a fleet (`benchmarks.scaling.fleet`) of 1 to
256 replicas, as many as the API allows, that begins with one. The first 300 s are played and not counted. Policies are
asked once a second. `--cancel`: a share of requests whose client leaves 100 to 400 ms after its request, as typing
does.

A line for each policy and day, the day null for Azure's:
- `slo`: share of requests whose prompt began to be computed, or whose client left, within 200 ms;
- `shed`: share that waited for 10 s and was refused, or waits at the end;
- `cost_ratio`: GPU-seconds, from a pod that is asked for to its end, over those of the cheapest schedule of a small
  grid that knows the future and has 99 % in time (`benchmarks.scaling.clairvoyant`); null where none has;
- `changes_per_day` of the wish; `worst_s`: the longest time in which each 10 s had fewer than nine of ten in time.

Policies: `ours`, the operator's own code on the counters that a gateway tells; `ray-serve` by default and
`ray-serve-tuned`, `knative`, `hpa-queue`, `llm-d`, `aibrix` (`benchmarks.scaling.peers`); `static`, the smallest fleet
that had 99 % in time, known only afterwards; `clairvoyant`. Without `--policy` all of them.

`--plot` draws the first day that is played, with the first policy, as SVG. What can not be read, or holds none of the
days, is told in a sentence, and the exit status is 2.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks.scaling.files import Family, UnusableTrace, families
from benchmarks.scaling.measure import NAMES, measure
from benchmarks.scaling.plot import draw_day
from benchmarks.scaling.run import counts
from benchmarks.scaling.traces import Trace, read


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the lines."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.scaling", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--trace", action="extend", nargs="+", required=True, metavar="FILE")
    parser.add_argument("--day", action="extend", nargs="+", type=int, metavar="N", help="window start // 86400")
    parser.add_argument("--policy", action="extend", nargs="+", choices=NAMES, metavar="NAME", help=", ".join(NAMES))
    parser.add_argument("--cancel", type=_share, default=0.0, help="share of requests")
    parser.add_argument("--cold-start", type=_seconds, required=True, metavar="S", help="seconds")
    parser.add_argument("--json", action="store_true", help="JSON lines, not a table")
    parser.add_argument("--plot", type=_writable, metavar="FILE")
    given = parser.parse_args(arguments)
    names: list[str] = list(dict.fromkeys(given.policy or NAMES))
    plot: Path | None = given.plot
    try:
        for trace in _traces(families(given.trace), given.day):
            played = trace.cancelled(given.cancel) if given.cancel else trace
            for measured in measure(played, names, given.cold_start):
                line = measured.line
                text = json.dumps(line) if given.json else "  ".join(f"{key} {value}" for key, value in line.items())
                print(text, flush=True)
                if plot is not None:
                    draw_day(plot, played, measured)
                    plot = None
    except UnusableTrace as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def _traces(found: Sequence[Family], wanted: Sequence[int] | None) -> Iterator[Trace]:
    """The days that are wanted, or all. One with too few seconds to be played is told and left out.

    Raises:
        UnusableTrace: a file is no trace, or none of the days is there.

    """
    days = [(family, day) for family in found for day in family.days() if wanted is None or day in (None, *wanted)]
    if not days:
        present = "; ".join(f"{family.name} has {', '.join(map(str, family.days()))}" for family in found)
        raise UnusableTrace(f"none of these days is in a trace: {', '.join(map(str, wanted or ()))}. {present}")
    played = 0
    for family, day in days:
        trace = read(family, day)
        where = family.name if day is None else f"{family.name}, day {day}"
        if not counts(trace.at, trace.end).any():
            print(f"{where}: left out, its requests end after {trace.end:.0f} s", file=sys.stderr)
            continue
        print(f"{where}: {len(trace.at)} requests in {trace.end / 3600:.1f} h", file=sys.stderr, flush=True)
        played += 1
        yield trace
    if not played:
        raise UnusableTrace("no trace is long enough to be played")


def _share(text: str) -> float:
    value = float(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text} is no share: 0 to 1")
    return value


def _writable(text: str) -> Path:
    if not Path(text).parent.is_dir():
        raise argparse.ArgumentTypeError(f"{text} can not be written: there is no such folder")
    return Path(text)


def _seconds(text: str) -> float:
    value = float(text)
    if not (math.isfinite(value) and value >= 0):
        raise argparse.ArgumentTypeError(f"{text} is no number of seconds")
    return value


if __name__ == "__main__":
    sys.exit(main())
