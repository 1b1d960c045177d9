"""Requests of a trace on a fixed fleet, routed in one way or another: a simulation. See `benchmarks.routing`."""

from __future__ import annotations

import csv
import heapq
import math
import random
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from hashlib import blake2b

from aixcoder_serving.gateway.placement import Candidate, place, ranked

PREFILL_TOKENS_PER_S = 12_000.0
SLOTS = 8
TOKEN_S, TOKEN_S_PER_REQUEST = 0.011, 0.0003
ROOM_S = 0.15


@dataclass(frozen=True, slots=True)
class Arrival:
    """One request; `at` in seconds."""

    at: float
    prompt: int
    output: int
    editor: bytes


@dataclass(eq=False, slots=True)
class Replica:
    """One replica; `busy_until`: when the prompts that it has are computed."""

    name: str
    running: int = 0
    tokens: int = 0
    busy_until: float = 0.0


@dataclass
class Fleet:
    """A fixed number of replicas, and what happened."""

    replicas: list[Replica]
    waits: list[float] = field(default_factory=list)
    at_first_choice: int = 0


Route = Callable[[Fleet, Arrival, float], Replica | None]


def fewest(fleet: Fleet, _arrival: Arrival, _now: float) -> Replica | None:
    """By requests."""
    free = [replica for replica in fleet.replicas if replica.running < SLOTS]
    return min(free, key=lambda replica: replica.running, default=None)


def least(fleet: Fleet, _arrival: Arrival, _now: float) -> Replica | None:
    """By the prompts before it."""
    free = [replica for replica in fleet.replicas if replica.running < SLOTS]
    return min(free, key=lambda replica: replica.busy_until, default=None)


def affinity(fleet: Fleet, arrival: Arrival, _now: float) -> Replica | None:
    """By the editor alone."""
    first = _first(fleet, arrival)
    return first if first.running < SLOTS else None


def ours(fleet: Fleet, arrival: Arrival, now: float) -> Replica | None:
    """As the gateway."""
    candidates = [
        Candidate(r.name, r.tokens, r.running < SLOTS and r.busy_until - now < ROOM_S) for r in fleet.replicas
    ]
    chosen = place(candidates, arrival.editor, arrival.prompt + arrival.output)
    return next((replica for replica in fleet.replicas if replica.name == chosen), None)


ROUTES: dict[str, Route] = {"fewest": fewest, "least": least, "affinity": affinity, "ours": ours}


def _first(fleet: Fleet, arrival: Arrival) -> Replica:
    name = ranked([replica.name for replica in fleet.replicas], arrival.editor)[0]
    return next(replica for replica in fleet.replicas if replica.name == name)


def simulate(arrivals: Sequence[Arrival], count: int, route: Route) -> Fleet:
    """Run the trace on `count` replicas. Who can not be placed waits in one queue, first come, first served."""
    fleet = Fleet([Replica(f"replica-{n}") for n in range(count)])
    ends: list[tuple[float, int, Replica, int]] = []
    queue: deque[Arrival] = deque()
    numbers = iter(range(10**9))

    def dispatch(now: float) -> None:
        while queue and (replica := route(fleet, queue[0], now)) is not None:
            arrival = queue.popleft()
            fleet.at_first_choice += replica is _first(fleet, arrival)
            begin = max(replica.busy_until, now)
            replica.busy_until = begin + arrival.prompt / PREFILL_TOKENS_PER_S
            replica.running += 1
            tokens = arrival.prompt + arrival.output
            replica.tokens += tokens
            fleet.waits.append(begin - arrival.at)
            done = replica.busy_until + arrival.output * (TOKEN_S + TOKEN_S_PER_REQUEST * replica.running)
            heapq.heappush(ends, (done, next(numbers), replica, tokens))
            # So much of its prompts is computed then that it has room for one more.
            heapq.heappush(ends, (max(replica.busy_until - ROOM_S, now) + 1e-9, next(numbers), replica, 0))

    def until(end: float) -> None:
        while ends and ends[0][0] <= end:
            now, _, replica, tokens = heapq.heappop(ends)
            replica.running -= tokens > 0
            replica.tokens -= tokens
            dispatch(now)

    for arrival in arrivals:
        until(arrival.at)
        queue.append(arrival)
        dispatch(arrival.at)
    until(math.inf)
    return fleet


def attained(fleet: Fleet, arrivals: Sequence[Arrival], wait: float) -> float:
    """The share of requests that waited no longer."""
    return sum(each <= wait for each in fleet.waits) / len(arrivals)


def read(path: str, editors: int, chance: random.Random) -> list[Arrival]:
    """Azure's trace, twice."""
    with open(path, newline="") as file:
        rows = [(datetime.fromisoformat(row["TIMESTAMP"][:26]).timestamp(), row) for row in csv.DictReader(file)]
    start = min(at for at, _ in rows)
    found = []
    for copy in range(2):
        for at, row in rows:
            late = chance.uniform(0, 2) if copy else 0.0
            who = blake2b(str(chance.randrange(editors)).encode(), digest_size=16).digest()
            found.append(Arrival(at - start + late, int(row["ContextTokens"]), int(row["GeneratedTokens"]), who))
    return sorted(found, key=lambda arrival: arrival.at)
