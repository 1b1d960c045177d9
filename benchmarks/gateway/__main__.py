"""What a router adds to a completion, and how much one core of it carries.

    python -m benchmarks.gateway [--routers ours,envoy] [--repeats 5] [--held 2000] [--seconds 3]

One mock replica without a model stands behind each router in turn; requests have 1.4 kB. JSON lines on standard output,
progress on standard error; medians over the repeats:
- `p50_ms`, `p99_ms`: of whole answers, one after the other on one connection, less what the mock alone takes for them;
- `requests_per_s`: whole answers a second of the router's processor time, with 32 connections busy;
- `deltas_per_s`: deltas a second of its processor time, in streams of 200 on 16 connections;
- `held_kb`: memory a stream takes while `--held` of them are open; `rss_mb`: of all its processes before that;
- a router that can not be installed, does not start or fails has `error` instead, and the others go on.
Ours does what it always does: keys are off, all else is on, its log goes to a file. Envoy routes by path and does not
look at a body.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import resource
import sys
import urllib.request
from collections.abc import Sequence
from statistics import median, quantiles

from benchmarks import program
from benchmarks.contest import end_on_sigterm, progress, tell
from benchmarks.gateway.client import hold, latencies, throughput
from benchmarks.gateway.routers import ROUTERS, Router, Started, started
from benchmarks.peer import PeerFailed

WARM_UP, COUNT = 200, 2000
BUSY, STREAMS, DELTAS = 32, 16, 200


def mode(port: int, deltas: int, seconds: float) -> None:
    """What the mock answers from now on."""
    body = json.dumps({"deltas": deltas, "seconds": seconds}).encode()
    request = urllib.request.Request(f"http://127.0.0.1:{port}/mode", body, {"content-type": "application/json"})
    urllib.request.urlopen(request, timeout=5).read()


def percentiles(times: Sequence[float]) -> tuple[float, float]:
    """Median and 99th percentile, in milliseconds."""
    return median(times) * 1000, quantiles(times, n=100)[98] * 1000


async def measure(router: Started, replica: int, held: int, seconds: float) -> dict[str, float]:
    """One repeat of one router."""
    mode(replica, 1, 0.0)
    await latencies(router.port, WARM_UP)
    p50, p99 = percentiles(await latencies(router.port, COUNT))
    own_p50, own_p99 = percentiles(await latencies(replica, COUNT))
    before = router.cpu_seconds()
    answers, _ = await throughput(router.port, stream=False, connections=BUSY, seconds=seconds)
    between = router.cpu_seconds()
    mode(replica, DELTAS, 0.0)
    streams, _ = await throughput(router.port, stream=True, connections=STREAMS, seconds=seconds)
    after = router.cpu_seconds()
    rss = router.rss_mb()
    mode(replica, 1000, 10.0)
    callers = await hold(router.port, held)
    grown = router.rss_mb() - rss
    for caller in callers:
        if caller.transport is not None:
            caller.transport.abort()
    return {
        "p50_ms": p50 - own_p50,
        "p99_ms": p99 - own_p99,
        "requests_per_s": answers / max(between - before, 0.01),
        "deltas_per_s": streams * DELTAS / max(after - between, 0.01),
        "held_kb": grown * 1024 / held,
        "rss_mb": rss,
    }


def compare(router: Router, replica: int, arguments: argparse.Namespace) -> None:
    """Measure one router and tell it."""
    found = []
    try:
        for repeat in range(arguments.repeats):
            with started(router, replica) as running:
                found.append(asyncio.run(measure(running, replica, arguments.held, arguments.seconds)))
            progress(f"{repeat + 1}/{arguments.repeats} {router.name}: {json.dumps(found[-1])}")
    except (PeerFailed, OSError, RuntimeError, TimeoutError) as error:
        tell({"bench": "gateway", "router": router.name, "error": f"{type(error).__name__}: {error}"})
        return
    figures = {name: float(f"{median(one[name] for one in found):.4g}") for name in found[0]}
    tell({"bench": "gateway", "router": router.name, **figures})


def main() -> int:
    """Measure and print."""
    names = [router.name for router in ROUTERS]
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gateway",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--routers", default=",".join(names), help="those to measure, not given: all")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--held", type=int, default=2000, help="streams that are open at once")
    parser.add_argument("--seconds", type=float, default=3.0, help="of each throughput")
    arguments = parser.parse_args()
    end_on_sigterm()
    chosen = arguments.routers.split(",")
    if unknown := [name for name in chosen if name not in names]:
        parser.error(f"--routers {unknown[0]} is none of {', '.join(names)}")
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # a held stream takes two of a router's, and one of ours
    with program.started("benchmarks.gateway.mock", "0") as (_, port):
        for router in ROUTERS:
            if router.name in chosen:
                compare(router, int(port), arguments)
    return 0


if __name__ == "__main__":
    sys.exit(main())
