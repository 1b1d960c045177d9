"""Leader election on a coordination.k8s.io Lease: of several operator processes, one works.

All spans are measured by this process's monotonic clock; times written into the Lease are for people. The leader counts
its own from before it asked to renew, a candidate from when it saw the renewal, and the leader's span is the shorter
one: so the leader stops writing before anyone else begins, however its clock, its process or the network stands still.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from datetime import UTC, datetime

from aixcoder_operator.api.objects import Object
from aixcoder_operator.cluster import kinds
from aixcoder_operator.cluster.client import Client, ClusterError, Conflict, NotFound, NotLeading

LEASE_SECONDS = 13
"""A candidate takes over when it has seen no renewal for so long."""
HOLD_SECONDS = 9.0
"""The leader writes nothing when its last successful renewal began longer ago."""
RENEW_SECONDS = 2.0
LOOK_SECONDS = 1.0
"""How often a candidate looks; a released Lease is taken this soon."""

logger = logging.getLogger(__name__)


class Lease:
    """One process's part in the election. `client` must be unguarded, with a request time-out of a few seconds.

    `on_change` is told whenever this process begins or ceases to lead.
    """

    def __init__(
        self,
        client: Client,
        namespace: str,
        name: str,
        identity: str,
        *,
        on_change: Callable[[bool], None],
        lease_seconds: int = LEASE_SECONDS,
        hold_seconds: float = HOLD_SECONDS,
        renew_seconds: float = RENEW_SECONDS,
        look_seconds: float = LOOK_SECONDS,
    ) -> None:
        self._client = client
        self._namespace = namespace
        self._name = name
        self._identity = identity
        self._on_change = on_change
        self._lease_seconds = lease_seconds
        self._hold_seconds = hold_seconds
        self._renew_seconds = renew_seconds
        self._look_seconds = look_seconds
        self._held: Object | None = None
        self._safe_until = 0.0
        self._seen: tuple[str, float] = ("", 0.0)  # resourceVersion of the last look, and when it was first seen

    def holds(self) -> bool:
        """Whether this process surely leads now."""
        return time.monotonic() < self._safe_until

    def guard(self) -> float:
        """Seconds for which this process surely leads. Raises NotLeading where it does not."""
        remaining = self._safe_until - time.monotonic()
        if remaining <= 0:
            raise NotLeading(f"this process does not hold the Lease {self._namespace}/{self._name}")
        return remaining

    async def acquire(self) -> None:
        """Return once this process leads."""
        while True:
            try:
                if await self._try_to_acquire():
                    logger.info("leading: %s holds the Lease %s/%s", self._identity, self._namespace, self._name)
                    self._on_change(True)
                    return
            except Conflict:
                pass  # somebody else was faster
            except ClusterError as error:
                logger.warning("cannot take part in the election: %s", error)
            await asyncio.sleep(self._look_seconds)

    async def hold(self) -> str:
        """Renew for as long as it succeeds; return the reason when this process leads no longer."""
        reason = await self._renew_until_lost()
        self._safe_until = 0.0
        self._held = None
        self._on_change(False)
        return reason

    async def release(self) -> None:
        """Give the Lease up, so that a candidate takes it at once. Does nothing where this process does not lead."""
        held, self._held, self._safe_until = self._held, None, 0.0
        if held is None:
            return
        self._on_change(False)
        try:
            # Read anew: a renewal whose answer never came may have been stored.
            lease = await self._client.get(kinds.LEASE, self._namespace, self._name)
            if lease["spec"].get("holderIdentity") == self._identity:
                free = {"holderIdentity": "", "leaseDurationSeconds": 1, "renewTime": _now()}
                await self._client.replace({**lease, "spec": {**lease["spec"], **free}})
        except ClusterError as error:
            logger.warning("the Lease could not be released, a candidate waits it out: %s", error)

    async def _try_to_acquire(self) -> bool:
        began = time.monotonic()
        try:
            lease = await self._client.get(kinds.LEASE, self._namespace, self._name)
        except NotFound:
            new = {
                "apiVersion": kinds.LEASE.api_version,
                "kind": kinds.LEASE.kind,
                "metadata": {"name": self._name, "namespace": self._namespace},
                "spec": self._spec(transitions=0),
            }
            self._take(await self._client.create(new), began)
            return True
        spec = lease.get("spec") or {}
        version = lease["metadata"]["resourceVersion"]
        if version != self._seen[0]:
            self._seen = (version, time.monotonic())
        waited = time.monotonic() - self._seen[1]
        if spec.get("holderIdentity") and waited < float(spec.get("leaseDurationSeconds") or self._lease_seconds):
            return False
        began = time.monotonic()
        taken = {**lease, "spec": self._spec(transitions=int(spec.get("leaseTransitions") or 0) + 1)}
        self._take(await self._client.replace(taken), began)
        return True

    async def _renew_until_lost(self) -> str:
        problem = "no renewal was tried"
        while True:
            await asyncio.sleep(min(self._renew_seconds, max(0.0, self._safe_until - time.monotonic())))
            if not self.holds():
                return f"the Lease could not be renewed for {self._hold_seconds:.0f} s: {problem}"
            held = self._held
            if held is None:
                return "the Lease was released"
            began = time.monotonic()
            try:
                async with asyncio.timeout(self._safe_until - began):
                    renewed = {**held, "spec": {**held["spec"], "renewTime": _now()}}
                    self._take(await self._client.replace(renewed), began)
            except Conflict:
                lost = await self._look_after_conflict()
                if lost is not None:
                    return lost
            except (ClusterError, TimeoutError) as error:
                problem = str(error) or "the API server did not answer"
                logger.warning("the Lease could not be renewed: %s", problem)

    async def _look_after_conflict(self) -> str | None:
        """Somebody wrote the Lease: the reason why it is lost, or None where it still names us."""
        try:
            lease = await self._client.get(kinds.LEASE, self._namespace, self._name)
        except NotFound:
            return "the Lease was deleted"
        except ClusterError as error:
            logger.warning("the Lease could not be read: %s", error)
            return None
        holder = (lease.get("spec") or {}).get("holderIdentity")
        if holder != self._identity:
            return f"{holder or 'nobody'} holds the Lease"
        # Our own renewal whose answer was lost, or a person's annotation: go on from what is stored.
        self._held = lease
        return None

    def _take(self, lease: Object, began: float) -> None:
        self._held = lease
        self._safe_until = began + self._hold_seconds

    def _spec(self, transitions: int) -> Object:
        return {
            "holderIdentity": self._identity,
            "leaseDurationSeconds": self._lease_seconds,
            "acquireTime": _now(),
            "renewTime": _now(),
            "leaseTransitions": transitions,
        }


def _now() -> str:
    """Now as Kubernetes' MicroTime."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
