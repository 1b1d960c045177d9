"""What went wrong before, and what follows from it: which replicas are left alone, which requests are refused.

Decides only; times are in seconds of a monotonic clock.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable

EJECTED_SECONDS = 5.0
"""How long a replica that could not be reached is left alone; twice as long each further time, up to a minute."""
_EJECTED_MOST = 60.0

POISON_DEATHS = 2
POISON_SECONDS = 600.0

RETRY_SHARE = 0.1
_RETRY_RESERVE = 100.0
"""Retries that may come at once: what one replica has in flight when it dies."""


class Ejections:
    """Replicas that could not be reached."""

    def __init__(self) -> None:
        self._until: dict[str, float] = {}
        self._times: dict[str, int] = {}

    def failed(self, address: str, now: float) -> None:
        """A connection to it failed."""
        if self._until.get(address, 0.0) > now:
            return
        times = self._times.get(address, 0)
        self._times[address] = times + 1
        self._until[address] = now + min(EJECTED_SECONDS * 2**times, _EJECTED_MOST)

    def worked(self, address: str) -> None:
        """It answered."""
        self._until.pop(address, None)
        self._times.pop(address, None)

    def usable(self, addresses: Collection[str], now: float) -> list[str]:
        """Those that are not ejected: at least half of them, those that come back soonest first; all where all are.

        A fault of one's own network looks as if everybody else was gone.
        """
        out = sorted((a for a in addresses if self._until.get(a, 0.0) > now), key=lambda a: (self._until[a], a))
        if len(out) == len(addresses):
            return list(addresses)
        ejected = out[len(out) - min(len(out), len(addresses) // 2) :]
        return [address for address in addresses if address not in ejected]

    def forget(self, known: Collection[str]) -> None:
        """Keep nothing of replicas that are no more."""
        for address in [a for a in self._times if a not in known]:
            self._until.pop(address, None)
            del self._times[address]


class RetryBudget:
    """Requests sent again, at most a tenth of those sent: where replicas fail in numbers, retries are part of the fall.

    A continuation counts as one, a replica's refusal before it took anything does not.
    """

    def __init__(self) -> None:
        self._left = _RETRY_RESERVE

    def sent(self) -> None:
        """A request was sent for the first time."""
        self._left = min(self._left + RETRY_SHARE, _RETRY_RESERVE)

    def spend(self) -> bool:
        """Take one retry, if one is left."""
        if self._left < 1.0:
            return False
        self._left -= 1.0
        return True


class Poison:
    """Requests that were in flight when a replica died. One that was twice is taken for the cause."""

    def __init__(self) -> None:
        self._deaths: dict[Hashable, tuple[int, float]] = {}

    def death(self, request: Hashable, now: float) -> None:
        """A replica died while it ran this request."""
        self._forget(now)
        deaths, _ = self._deaths.get(request, (0, now))
        self._deaths[request] = deaths + 1, now

    def suspected(self, request: Hashable, now: float) -> bool:
        """Whether to refuse it."""
        deaths, last = self._deaths.get(request, (0, 0.0))
        return deaths >= POISON_DEATHS and now - last < POISON_SECONDS

    def _forget(self, now: float) -> None:
        for request in [r for r, (_, last) in self._deaths.items() if now - last >= POISON_SECONDS]:
            del self._deaths[request]
