"""What our policy would do with a short trace on replicas that were measured: to be held against a live run.

    python -m benchmarks.scaling.predict --trace FILE --cold-start S --prefill-tokens-per-s P --token-s T
                                         [--token-s-per-request T] --slots N [--least N] [--most N] [--end S]

FILE is a CSV with a line a request: second of its arrival, prompt tokens, output tokens; a heading is skipped. One JSON
line: `gpu_s` from second 0 to `--end` (the last arrival), a replica from the moment it is asked for until its last
request has ended; `slo` and `shed` of the requests as `python -m benchmarks.scaling` has them, null where none counts;
`changes`, and `wishes`, each [second, replicas] of a change.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np

from benchmarks.scaling.files import UnusableTrace
from benchmarks.scaling.fleet import SERVICE, Service
from benchmarks.scaling.ours import ours
from benchmarks.scaling.run import MAX_REPLICAS, MIN_REPLICAS, Outcome, run
from benchmarks.scaling.traces import Trace


def main() -> int:
    """Print the line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.scaling.predict",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--trace", type=Path, required=True, metavar="FILE")
    parser.add_argument("--cold-start", type=float, required=True, metavar="S", help="seconds")
    parser.add_argument("--prefill-tokens-per-s", type=float, required=True, metavar="P", help="of one replica")
    parser.add_argument("--token-s", type=float, required=True, metavar="T", help="seconds of a token, alone")
    parser.add_argument(
        "--token-s-per-request", type=float, default=0.0, metavar="T", help="by which each running one lengthens it"
    )
    parser.add_argument("--slots", type=int, required=True, metavar="N", help="maxConcurrentSequences")
    parser.add_argument("--least", type=int, default=MIN_REPLICAS, metavar="N", help="replicas, and those at first")
    parser.add_argument("--most", type=int, default=MAX_REPLICAS, metavar="N", help="replicas")
    parser.add_argument("--end", type=float, metavar="S")
    given = parser.parse_args()
    service = replace(
        SERVICE,
        prefill_tokens_per_s=given.prefill_tokens_per_s,
        token_s=given.token_s,
        token_s_per_request=given.token_s_per_request,
        slots=given.slots,
    )
    try:
        trace = read(given.trace)
    except UnusableTrace as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    outcome = predict(trace, service, given.cold_start, given.least, given.most, given.end)
    changes = [0, *(np.flatnonzero(np.diff(outcome.targets)) + 1).tolist()]
    line = {
        "gpu_s": round(outcome.gpu_s, 1),
        "slo": None if math.isnan(outcome.slo) else round(outcome.slo, 5),
        "shed": None if math.isnan(outcome.shed) else round(outcome.shed, 6),
        "changes": len(changes) - 1,
        "wishes": [[second, int(outcome.targets[second])] for second in changes],
    }
    print(json.dumps(line))
    return 0


def predict(
    trace: Trace,
    service: Service,
    cold_start_s: float,
    least: int = MIN_REPLICAS,
    most: int = MAX_REPLICAS,
    end_s: float | None = None,
) -> Outcome:
    """What comes of `trace`, from second 0 to `end_s`, the last arrival where None: all of it counts."""
    policy = ours(cold_start_s, service, least, most)
    return run(trace, policy, cold_start_s, least=least, most=most, service=service, warm_s=0.0, end_s=end_s)


def read(file: Path) -> Trace:
    """A trace of seconds, prompt tokens and output tokens.

    Raises:
        UnusableTrace: it can not be read, holds no request, or a line of it is none.

    """
    rows: list[tuple[float, int, int]] = []
    try:
        with file.open(newline="", encoding="utf-8") as lines:
            for number, row in enumerate(csv.reader(lines), 1):
                try:
                    rows.append((float(row[0]), int(row[1]), int(row[2])))
                except (ValueError, IndexError) as error:
                    if number > 1 and row:
                        told = f"{file}, line {number}: not second, prompt tokens, output tokens: {','.join(row)[:80]}"
                        raise UnusableTrace(told) from error
    except (OSError, UnicodeDecodeError) as error:
        raise UnusableTrace(f"{file} can not be read: {error}") from error
    if not rows:
        raise UnusableTrace(f"{file} holds no request")
    rows.sort()
    at = np.array([row[0] for row in rows])
    prompt, output = (np.array([row[column] for row in rows], np.int32) for column in (1, 2))
    return Trace(file.stem, None, at, prompt, output, np.full(len(rows), np.inf))


if __name__ == "__main__":
    sys.exit(main())
