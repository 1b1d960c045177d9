"""Asks every gateway once a second what it did, and keeps the answers in a `History`.

A gateway is asked again when it has answered or its time is over, so a slow one is asked less often and holds up
nothing else. What it is behind it is asked for piece by piece: half an hour of many busy deployments is more than it
could write, and we read, without making others wait.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Awaitable, Callable

import aiohttp
from pydantic import ValidationError

from aixcoder_operator.cluster.client import ClusterError
from aixcoder_operator.cluster.observe import GatewayEndpoint
from aixcoder_operator.cluster.probe import body
from aixcoder_operator.scaling.history import History
from aixcoder_serving.protocol import GatewayLoad

PATIENCE_S = 0.4
"""For which a round waits for answers; what comes later is of the next one."""

PIECE_SECONDS = 60
"""Of which a gateway is asked at once."""

_ASK_S = 1.0
_LIST_S = 5.0
_LIST_AGAIN_S = 2.0  # while one does not answer, which may have gone
_SET_S = 1.0  # by which the clock may differ from the monotonic one between two rounds
_PAUSE_S = 60.0
_LARGEST_BODY = 64 * 1024 * 1024

logger = logging.getLogger(__name__)


class Collector:
    """`find` lists the gateways. `clock`: seconds since 1970; `monotonic`: seconds that nobody sets."""

    def __init__(
        self,
        session: aiohttp.ClientSession,
        find: Callable[[], Awaitable[tuple[GatewayEndpoint, ...]]],
        *,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._session = session
        self._find = find
        self._clock = clock
        self._monotonic = monotonic
        self.history = History(clock())
        """Begun with the first round, anew after a pause, and where the clock was set: then no time is right."""
        self._round = (0.0, -math.inf)  # when the last one began, by both clocks
        self._gateways: tuple[GatewayEndpoint, ...] | None = None
        self._listed_at = -_LIST_S
        self._listing: asyncio.Task[None] | None = None
        self._asking: dict[str, asyncio.Task[None]] = {}
        self._silent: list[str] = []

    async def collect(self) -> None:
        """One round: ask who is not being asked, wait a little, close the seconds that are over."""
        self._watch_the_clock()
        self._list()
        if self._gateways is None and self._listing is not None:
            await asyncio.wait([self._listing], timeout=PATIENCE_S)
        for gateway in self._gateways or ():
            if gateway.address not in self._asking:
                task = asyncio.create_task(self._ask(gateway.address), name=f"load of {gateway.address}")
                self._asking[gateway.address] = task
        if self._asking:
            await asyncio.wait(self._asking.values(), timeout=PATIENCE_S)
        if self._gateways is not None:
            listed = [gateway.address for gateway in self._gateways]
            self.history.close(self._clock(), listed, self._expected())
        self._tell()

    def unheard(self) -> list[str]:
        """Gateways that should answer and do not; `?` where none is known at all."""
        return self.history.unheard(self._clock(), self._expected()) if self._expected() else ["?"]

    async def end(self) -> None:
        """Ask no more."""
        tasks = [*self._asking.values(), *([self._listing] if self._listing else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _expected(self) -> list[str]:
        return [gateway.address for gateway in self._gateways or () if gateway.should_answer]

    def _watch_the_clock(self) -> None:
        before, now = self._round, (self._clock(), self._monotonic())
        self._round = now
        passed = now[1] - before[1]
        if abs(now[0] - before[0] - passed) > _SET_S or passed > _PAUSE_S:
            self.history = History(now[0])

    def _list(self) -> None:
        age = self._monotonic() - self._listed_at
        if self._listing is None and age >= (_LIST_AGAIN_S if self._silent or self._gateways is None else _LIST_S):
            self._listed_at = self._monotonic()
            self._listing = asyncio.create_task(self._relist(), name="gateways")

    async def _relist(self) -> None:
        try:
            self._gateways = await self._find()
        except ClusterError as error:
            logger.warning("the gateways could not be listed, those known before are asked: %s", error)
        finally:
            self._listing = None

    async def _ask(self, address: str) -> None:
        try:
            while await self._ask_once(address):
                pass
        except (TimeoutError, aiohttp.ClientError, OSError, ValidationError) as error:
            logger.debug("%s did not tell its load: %s", address, error or type(error).__name__)
        finally:
            del self._asking[address]

    async def _ask_once(self, address: str) -> bool:
        """Whether the gateway has more to tell than this piece."""
        history, asked = self.history, self._clock()
        since = history.since(address, asked)
        until = since + PIECE_SECONDS
        async with (
            asyncio.timeout(_ASK_S),
            self._session.get(
                f"http://{address}/load", params={"since": since, "until": until}, allow_redirects=False
            ) as response,
        ):
            response.raise_for_status()
            page = GatewayLoad.model_validate_json(await body(response, _LARGEST_BODY))
        # Told somewhere between question and answer.
        return history.take(address, since, until, page, (asked + self._clock()) / 2) and until <= page.now

    def _tell(self) -> None:
        """Say once who is silent, and that it is so no more."""
        silent = self.unheard()
        if silent != self._silent and (silent != ["?"] or self._gateways is not None):
            if silent:
                logger.warning("nothing is scaled down: not heard: %s", ", ".join(silent))
            else:
                logger.info("every gateway is heard")
            self._silent = silent
