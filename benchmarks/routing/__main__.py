"""How many replicas a fixed fleet needs, by how requests are routed: simulated, and by our gateway itself.

    python -m benchmarks.routing --trace FILE [--goal 0.99] [--wait 0.2] [--editors 500] [--live 300] [--start 840]

The trace is Azure's of code completions (TIMESTAMP, ContextTokens, GeneratedTokens), each request twice, the copy a
little later. A replica computes prompts one after the other, 12,000 tokens a second, and runs 8 requests at once; a
token takes 11 ms and 0.3 ms for each of them. A request waits from its arrival to the beginning of its prompt.

- `fewest`: the replica with the fewest requests, from one queue;
- `least`: the one whose prompts are done first, from one queue: nothing can be better, and nothing is cached twice;
- `affinity`: the first choice of its editor, whatever it has to do;
- `ours`: what the gateway does. First choices by rendezvous, passed over above 1.25 times the mean of tokens; a replica
  takes no more than 150 ms of prompts that wait, the rest waits in the gateway.
JSON lines: `replicas` is the smallest fleet of which a `goal` share of all requests waits no longer than `wait`
seconds, `attained` its share, `same_replica` the share of requests that went to the first choice of their editor.

With `--live` one more line: that many seconds of the trace, from second `--start` on, are sent to a gateway with the
fleet that `ours` needs. Its replicas are no more than the arithmetic above behind the protocol, with the admission of
real ones; `simulated` is what the simulation gives for the same seconds.
"""

from __future__ import annotations

import argparse
import json
import random
import sys

from benchmarks.contest import end_on_sigterm
from benchmarks.routing.live import play
from benchmarks.routing.simulate import ROUTES, Fleet, attained, read, simulate

MOST_REPLICAS = 64


def main() -> int:
    """Print the lines."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.routing", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--trace", required=True)
    parser.add_argument("--goal", type=float, default=0.99, help="share of requests")
    parser.add_argument("--wait", type=float, default=0.2, help="seconds")
    parser.add_argument("--editors", type=int, default=500)
    parser.add_argument("--live", type=float, default=0.0, help="seconds of the trace to play on a real gateway")
    parser.add_argument("--start", type=float, default=840.0, help="second of the trace at which they begin")
    arguments = parser.parse_args()
    end_on_sigterm()
    arrivals = read(arguments.trace, arguments.editors, random.Random(0))
    needed = MOST_REPLICAS
    for name, route in ROUTES.items():
        low, high = 1, MOST_REPLICAS
        best: Fleet | None = None
        while low < high:
            middle = (low + high) // 2
            fleet = simulate(arrivals, middle, route)
            if attained(fleet, arrivals, arguments.wait) >= arguments.goal:
                high, best = middle, fleet
            else:
                low = middle + 1
            print(f"{name}: {middle} replicas: {attained(fleet, arrivals, arguments.wait):.4f}", file=sys.stderr)
        line: dict[str, object] = {"bench": "routing", "route": name, "goal": arguments.goal}
        if best is None:
            print(json.dumps({**line, "error": f"more than {MOST_REPLICAS} replicas"}))
            continue
        shares = {
            "replicas": high,
            "attained": round(attained(best, arrivals, arguments.wait), 4),
            "same_replica": round(best.at_first_choice / max(len(best.waits), 1), 3),
        }
        print(json.dumps({**line, **shares}), flush=True)
        if name == "ours":
            needed = high
    if arguments.live:
        end = arguments.start + arguments.live
        some = [arrival for arrival in arrivals if arguments.start <= arrival.at < end]
        simulated = attained(simulate(some, needed, ROUTES["ours"]), some, arguments.wait)
        found = play(some, needed, arguments.wait)
        line = {"bench": "routing", "route": "ours", "live_s": arguments.live, "replicas": needed, **found}
        print(json.dumps({**line, "simulated": round(simulated, 4)}), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
