"""Gateways that answer `/load` over HTTP by real ledgers, and can be slow, silent, wrong or replaced."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from itertools import count

from aiohttp import web

from aixcoder_operator.cluster.observe import GatewayEndpoint
from aixcoder_serving.gateway.ledger import Ledger

_uids = count(1)


class FakeGateway:
    """One address. `address` is `ip:port` while it listens."""

    def __init__(self) -> None:
        self.address = ""
        self.answers = True
        self.delay = 0.0
        self.body: str | None = None
        """Told in place of its page."""
        self.asked: list[int] = []
        """The `since` of each question."""
        self.most_bins = 0
        """In one answer."""
        self.callers: set[object] = set()
        """The other ends of its connections."""
        self._now: float | None = None
        self.restart()

    def restart(self) -> None:
        """Another process takes the place, and knows nothing."""
        self.ledger = Ledger(f"uid-{next(_uids)}", lambda: self._now or time.time())

    def live_through(self, seconds: int, namespace: str, name: str, requests: int) -> None:
        """It started so many seconds ago, and so many requests came in each of them."""
        now = int(time.time())
        self._now = float(now - seconds)
        self.restart()
        for second in range(now - seconds, now):
            self._now = second + 0.5
            self.arrive(namespace, name, requests)
        self._now = None

    def arrive(self, namespace: str, name: str, requests: int, *, slot_s: float = 0.0) -> None:
        """Requests come and are completed; each holds a place for so long, which is counted at once."""
        ledger = self.ledger.of(namespace, name)
        ledger.count("arrivals", requests)
        ledger.count("completed", requests)
        ledger.count("slot_ms", requests * slot_s * 1000)

    async def _load(self, request: web.Request) -> web.Response:
        since, until = int(request.query["since"]), int(request.query["until"])
        self.asked.append(since)
        self.callers.add(request.transport and request.transport.get_extra_info("peername"))
        if not self.answers:
            await asyncio.sleep(60)
        await asyncio.sleep(self.delay)
        page = self.ledger.page(since, until)
        self.most_bins = max(self.most_bins, sum(len(one.bins) for one in page.deployments))
        text = self.body or page.model_dump_json(exclude_defaults=True)
        return web.Response(text=text, content_type="application/json")

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[FakeGateway]:
        """While it can be asked."""
        application = web.Application()
        application.router.add_get("/load", self._load)
        runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        try:
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            self.address = f"127.0.0.1:{runner.addresses[0][1]}"
            yield self
        finally:
            await runner.cleanup()


class Gateways:
    """Those that the cluster has: `find` is how a collector lists them."""

    def __init__(self, each: list[FakeGateway]) -> None:
        self.each = each
        self.unready: set[FakeGateway] = set()
        self.listed = 0

    async def find(self) -> tuple[GatewayEndpoint, ...]:
        """As the EndpointSlices of the gateways' Service have them."""
        self.listed += 1
        return tuple(
            GatewayEndpoint(one.address, is_ready=one not in self.unready, should_answer=one not in self.unready)
            for one in self.each
        )


@asynccontextmanager
async def gateways(number: int) -> AsyncIterator[Gateways]:
    """So many, listening."""
    async with AsyncExitStack() as stack:
        yield Gateways([await stack.enter_async_context(FakeGateway().listening()) for _ in range(number)])


async def until(condition: Callable[[], bool], what: str, seconds: float = 90.0) -> float:
    """Wait for it; returns the seconds that it took."""
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < seconds, f"never: {what}"
        await asyncio.sleep(0.01)
    return time.monotonic() - began
