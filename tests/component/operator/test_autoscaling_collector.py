"""Who asks the gateways, over HTTP."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import AsyncIterator

import aiohttp
import pytest

from aixcoder_operator.cluster.client import Unavailable
from aixcoder_operator.cluster.observe import GatewayEndpoint
from aixcoder_operator.scaling.collector import PATIENCE_S, PIECE_SECONDS, Collector
from tests.component.operator.fake_gateway import FakeGateway, Gateways, gateways


@pytest.fixture
async def fleet() -> AsyncIterator[Gateways]:
    async with gateways(3) as found:
        yield found


@pytest.fixture
async def collector(fleet: Gateways) -> AsyncIterator[Collector]:
    async with aiohttp.ClientSession() as session:
        made = Collector(session, fleet.find)
        yield made
        await made.end()


async def rounds(collector: Collector, number: int) -> float:
    """Once a second; returns how long the longest took."""
    longest = 0.0
    for _ in range(number):
        await asyncio.sleep(1 - (time.time() - 0.25) % 1)
        began = time.monotonic()
        await collector.collect()
        longest = max(longest, time.monotonic() - began)
    return longest


def arrivals(collector: Collector, start: float) -> float:
    history = collector.history
    return sum(history.second("ns/a", second).arrivals for second in range(int(start), history.closed))


async def test_one_question_a_second_over_connections_that_stay_and_a_list_each_five(
    collector: Collector, fleet: Gateways
) -> None:
    began = time.time()
    for one in fleet.each:
        one.arrive("ns", "a", 7)
    await rounds(collector, 7)
    # The first time once more, to hear when each of them started.
    assert [len(one.asked) for one in fleet.each] == [8, 8, 8]
    assert [len(one.callers) for one in fleet.each] == [1, 1, 1]
    assert fleet.listed == 2
    assert arrivals(collector, began) == 21
    assert collector.unheard() == []
    # Each question is for the second that was not over at the one before.
    for one in fleet.each:
        assert [late - soon for soon, late in itertools.pairwise(one.asked[2:])] == [1] * 5


async def test_half_an_hour_comes_piece_by_piece(collector: Collector, fleet: Gateways) -> None:
    now = time.time()
    for one in fleet.each:
        one.live_through(1790, "ns", "a", 1)
    await rounds(collector, 3)
    assert arrivals(collector, now - 1800) == 3 * 1790
    for one in fleet.each:
        assert one.most_bins <= PIECE_SECONDS
        assert len(one.asked) == 1 + 1800 // PIECE_SECONDS + 2  # when it started, the pieces, two more rounds


async def test_a_slow_one_and_a_silent_one_hold_up_nobody(collector: Collector, fleet: Gateways) -> None:
    slow, silent, well = fleet.each
    await rounds(collector, 2)
    slow.delay, silent.answers = 0.8, False
    began = time.time()
    longest = await rounds(collector, 5)
    print(f"the longest round took {longest:.2f} s")
    assert longest < PATIENCE_S * 3
    assert len(well.asked) == 8
    assert collector.unheard() == [silent.address]
    for one in fleet.each:
        one.arrive("ns", "a", 1)
    silent.answers = True
    await rounds(collector, 3)
    assert collector.unheard() == []
    assert arrivals(collector, began) == 3


async def test_one_that_talks_nonsense_is_not_heard(collector: Collector, fleet: Gateways) -> None:
    fleet.each[0].body = "<html>"
    fleet.each[1].body = '{"uid": "u", "started": 1.0, "now": NaN}'
    await rounds(collector, 3)
    assert collector.unheard() == sorted(one.address for one in fleet.each[:2])


async def test_where_no_gateway_is_known_none_is_heard(collector: Collector, fleet: Gateways) -> None:
    fleet.each.clear()
    await rounds(collector, 3)
    assert collector.unheard() == ["?"]


async def test_one_that_leaves_is_listed_away_soon(collector: Collector, fleet: Gateways) -> None:
    await rounds(collector, 1)
    gone = fleet.each.pop()
    gone.answers = False
    await rounds(collector, 5)
    assert collector.unheard() == []


async def test_without_the_api_server_those_known_before_are_asked(fleet: Gateways) -> None:
    broken = asyncio.Event()

    async def find() -> tuple[GatewayEndpoint, ...]:
        if broken.is_set():
            raise Unavailable("made to fail")
        return await fleet.find()

    async with aiohttp.ClientSession() as session:
        collector = Collector(session, find)
        await rounds(collector, 1)
        broken.set()
        await rounds(collector, 7)
        assert collector.unheard() == []
        assert [len(one.asked) for one in fleet.each] == [9, 9, 9]
        await collector.end()


async def test_where_the_clock_was_set_all_is_read_again(fleet: Gateways) -> None:
    ahead = 0.0
    async with aiohttp.ClientSession() as session:
        collector = Collector(session, fleet.find, clock=lambda: time.time() + ahead)
        fleet.each[0].arrive("ns", "a", 5)
        await rounds(collector, 2)
        before, ahead = collector.history, 3600.0
        await rounds(collector, 2)
        assert collector.history is not before
        assert arrivals(collector, time.time() + ahead - 60) == 5
        assert collector.unheard() == []
        await collector.end()


async def test_a_restarted_one_is_another_process(collector: Collector, fleet: Gateways) -> None:
    began = time.time()
    one: FakeGateway = fleet.each[0]
    one.arrive("ns", "a", 5)
    await rounds(collector, 2)
    one.restart()
    one.arrive("ns", "a", 4)
    await rounds(collector, 2)
    assert arrivals(collector, began) == 9
    assert all(collector.history.second("ns/a", second).heard for second in range(int(began), collector.history.closed))
