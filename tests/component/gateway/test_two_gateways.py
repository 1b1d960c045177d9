"""Two gateways before the same replicas: they agree without talking."""

import asyncio
import itertools
import random
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

import pytest

from tests.component.gateway.conftest import (
    Replica,
    Running,
    StartReplica,
    Table,
    ask,
    heard,
    load,
    running,
    script,
)

NAMES = ("a", "b", "c")
IDLE_MS = 50
"""For which a replica may have room while a request waits."""


@asynccontextmanager
async def two(table: Table, replicas: Sequence[Replica]) -> AsyncIterator[list[Running]]:
    """Two gateways that hear these replicas."""
    table.serve(*(replica.address for replica in replicas))
    async with AsyncExitStack() as stack:
        gateways = [await stack.enter_async_context(running(table)) for _ in range(2)]
        for gateway in gateways:
            await heard(gateway, len(replicas))
        await asyncio.sleep(0.1)
        yield gateways


@asynccontextmanager
async def watched(gateways: Sequence[Running], replicas: Sequence[Replica]) -> AsyncIterator[list[float]]:
    """For how many ms a replica had had room while a request waited, at each look that found both."""
    found: list[float] = []

    async def watch() -> None:
        clock = asyncio.get_running_loop().time
        since = clock()
        while True:
            pages = [await load(gateway, 2e9) for gateway in gateways]
            if any(one.waiting for page in pages for one in page.deployments):
                waited_ms = (clock() - since) * 1000
                found.extend([min((await replica.figures())["room_ms"], waited_ms) for replica in replicas])
            else:
                since = clock()
            await asyncio.sleep(0.01)

    watching = asyncio.create_task(watch())
    try:
        yield found
    finally:
        watching.cancel()
        (ended,) = await asyncio.gather(watching, return_exceptions=True)
    assert isinstance(ended, asyncio.CancelledError), ended


async def place(gateway: Running, editor: str, prompt: str, number: int) -> str:
    """The replica that answers an editor. Requests of another number are of another place in the file."""
    status, body = await ask(gateway, prompt, {"x-editor-session": editor}, suffix=str(number))
    assert status == 200
    return str(body["choices"][0]["text"][0])


async def limits_kept(replicas: Sequence[Replica], slots: int) -> list[int]:
    """How often each replica refused; none ever ran more than it has slots for, and nothing runs any more."""
    figures = [await replica.figures() for replica in replicas]
    assert max(figure["most"] for figure in figures) <= slots
    assert [figure["active"] for figure in figures] == [0] * len(replicas)
    return [figure["refused"] for figure in figures]


async def homes(gateways: Sequence[Running], editors: dict[str, int]) -> dict[str, str]:
    """So many editors of each replica: where both gateways send each of them while nothing else runs."""
    found: dict[str, str] = {}
    wanted, numbers = Counter(editors), itertools.count()
    prompt = script(all_={"deltas": 1})
    while wanted.total():
        editor = f"s{next(numbers)}"
        home, other = [await place(gateway, editor, prompt, 0) for gateway in gateways]
        assert home == other
        if wanted[home]:
            found[editor] = home
            wanted[home] -= 1
    return found


EVENLY = {"a": 36, "b": 36, "c": 36}


@pytest.mark.parametrize(
    ("second", "editors", "least"),
    [
        pytest.param(0.1, EVENLY, 0.95, id="nine to one"),
        pytest.param(0.5, EVENLY, 0.95, id="at random"),
        pytest.param(0.1, {"a": 108}, 0.0, id="all at home at one replica"),
    ],
)
async def test_a_load_that_fits(
    table: Table, start_replica: StartReplica, second: float, editors: dict[str, int], least: float
) -> None:
    """Two thirds of all slots are taken: an editor stays at its replica, and who waits does for a moment.

    `second`: what share of the requests goes through the second gateway. `editors` at home at each replica, `least`
    the share of their requests that runs there.
    """
    slots, seconds = 32, 6.0
    hold, pause = 0.5, 0.36  # seconds in the mean: an editor has a request under way for 58 % of the time
    replicas = [start_replica(name, slots=slots) for name in NAMES]
    prompt, numbers = script(all_={"deltas": 5, "delay": hold / 5}), itertools.count()
    where: list[tuple[str, str]] = []
    async with two(table, replicas) as gateways:
        at = await homes(gateways, editors)
        before = sum([(await load(gateway)).deployments[0].counters.slot_ms for gateway in gateways])
        clock = asyncio.get_running_loop().time
        end = clock() + seconds

        async def typing(editor: str) -> None:
            chance = random.Random(editor)
            while True:
                await asyncio.sleep(chance.expovariate(1 / pause))
                if clock() > end:
                    return
                gateway = gateways[chance.random() < second]
                where.append((editor, await place(gateway, editor, prompt, next(numbers))))

        async with watched(gateways, replicas) as idle_ms, asyncio.TaskGroup() as everybody:
            for editor in at:
                everybody.create_task(typing(editor))
        counters = [(await load(gateway)).deployments[0].counters for gateway in gateways]
    refused = await limits_kept(replicas, slots)
    home = sum(at[editor] == replica for editor, replica in where)
    taken = (sum(one.slot_ms for one in counters) - before) / (seconds * 1000 * slots * len(NAMES))
    late = sum(one.waited_over_target for one in counters)
    print(
        f"{len(where)} requests took {taken:.0%} of the slots, {home / len(where):.1%} at home; {refused=}; "
        f"at most {max(idle_ms, default=0):.0f} ms of room while one waited; {late:.0f} waited for over 200 ms"
    )
    assert len(where) > 4 * len(at)
    assert home >= least * len(where)
    assert [ms for ms in idle_ms if ms > IDLE_MS] == []
    assert late <= 0.01 * len(where)


async def test_more_than_fits_waits_in_both_gateways(table: Table, start_replica: StartReplica) -> None:
    """Eighty requests at once for twelve slots, nine of ten of them through the first gateway."""
    replicas = [start_replica(name, slots=4) for name in NAMES]
    prompt = script(all_={"deltas": 2, "delay": 0.02})
    where: Counter[tuple[int, str]] = Counter()
    async with two(table, replicas) as gateways, watched(gateways, replicas) as idle_ms:

        async def one(n: int) -> None:
            replica = await place(gateways[0 if n % 10 else 1], f"s{n % 40}", prompt, n)
            where[n % 40, replica] += 1

        for _ in range(10):
            await asyncio.gather(*(one(n) for n in range(80)))
    refused = await limits_kept(replicas, 4)
    home = sum(max(where[who, name] for name in NAMES) for who in range(40)) / where.total()
    idle = sum(ms > IDLE_MS for ms in idle_ms)
    print(
        f"at one replica: {home:.1%}; {refused=}; at most {max(idle_ms):.0f} ms of room while one waited, "
        f"over {IDLE_MS} ms at {idle} of {len(idle_ms)} looks"
    )
    assert where.total() == 800
    assert len(idle_ms) >= 90
    assert idle <= 0.1 * len(idle_ms)  # some, on a machine with much other work to do; else none
