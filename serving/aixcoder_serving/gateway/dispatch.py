"""Gives requests places at replicas; what can not run yet waits here, since a replica gets no more than it can run.

The replica is the authority on its room. It tells each change, and refuses what comes too much: that goes back to its
place in the queue. All gateways decide alike and never talk to each other.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from aixcoder_serving.gateway import placement, problems, routing
from aixcoder_serving.gateway.editor import Editor, continues
from aixcoder_serving.gateway.fair_queue import FairQueue, Waiting
from aixcoder_serving.gateway.fleet import Fleet
from aixcoder_serving.gateway.ledger import DeploymentLedger, Ledger
from aixcoder_serving.gateway.problems import Problem
from aixcoder_serving.gateway.routing import RouteTable
from aixcoder_serving.protocol import CompletionRequest, DeploymentView

HELD_MOST = 2000
HELD_BYTES = 128 * 2**20
"""Bounds of all that waits in one queue: a gateway's memory."""

_SOON_SECONDS = 0.001  # a clock is not as fine as a moment
_FIRST_HOLD = 0.5  # seconds for which a place is held, before any was seen
_WEIGHT = 0.05  # of one more
_TICK_SECONDS = 0.1
"""An ejection ends by itself: who waits is looked at again."""


class Superseded(Exception):
    """The same editor's next request took this one's place in the queue."""


@dataclass(eq=False, slots=True)
class Body:
    """What the completions of one body share: all of them are superseded, or none."""

    begun: bool = False
    """Whether a replica has run any of them: from then on nothing supersedes them."""


@dataclass(eq=False)
class Wish:
    """A request that needs a place. `patience` in seconds; `avoid` are replicas that it was lost at or could not reach.

    `affinity` keeps it with others of its editor; `tokens` are prompt and completion at most, an estimate
    from `text_bytes`, which are 0 where it is exact; `size` is what it takes of memory, in bytes.
    """

    deployment: DeploymentView
    request: CompletionRequest
    key: str
    weight: float
    editor: Editor | None
    affinity: bytes
    tokens: int
    size: int
    text_bytes: int
    patience: float
    avoid: set[str] = field(default_factory=set)
    since: float | None = None
    """When it began to wait: kept where a replica refuses it."""
    late: bool = False
    """Whether it was counted as one that waited too long."""
    used: int = 0
    """Tokens that it has used at the replica where it is, or was last."""
    body: Body = field(default_factory=Body)

    def late_in(self, now: float) -> float:
        """Seconds until it will have waited longer than its deployment's target; endless where that was counted."""
        target = self.deployment.spec.autoscaling.queue_time_target_ms / 1000
        return math.inf if self.late else (self.since or 0.0) + target - now

    def waited_until(self, now: float, ledger: DeploymentLedger) -> None:
        """It has waited until then, for a place or at its replica: counted, once, where that is too long."""
        if self.late_in(now) < 0:
            self.late = True
            ledger.count("waited_over_target")

    def last(self, patience: float, now: float) -> None:
        """Somebody waits for it, from now on, for so long."""
        self.patience = max(self.patience, now - (self.since or now) + patience)


@dataclass(eq=False, slots=True)
class _Waiter:
    wish: Wish
    place: asyncio.Future[str]


class _Queue:
    """The requests of one deployment that wait, and for how long a place is held there."""

    def __init__(self, deployment: DeploymentView) -> None:
        self.deployment = deployment
        self.waiting: FairQueue[_Waiter] = FairQueue()
        self.hold_seconds = _FIRST_HOLD

    def held(self, seconds: float) -> None:
        self.hold_seconds += _WEIGHT * (seconds - self.hold_seconds)


