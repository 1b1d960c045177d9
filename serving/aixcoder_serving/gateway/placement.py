"""Which revision and which replica take a request: the same answer in every gateway, which never talk to each other.

Rendezvous hashing (Thaler, Ravishankar 1996), weighted for revisions, with bounded loads for replicas (Mirrokni,
Thorup, Zadimoghaddam 2016): a request goes to the replica that its affinity ranks first, unless that one has `BOUND`
times the mean of tokens in flight; then to the next one. Decides only.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

BOUND = 1.25
IDLE = 2
"""Requests of the same size that a replica may have in flight whatever the mean is: it is as good as idle."""
_DIGEST_END = 2.0**64


@dataclass(frozen=True, slots=True)
class Candidate:
    """A replica that is there. `room`: it would take a request now. `tokens` in flight there, by its own account."""

    address: str
    tokens: float
    room: bool


def revision(weights: Mapping[str, int], affinity: bytes) -> str | None:
    """The revision for an affinity; each gets its weight's share of all affinities. None where all weights are zero.

    Where a weight changes, only as many affinities move as the change is.
    """
    scores = {
        name: -weight / math.log((_digest(b"revision", affinity, name) + 1.0) / (_DIGEST_END + 2.0))
        for name, weight in weights.items()
        if weight > 0
    }
    return max(scores, key=lambda name: (scores[name], name), default=None)


def ranked(addresses: Iterable[str], affinity: bytes) -> list[str]:
    """The replicas, first choice first. One that comes takes its share from all others, one that goes leaves its."""
    return sorted(addresses, key=lambda address: (_digest(b"replica", affinity, address), address), reverse=True)


def place(candidates: Sequence[Candidate], affinity: bytes, tokens: int) -> str | None:
    """The replica for a request of so many tokens, or None where none has room.

    The first in rank with room that is within the bound; where no such one is, that with room and the fewest tokens:
    nobody waits while a replica idles.
    """
    by_address = {candidate.address: candidate for candidate in candidates}
    order = [by_address[address] for address in ranked(by_address, affinity)]
    mean = (sum(candidate.tokens for candidate in candidates) + tokens) / max(len(candidates), 1)
    bound = max(BOUND * mean, IDLE * tokens)
    free = [candidate for candidate in order if candidate.room]
    for candidate in free:
        if candidate.tokens < bound:
            return candidate.address
    return min(free, key=lambda candidate: candidate.tokens).address if free else None


def _digest(salt: bytes, affinity: bytes, name: str) -> int:
    # Salted apart: else the replicas of one revision would get no share of the affinities that it does not get.
    digest = hashlib.blake2b(affinity + name.encode(), digest_size=8, person=salt)
    return int.from_bytes(digest.digest(), "big")
