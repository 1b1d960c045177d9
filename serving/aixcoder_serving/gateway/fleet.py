"""All replicas that this gateway may use, and what it hears from each on its stream of load reports."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Protocol

from aixcoder_serving.gateway.placement import Candidate
from aixcoder_serving.gateway.replica_load import ReplicaLoad
from aixcoder_serving.gateway.setbacks import Ejections
from aixcoder_serving.gateway.upstream import UpstreamError
from aixcoder_serving.protocol import LoadReport

logger = logging.getLogger(__name__)

_FIRST_BACK_OFF, _LAST_BACK_OFF = 0.05, 1.0


class Reports(Protocol):
    """Where reports come from."""

    async def reports(self, address: str, uid: str, take: Callable[[LoadReport], None]) -> None:
        """Hand over the reports of a replica of the deployment `uid` until its stream ends, or is silent for too long.

        Raises:
            UpstreamError: why it ended.

        """


class _Replica:
    """One replica; its requests under way are ended where it is found dead."""

    def __init__(self) -> None:
        self.load = ReplicaLoad()
        self.following: asyncio.Task[None] | None = None
        self.uid = ""
        self.attempts: set[asyncio.Timeout] = set()
        self.deaths = 0


class Fleet:
    """Replicas by address `ip:port`. `changed` is called after each report, and where a replica comes or dies."""

    def __init__(self, source: Reports, changed: Callable[[], None]) -> None:
        self._source = source
        self._changed = changed
        self._replicas: dict[str, _Replica] = {}
        self._clock = asyncio.get_running_loop().time
        self.ejections = Ejections()

    def keep(self, addresses: Mapping[str, str]) -> None:
        """Follow these replicas (address → uid of the deployment) and no others.

        One that left the list may still end what it runs.
        """
        for address, uid in addresses.items():
            replica = self._replica(address)
            if replica.following is not None and replica.uid != uid:
                replica.following.cancel()  # another deployment's pod has that address now
                replica.following = None
                self._died(replica)
            if replica.following is None or replica.following.done():
                replica.uid = uid
                replica.following = asyncio.create_task(self._follow(address, replica))
        for address in [a for a, r in self._replicas.items() if a not in addresses and not r.attempts]:
            following = self._replicas.pop(address).following
            if following is not None:
                following.cancel()
        self.ejections.forget(self._replicas)

    async def close(self) -> None:
        """Follow nobody any more."""
        tasks = [replica.following for replica in self._replicas.values() if replica.following is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def load(self, address: str) -> ReplicaLoad:
        """What is known of a replica: of one that is not followed yet, what was sent there."""
        return self._replica(address).load

    @property
    def heard(self) -> int:
        """Replicas that tell their load."""
        return sum(replica.load.report is not None for replica in self._replicas.values())

    def usable(self, addresses: Collection[str]) -> set[str]:
        """Those of a deployment's replicas that seem to be there.

        A replica that tells nothing is used only where all of them do: then it is our ears that fail.
        """
        heard = [address for address in addresses if self.load(address).report is not None]
        return set(self.ejections.usable(heard or addresses, self._clock()))

    def candidates(self, addresses: Collection[str]) -> list[Candidate]:
        """What is known of some replicas."""
        return [Candidate(a, self.load(a).tokens, self.load(a).room) for a in addresses]

    def slots(self, addresses: Collection[str]) -> int:
        """Completions that these replicas can run at once, as far as they told."""
        return sum(report.slots for address in addresses if (report := self.load(address).report) is not None)

    @contextmanager
    def attempt(self, address: str, timeout: asyncio.Timeout) -> Iterator[Callable[[], bool]]:
        """While the block runs, `timeout` is over at once when the replica dies; yields whether it has."""
        replica = self._replica(address)
        deaths = replica.deaths
        replica.attempts.add(timeout)
        try:
            yield lambda: replica.deaths > deaths
        finally:
            replica.attempts.discard(timeout)

    def _replica(self, address: str) -> _Replica:
        replica = self._replicas.get(address)
        if replica is None:
            replica = self._replicas[address] = _Replica()
        return replica

    async def _follow(self, address: str, replica: _Replica) -> None:
        """Hear a replica's reports, again and again. The end of a stream that told something is a death notice."""
        back_off = _FIRST_BACK_OFF

        def take(report: LoadReport) -> None:
            nonlocal back_off
            back_off = _FIRST_BACK_OFF
            replica.load.take(report)
            self.ejections.worked(address)
            self._changed()

        while True:
            try:
                await self._source.reports(address, replica.uid, take)
            except UpstreamError as error:
                if replica.load.report is not None:
                    logger.warning("%s is taken for dead: %s", address, error)
            if replica.load.report is not None:
                self._died(replica)
                self._changed()
            await asyncio.sleep(back_off)
            back_off = min(2 * back_off, _LAST_BACK_OFF)

    def _died(self, replica: _Replica) -> None:
        """Nothing holds any more of what it told, and what runs there is over."""
        replica.load.unheard()
        replica.deaths += 1
        for timeout in replica.attempts:
            if timeout.when() is not None and not timeout.expired():
                timeout.reschedule(self._clock())