class Dispatcher:
    """The places of all deployments. Used from one event loop."""

    def __init__(self, routes: RouteTable, fleet: Fleet, ledger: Ledger) -> None:
        self._routes = routes
        self._fleet = fleet
        self._ledger = ledger
        self._queues: dict[str, _Queue] = {}
        self._clock = asyncio.get_running_loop().time

    @asynccontextmanager
    async def place(self, wish: Wish) -> AsyncIterator[str]:
        """Wait for a replica with room and hold a place there while the block runs. Gives its address.

        Raises:
            Problem: nothing has room, or will have in time.
            Superseded: the same editor's next request came while it waited.

        """
        deployment = wish.deployment
        queue = self._queue(deployment)
        ledger = self._ledger.of(deployment.metadata.namespace, deployment.metadata.name)
        address = await self._wait(queue, ledger, wish)
        began = self._clock()
        ledger.place_taken()
        try:
            yield address
        finally:
            ledger.place_left()
            if wish.used:
                queue.held(self._clock() - began)
            # It was charged an estimate; what was refused, lost or left early has used less.
            queue.waiting.charge(wish.key, wish.used - wish.tokens)
            wish.used = 0
            self._fleet.load(address).ended(wish.request.id)
            self.pump()

    def pump(self) -> None:
        """Give places, as long as there are any; to be called whenever something may have changed."""
        view = self._routes.view or routing.NOTHING
        for queue in self._queues.values():
            # To find who is next takes a look at all that wait: not with each report while nothing is free.
            while self._has_room(queue) and (entry := queue.waiting.peek()) is not None:
                wish = entry.what.wish
                if entry.what.place.done():  # its client has left, and has not been told yet
                    queue.waiting.remove(entry)
                    continue
                address = self._choose(routing.current(view, wish.deployment), wish)
                if address is None:
                    break
                queue.waiting.take(entry)
                self._fleet.load(address).dispatched(wish.request.id, wish.tokens)
                entry.what.place.set_result(address)
            queue.waiting.forget_idle()

    async def run(self) -> None:
        """Look at those that wait now and then, until cancelled."""
        while True:
            await asyncio.sleep(_TICK_SECONDS)
            self.pump()
            self._forget()

    async def _wait(self, queue: _Queue, ledger: DeploymentLedger, wish: Wish) -> str:
        now = self._clock()
        if wish.since is None:
            wish.since = now
            self._admit(queue, ledger, wish)
        elif self._is_outdated(queue, wish):
            raise Superseded
        waiter = _Waiter(wish, asyncio.get_running_loop().create_future())
        place = waiter.place
        deadline = wish.since + wish.patience
        if now > deadline:  # it has been somewhere, and came back: a place that is free at once would hide its time-out
            raise self._late(wish)
        entry = Waiting(wish.key, wish.editor, wish.tokens, deadline, wish.since, wish.size, waiter)
        queue.waiting.push(entry, wish.weight)
        ledger.waiting += 1
        self.pump()
        given = False
        try:
            # The patience may grow meanwhile.
            while not place.done() and (left := wish.since + wish.patience - self._clock()) > 0:
                await asyncio.wait((place,), timeout=max(min(left, wish.late_in(self._clock())), _SOON_SECONDS))
                wish.waited_until(self._clock(), ledger)
            if not place.done():
                raise self._late(wish)
            address = place.result()
            given = True
            return address
        finally:
            ledger.waiting -= 1
            wish.waited_until(self._clock(), ledger)
            queue.waiting.remove(entry)
            if not given and place.done() and place.exception() is None:
                # It was given a place just when it stopped to wait.
                self._fleet.load(place.result()).ended(wish.request.id)
                self.pump()

    def _admit(self, queue: _Queue, ledger: DeploymentLedger, wish: Wish) -> None:
        """Refuse a new request, or let it in: what it goes on with, and who has too much there, make room for it.

        Raises:
            Problem: it would wait for too long, or its own key has filled the queue. What it goes on with waits on.

        """
        addresses = self._addresses(wish.deployment)
        if not addresses:
            ledger.count("wakes")
        older = [
            entry
            for entry in (queue.waiting.of_editor(wish.key, wish.editor) if wish.editor is not None else ())
            if _continues(wish, entry.what.wish) and not entry.what.place.done()
        ]
        slots = self._fleet.slots(addresses)
        if slots:
            seconds = queue.waiting.ahead_of(wish.key, len(older)) * queue.hold_seconds / slots
            if seconds > wish.patience:
                raise problems.overloaded(round(seconds))
        more, more_bytes = 1 - len(older), wish.size - sum(entry.size for entry in older)
        while (by_bytes := queue.waiting.bytes + more_bytes > HELD_BYTES) or len(queue.waiting) + more > HELD_MOST:
            largest = queue.waiting.newest_of_largest(by_bytes=by_bytes)
            if largest is None or largest.key == wish.key:
                raise problems.overloaded(round(wish.patience))
            # No key fills the queue alone: the newest of the one that has the most there makes room.
            queue.waiting.remove(largest)
            if not largest.what.place.done():
                largest.what.place.set_exception(problems.overloaded(round(largest.what.wish.patience)))
        for entry in older:
            queue.waiting.remove(entry)
            entry.what.place.set_exception(Superseded())

    def _is_outdated(self, queue: _Queue, wish: Wish) -> bool:
        """A replica refused it, and what its editor typed meanwhile waits already."""
        return wish.editor is not None and any(
            _continues(newer.what.wish, wish) for newer in queue.waiting.of_editor(wish.key, wish.editor)
        )

    def _choose(self, deployment: DeploymentView, wish: Wish) -> str | None:
        """The replica for a request, of the revision that its affinity falls to; None where none has room.

        A revision without replicas, or without room, leaves its share to the others: nobody waits while a replica
        idles. What a request should avoid it gets only where there is nothing else.
        """
        view = self._routes.view or routing.NOTHING
        units = {unit: found for unit, found in routing.units_with_traffic(view, deployment).items() if found}
        weights = {unit: deployment.status.traffic.weights[unit] for unit in units}
        unit = placement.revision(weights, wish.affinity)
        if unit is None:
            return None
        there = {address for addresses in units.values() for address in addresses}
        usable = self._fleet.usable(there)
        wanted = usable - wish.avoid
        # One that has not told its load yet is better than one that this request was lost at.
        untold = there - wish.avoid if wish.avoid else set()
        for addresses in (wanted.intersection(units[unit]), wanted, untold, usable):
            candidates = self._fleet.candidates(sorted(addresses))
            if (address := placement.place(candidates, wish.affinity, wish.tokens)) is not None:
                return address
        return None

    def _addresses(self, deployment: DeploymentView) -> Collection[str]:
        view = self._routes.view or routing.NOTHING
        units = routing.units_with_traffic(view, routing.current(view, deployment))
        return {address for addresses in units.values() for address in addresses}

    def _late(self, wish: Wish) -> Problem:
        return problems.overloaded(1) if self._addresses(wish.deployment) else problems.no_replica()

    def _queue(self, deployment: DeploymentView) -> _Queue:
        uid = deployment.metadata.uid
        if uid not in self._queues:
            self._queues[uid] = _Queue(deployment)
        return self._queues[uid]

    def _has_room(self, queue: _Queue) -> bool:
        return any(self._fleet.load(address).room for address in self._addresses(queue.deployment))

    def _forget(self) -> None:
        """Keep no queue of a deployment that is no more."""
        if self._routes.view is None:
            return
        known = {deployment.metadata.uid for deployment in self._routes.view.deployments}
        for uid in [uid for uid, queue in self._queues.items() if uid not in known and not len(queue.waiting)]:
            del self._queues[uid]


def _continues(new: Wish, old: Wish) -> bool:
    """Whether the newer body's request takes the place of the older one's, which no replica has begun."""
    if new.body is old.body or old.body.begun:
        return False
    return (new.since or 0.0) >= (old.since or 0.0) and continues(new.request, old.request)
