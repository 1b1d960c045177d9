"""While requests wait, keys have equal shares of the tokens, or shares by their weights, whatever they ask for."""

import asyncio
import itertools
import random
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from tests.component.gateway.conftest import StartReplica, Table, ask, heard, new_key, running, script

GREEDY = "greedy"
"""The key that asks ten times as much as another one."""
DELTAS = {"short": 3, "middle": 13, "long": 33, "other": 13, GREEDY: 3}
"""Tokens of a completion, by key: shares are of tokens, not of requests."""
CLIENTS = 12
"""Of a key: each asks again once it has its answer, so that something of the key always waits."""


def jain(shares: Sequence[float]) -> float:
    """Jain's index: 1 where all have the same, 1/n where one has everything."""
    return sum(shares) ** 2 / (len(shares) * sum(share * share for share in shares))


@pytest.mark.parametrize(
    ("weights", "through"),
    [
        pytest.param({}, (1.0,), id="equal"),
        pytest.param({"short": 2.0, "middle": 4.0, "other": 0.5}, (1.0,), id="by weight"),
        pytest.param({}, (0.9, 0.1), id="two gateways, nine to one"),
    ],
)
async def test_shares_of_tokens(
    table: Table,
    start_replica: StartReplica,
    tmp_path: Path,
    weights: dict[str, float],
    through: tuple[float, ...],
) -> None:
    """`through`: the share of the requests that goes through each gateway."""
    replicas = [start_replica(name, slots=2) for name in ("a", "b")]
    table.serve(*(replica.address for replica in replicas))
    keys = {name: new_key(tmp_path, name, shared=True, weight=weights.get(name, 1.0)) for name in DELTAS}
    served = dict.fromkeys(keys, 0)
    seeds = itertools.count()
    async with AsyncExitStack() as stack:
        gateways = [await stack.enter_async_context(running(table, api_keys=tmp_path)) for _ in through]
        for gateway in gateways:
            await heard(gateway, 2)

        async def client(name: str, number: int) -> None:
            chance = random.Random(f"{name} {number}")
            prompt = script(all_={"deltas": DELTAS[name], "delay": 0.005})
            while True:
                (gateway,) = chance.choices(gateways, through)
                headers = {"authorization": f"Bearer {keys[name]}"}
                status, body = await ask(gateway, prompt, headers, seed=next(seeds))
                assert status == 200
                served[name] += body["usage"]["total_tokens"]

        # Enough that something of each key waits in the gateway that few come through.
        of_a_key = CLIENTS if len(through) == 1 else 3 * CLIENTS
        counts = {name: 10 * CLIENTS if name == GREEDY else of_a_key for name in keys}
        clients = [asyncio.create_task(client(name, n)) for name in keys for n in range(counts[name])]
        await asyncio.sleep(1.0)
        before = dict(served)
        await asyncio.sleep(6.0)
        tokens = {name: served[name] - before[name] for name in keys}
        for task in clients:
            task.cancel()
        ended = await asyncio.gather(*clients, return_exceptions=True)
    assert [end for end in ended if not isinstance(end, asyncio.CancelledError)] == []
    index = jain([tokens[name] / weights.get(name, 1.0) for name in keys])
    print(f"{tokens}: Jain's index {index:.4f}")
    assert min(tokens.values()) > 100
    assert index >= 0.98


async def test_one_who_comes_later_does_not_wait_behind_all_of_another(
    table: Table, start_replica: StartReplica, tmp_path: Path
) -> None:
    keys = {name: new_key(tmp_path, name, shared=True) for name in ("flood", "quiet")}
    replica = start_replica("a", slots=1)
    table.serve(replica.address)
    order: list[str] = []
    prompt = script(a={"deltas": 1, "delay": 0.02})
    async with running(table, api_keys=tmp_path) as gateway:

        async def one(name: str, n: int) -> None:
            status, _ = await ask(gateway, prompt, {"authorization": f"Bearer {keys[name]}"}, seed=n)
            assert status == 200
            order.append(name)

        await one("flood", 0)
        await asyncio.sleep(0.1)
        flood = [asyncio.create_task(one("flood", n)) for n in range(1, 30)]
        await asyncio.sleep(0.05)
        await asyncio.gather(*(one("quiet", n) for n in range(100, 105)))
        served = order[:]
        await asyncio.gather(*flood)
    # While both wait they take turns.
    assert served.count("flood") <= 12
