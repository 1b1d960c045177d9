"""What the operator knows of the load, against what was really sent: real gateways that die and are rolled."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field

import aiohttp
import pytest
from prometheus_client import CollectorRegistry

from aixcoder_operator.cluster.observe import GatewayEndpoint
from aixcoder_operator.scaling.collector import Collector
from aixcoder_operator.scaling.history import History
from aixcoder_operator.scaling.loop import Autoscaler
from aixcoder_operator.scaling.metrics import ScalingMetrics
from tests.component.gateway.conftest import ROOT, StartReplica, script, start_replica
from tests.component.operator.gateway_process import DRAIN_SECONDS
from tests.unit.scaling.scaled import sight

__all__ = ["start_replica"]
PROMPT = script(all_={"deltas": 2, "delay": 0.1})
LISTED_S = 3.0
"""For which a gateway that was killed is still listed, and ready."""


class Gateway:
    """A process. `is_ready`: what the cluster says; `is_used`: whether clients come to it."""

    def __init__(self, replica: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.component.operator.gateway_process", replica],
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env=os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "serving")])},
        )
        self.public = self.internal = ""
        self.is_used = self.is_ready = False

    async def start(self) -> None:
        """Returns once clients come to it."""
        assert self.process.stdout is not None
        line = await asyncio.to_thread(self.process.stdout.readline)
        self.public, self.internal = (f"127.0.0.1:{port}" for port in line.split())
        self.is_used = self.is_ready = True

    def end(self) -> None:
        """Whatever it does."""
        self.process.kill()
        self.process.wait()
        if self.process.stdout is not None:
            self.process.stdout.close()


@dataclass
class Fleet:
    """The gateways, and the clients that use them: `sent` is what has reached any of them."""

    replica: str
    stack: AsyncExitStack
    """Ends them."""
    each: list[Gateway] = field(default_factory=list)
    sent: int = 0
    answered: int = 0

    async def add(self) -> Gateway:
        """One more."""
        gateway = Gateway(self.replica)
        self.stack.callback(gateway.end)
        self.each.append(gateway)
        await gateway.start()
        return gateway

    async def kill(self, gateway: Gateway) -> None:
        """As a machine dies: nobody is told at once."""
        gateway.process.kill()
        await asyncio.sleep(LISTED_S)
        self.each.remove(gateway)

    async def roll(self, gateway: Gateway) -> None:
        """Another takes its place; it ends in order."""
        await self.add()
        gateway.process.send_signal(signal.SIGTERM)
        gateway.is_ready = False
        await asyncio.sleep(DRAIN_SECONDS / 2)
        gateway.is_used = False
        assert await asyncio.to_thread(gateway.process.wait, 30) == 0
        await asyncio.sleep(1)
        self.each.remove(gateway)

    async def find(self) -> tuple[GatewayEndpoint, ...]:
        """As EndpointSlices have them."""
        return tuple(
            GatewayEndpoint(one.internal, is_ready=one.is_ready, should_answer=one.is_ready)
            for one in self.each
            if one.internal
        )

    async def ask(self, session: aiohttp.ClientSession, number: int) -> None:
        """One request, at the next gateway where one does not listen any more."""
        used = [one for one in self.each if one.is_used]
        for turn in range(len(used)):
            url = f"http://{used[(number + turn) % len(used)].public}/v1/completions"
            body = {"prompt": PROMPT, "suffix": str(number), "max_tokens": 20}
            try:
                async with session.post(url, json=body) as response:
                    self.sent += 1
                    self.answered += response.status == 200
                    await response.read()
                    return
            except aiohttp.ClientConnectorError:
                continue
            except aiohttp.ClientError:
                self.sent += 1  # it was there when the gateway died
                return

    async def ramp(self, session: aiohttp.ClientSession, seconds: float, least: float, most: float) -> None:
        """So many requests a second, more and more, each sent when its time has come."""
        began, due, number = time.monotonic(), 0.0, 0
        async with asyncio.TaskGroup() as group:
            while due < seconds:
                await asyncio.sleep(max(began + due - time.monotonic(), 0.0))
                group.create_task(self.ask(session, number))
                number += 1
                due += 1 / (least + (most - least) * due / seconds)


START_S = 10
"""For twice as long a wish is held: later on the ramp asks for more than clients do that were late and come at once."""


@dataclass
class Leader:
    """An operator's loop. `desired`: after each change."""

    collector: Collector
    registry: CollectorRegistry
    desired: list[int]

    @property
    def history(self) -> History:
        return self.collector.history

    def value(self, metric: str, **labels: str) -> float:
        of = {"namespace": "ns", "name": "demo", **labels}
        return self.registry.get_sample_value(f"aixcoder_operator_autoscaling_{metric}", of) or 0.0


@asynccontextmanager
async def leading(session: aiohttp.ClientSession, fleet: Fleet, desired: int) -> AsyncIterator[Leader]:
    """It begins with what stands in status, and knows how long a start takes."""
    registry = CollectorRegistry()
    collector = Collector(session, fleet.find)
    autoscaler = Autoscaler(collector, ScalingMetrics(registry))
    seen = sight(status={"desired": desired, "coldStartSeconds": START_S})
    leader = Leader(collector, registry, [desired])
    autoscaler.learn(seen)

    def changed(_key: str) -> None:
        decided = autoscaler.decided(seen.deployment)
        assert decided is not None
        leader.desired.append(decided.desired)

    running = asyncio.create_task(autoscaler.run(changed))
    try:
        yield leader
    finally:
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running


@pytest.mark.parametrize(
    ("seconds", "most"), [(45.0, 70.0), pytest.param(300.0, 70.0, marks=pytest.mark.long)], ids=["short", "long"]
)
@pytest.mark.timeout(600)
async def test_arrivals_are_those_that_were_sent(start_replica: StartReplica, seconds: float, most: float) -> None:
    """An operator restarts, one gateway of three is killed, the two others are rolled one after the other."""
    async with AsyncExitStack() as stack:
        fleet = Fleet(start_replica("a", slots=256).address, stack)
        session = await stack.enter_async_context(aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)))
        gateways = [await fleet.add() for _ in range(3)]
        began = int(time.time())
        generator = asyncio.create_task(fleet.ramp(session, seconds, 8.0, most))
        async with leading(session, fleet, 1) as first:
            await asyncio.sleep(seconds / 9)
        async with leading(session, fleet, first.desired[-1]) as second:
            await asyncio.sleep(seconds / 9)
            await fleet.kill(gateways[0])
            await fleet.add()
            await asyncio.sleep(seconds / 9)
            for one in gateways[1:]:
                await fleet.roll(one)
            await generator
            await asyncio.sleep(3)
            assert second.collector.unheard() == []
            known = range(began, second.history.closed)
            told = sum(second.history.second("ns/demo", one).arrivals for one in known)
            unknown = sum(not second.history.second("ns/demo", one).heard for one in known)
            falls = [leader.value("decisions_total", direction="down") for leader in (first, second)]
    desired = first.desired + second.desired
    print(f"sent {fleet.sent}, answered {fleet.answered}, told {told:.0f} ({told / fleet.sent - 1:+.2%})", end=", ")
    print(f"{unknown} of {len(known)} s unknown, desired {desired}")
    assert told == pytest.approx(fleet.sent, rel=0.005)
    assert falls == [0, 0]
    assert desired == sorted(desired)
    assert desired[-1] > 1
    # Of the gateway that was killed for as long as it is listed, and of each new one for as long as it takes to start.
    assert 0 < unknown < len(known) / 3
