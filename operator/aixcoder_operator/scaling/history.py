"""What all gateways did, second by second: their pages `/load` become the seconds that the policy is fed with. Pure.

A second is over at a gateway when its clock says so; the whole knows it when every gateway has told it that should
have. One that is not told `WAIT_S` after its end is closed as unknown, not as zero. When its gateway tells it after
all, it becomes known, and `mended` says that what was read of the closed seconds has to be read again.

A gateway is a process: uid and start. Another one at the same address did nothing before it started, and what the one
before it has not told it never will. Of a process that is gone, what it told of its last second is all that is known.

Times are of the operator's clock, seconds since 1970. A gateway whose clock is off by more than a second is read with
the difference; "raw" are seconds of its own clock, which is never set back.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field, fields
from itertools import count

from aixcoder_operator.scaling.load import Second
from aixcoder_serving.protocol import KEPT_SECONDS, GatewayLoad, LoadCounters

WAIT_S = 2.0
"""For which a second is waited for after its end, and for which an answer counts as being of now."""

_RECENT_SECONDS = 5
_CLOSE_S = 1.0  # by which clocks may differ and still be read as one
_COUNTERS = tuple(one.name for one in fields(Second) if one.name in LoadCounters.model_fields)
_NOBODY = ""  # the address that has not told a second in which no gateway was known

_Counts = tuple[float, ...]


@dataclass
class _Process:
    """One gateway as it has told itself."""

    skew: int
    """What its seconds are counted forward by to be ours."""
    read: int
    """Raw: the first second of which not all is in the sums."""
    blind: int = 0
    """Ours: before this one another process was at its address, which has not told all."""
    told_at: float = -math.inf
    open: list[tuple[str, int, _Counts]] = field(default_factory=list)
    """What it told of seconds that were not over, ours."""
    waiting: dict[str, int] = field(default_factory=dict)
    running: dict[str, int] = field(default_factory=dict)

    @property
    def complete(self) -> int:
        """Ours: it has told all before."""
        return self.read + self.skew


class History:
    """Of all deployments, by their keys `namespace/name`, for the last half hour. `now`: when it begins."""

    def __init__(self, now: float) -> None:
        self._opened = now
        self.closed = math.floor(now) - KEPT_SECONDS
        """The first second that is not closed: it may still be told in time."""
        self._processes: dict[tuple[str, float], _Process] = {}
        self._at: dict[str, tuple[str, float]] = {}  # address → the process that answered there last
        self._sums: defaultdict[str, dict[int, _Counts]] = defaultdict(dict)
        self._missed: dict[int, set[str]] = {}  # closed second → addresses that should have told it
        self._changes = count(1)
        self._all_mended = 0
        self._mended: dict[str, int] = {}

    def since(self, address: str, now: float) -> int:
        """The second to ask the gateway at `address` for, by its own clock, with those that follow."""
        process = self._process_at(address)
        return math.floor(now) - KEPT_SECONDS if process is None else process.read

    def take(self, address: str, since: int, until: int, page: GatewayLoad, now: float) -> bool:
        """Take what a gateway answered at `now` to being asked for the seconds from `since` to before `until`.

        False where it cannot be used, which is as if it had not answered.
        """
        if not _is_sound(page):
            return False
        process = self._recognise(address, page, now)
        if since > process.read:
            return False  # another process was meant, or one whose clock is not ours
        over = min(math.floor(page.now), until)
        process.open = []
        for key, raw, counts in _bins(page):
            if process.read <= raw < over:
                self._add(key, raw + process.skew, counts)
            elif process.read <= raw < until:
                process.open.append((key, raw + process.skew, counts))
        process.read = max(process.read, over)
        process.told_at = now
        process.waiting = {_key(load.namespace, load.name): load.waiting for load in page.deployments}
        process.running = {_key(load.namespace, load.name): load.running for load in page.deployments}
        self._mend(address, process)
        return True

    def close(self, now: float, listed: Collection[str], expected: Collection[str]) -> None:
        """Close the seconds that are told, or were waited for in vain.

        `listed`: addresses of gateways; `expected`: those of them that should answer. Who is silent is not waited for.
        """
        for address in self._at.keys() - set(listed):
            identity = self._at.pop(address)
            if identity not in self._at.values():
                self._end(identity)
        is_new = now < self._opened + WAIT_S
        while self.closed < math.floor(now):
            second = self.closed
            behind = {address for address in listed if not self._has_told(address, second)}
            missed = behind & {*expected} if expected else {_NOBODY}
            is_late = now < second + 1 + WAIT_S and any(self._tells(address, now) for address in behind)
            if is_late or (missed and is_new):
                break
            if missed:
                self._missed[second] = missed
            self._forget(second - KEPT_SECONDS)
            self.closed += 1

    def second(self, key: str, second: int, queued: float = 0.0, starved: bool = False) -> Second:
        """What was done for a deployment in one second; a gateway that does not know the deployment did nothing.

        Of a second that is unknown, what is known of it. `queued` and `starved`: what no gateway tells of it.
        """
        counts = self._sums[key].get(second) if key in self._sums else None
        told = {} if counts is None else dict(zip(_COUNTERS, counts, strict=True))
        return Second(second, **told, queued=queued, heard=second not in self._missed, starved=starved)

    def arrivals_per_s(self, key: str) -> float:
        """In the last closed seconds, as far as they are known."""
        recent = range(self.closed - _RECENT_SECONDS, self.closed)
        return sum(self.second(key, second).arrivals for second in recent) / _RECENT_SECONDS

    def mended(self, key: str) -> int:
        """Another number than before where closed seconds of this deployment have changed."""
        return max(self._all_mended, self._mended.get(key, 0))

    def waiting(self, key: str, now: float) -> int:
        """Requests that wait now, at the gateways that are heard."""
        return sum(process.waiting.get(key, 0) for process in self._telling(now))

    def running(self, key: str, now: float) -> int:
        """Requests that have a replica now, at the gateways that are heard."""
        return sum(process.running.get(key, 0) for process in self._telling(now))

    def unheard(self, now: float, expected: Collection[str]) -> list[str]:
        """Those of the `expected` addresses that have told nothing of late."""
        return sorted(address for address in expected if not self._tells(address, now))

    def _recognise(self, address: str, page: GatewayLoad, now: float) -> _Process:
        """The process that answers at `address`; the one that did before has ended."""
        identity, before = (page.uid, page.started), self._at.get(address)
        process = self._processes.get(identity)
        if process is None:
            read = max(math.floor(page.started), math.floor(page.now) - KEPT_SECONDS)
            process = self._processes[identity] = _Process(_skew(now - page.now), read)
            # The first one at an address did nothing before it started, and nobody else was there.
            process.blind = 0 if before is None else process.complete
        elif abs(now - page.now - process.skew) > _CLOSE_S:
            process.skew = _skew(now - page.now)
        self._at[address] = identity
        if before is not None and before != identity:
            self._end(before)
        return process

    def _process_at(self, address: str) -> _Process | None:
        identity = self._at.get(address)
        return None if identity is None else self._processes[identity]

    def _has_told(self, address: str, second: int) -> bool:
        process = self._process_at(address)
        return process is not None and process.blind <= second < process.complete

    def _tells(self, address: str, now: float) -> bool:
        process = self._process_at(address)
        return process is not None and now - process.told_at <= WAIT_S

    def _telling(self, now: float) -> Iterator[_Process]:
        return (self._processes[one] for one in {*self._at.values()} if now - self._processes[one].told_at <= WAIT_S)

    def _add(self, key: str, second: int, counts: _Counts) -> None:
        if second < self.closed - KEPT_SECONDS:
            return
        bins = self._sums[key]
        before = bins.get(second)
        bins[second] = counts if before is None else tuple(map(sum, zip(before, counts, strict=True)))
        if second < self.closed:
            self._mended[key] = next(self._changes)

    def _mend(self, address: str, process: _Process) -> None:
        """Closed seconds that were missed and are told after all become known."""
        for second in [one for one in self._missed if process.blind <= one < process.complete]:
            missed = self._missed[second]
            missed.discard(address)
            if not missed:
                del self._missed[second]
                self._all_mended = next(self._changes)

    def _end(self, identity: tuple[str, float]) -> None:
        """Of a process that is gone, the last second counts as it was told."""
        process = self._processes[identity]
        for key, second, counts in process.open:
            self._add(key, second, counts)
            process.read = max(process.read, second - process.skew + 1)
        process.open, process.waiting, process.running = [], {}, {}

    def _forget(self, second: int) -> None:
        self._missed.pop(second, None)
        for key, bins in list(self._sums.items()):
            bins.pop(second, None)
            if not bins:
                del self._sums[key]
                self._mended.pop(key, None)
        for identity, process in list(self._processes.items()):
            # One that comes back within the half hour must not be read twice.
            if process.complete < second and identity not in self._at.values():
                del self._processes[identity]


def _skew(difference: float) -> int:
    return 0 if abs(difference) <= _CLOSE_S else round(difference)


def _key(namespace: str, name: str) -> str:
    return f"{namespace}/{name}"


def _bins(page: GatewayLoad) -> Iterator[tuple[str, int, _Counts]]:
    for load in page.deployments:
        for one in load.bins:
            yield _key(load.namespace, load.name), one.second, _counts(one.counts)


def _counts(counters: LoadCounters) -> _Counts:
    return tuple(getattr(counters, counter) for counter in _COUNTERS)


def _is_sound(page: GatewayLoad) -> bool:
    """Whether it is made of numbers."""
    return all(map(math.isfinite, (page.now, page.started))) and all(
        math.isfinite(amount) for _, _, counts in _bins(page) for amount in counts
    )
