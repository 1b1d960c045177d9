"""Gateways with real ledgers and clocks of their own, and the history of who asks them each second."""

from __future__ import annotations

from dataclasses import dataclass, field

from aixcoder_operator.scaling.history import History
from aixcoder_serving.gateway.ledger import Ledger
from aixcoder_serving.protocol import GatewayLoad

NOON = 1_000_000
KEY = "ns/demo"
PIECE = 60
"""Seconds of which one is asked at once."""


class Gateway:
    """One process. `off`: seconds by which its clock is ahead of ours."""

    def __init__(self, world: World, uid: str, off: float = 0.0) -> None:
        self._world = world
        self.off = off
        self.answers = True
        self.late = 0.0
        """Share of its requests that wait for too long."""
        self.ledger = Ledger(uid, lambda: world.now + self.off)

    def serve(self, requests: int = 1) -> None:
        """So many arrive now, and are completed."""
        self.ledger.of("ns", "demo").count("arrivals", requests)
        self.ledger.of("ns", "demo").count("completed", requests)
        self.ledger.of("ns", "demo").count("slot_ms", requests * 400)
        self.ledger.of("ns", "demo").count("waited_over_target", round(requests * self.late))

    def page(self, since: int, until: int) -> GatewayLoad:
        """As it goes over the wire."""
        return GatewayLoad.model_validate_json(self.ledger.page(since, until).model_dump_json(exclude_defaults=True))


@dataclass
class World:
    """`at`: who listens at an address; `ready`: addresses that should answer, of those that are `listed`."""

    now: float = NOON
    at: dict[str, Gateway] = field(default_factory=dict)
    ready: set[str] = field(default_factory=set)
    listed: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.history = History(self.now)

    def start(self, address: str, uid: str = "", off: float = 0.0) -> Gateway:
        """A gateway starts at an address, in the place of whoever was there."""
        self.at[address] = Gateway(self, uid or f"uid-{address}", off)
        self.ready.add(address)
        self.listed.add(address)
        return self.at[address]

    def leave(self, address: str) -> None:
        """Its pod is gone."""
        del self.at[address]
        self.ready.discard(address)
        self.listed.discard(address)

    def bring(self, **requests: int) -> None:
        """A second goes by in whose middle requests arrive, by address."""
        self.now += 0.5
        for address, number in requests.items():
            self.at[address].serve(number)
        self.now = round(self.now + 0.5)

    def second(self, **requests: int) -> None:
        """A second goes by; a quarter into the next one all are asked."""
        self.bring(**requests)
        self.now += 0.25
        self.ask()
        self.now -= 0.25

    def seconds(self, number: int, **requests: int) -> None:
        """Several like that."""
        for _ in range(number):
            self.second(**requests)

    def ask(self) -> None:
        """One round."""
        for address in sorted(self.listed):
            gateway = self.at.get(address)
            while gateway is not None and gateway.answers:
                since = self.history.since(address, self.now)
                page = gateway.page(since, since + PIECE)
                if not self.history.take(address, since, since + PIECE, page, self.now) or page.now < since + PIECE:
                    break
        self.history.close(self.now, self.listed, self.ready)

    def told(self, start: int = NOON) -> list[float | None]:
        """Arrivals in each closed second from `start` on, None where it is unknown."""
        found = [self.history.second(KEY, second) for second in range(start, self.history.closed)]
        return [one.arrivals if one.heard else None for one in found]
