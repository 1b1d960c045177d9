"""`check_integrity` of the core: each rule, broken on purpose."""

from collections.abc import Callable
from typing import Any

import pytest

from aixcoder_serving.engine.request import Request
from tests.unit.engine.engine_bench import Bench, ids


def mixed() -> tuple[Bench, Request, Request, Request]:
    """Two slots: one generates, one computes a prompt that a third one waits for; a fourth one is queued."""
    bench = Bench(slots=2, budget_ms=4.0, drafting=False)
    numbers = [bench.submit(ids(4), 50), bench.submit(ids(400, 1), 2)]
    bench.step()
    bench.step()
    numbers.append(bench.submit(ids(400, 1), 2))
    bench.submit(ids(9, 5), 2)
    bench.engine.check_integrity()
    generating, computing, parked = (bench.engine._requests[number] for number in numbers)
    return bench, generating, computing, parked


def forget(bench: Bench, generating: Request, computing: Request, parked: Request) -> None:
    del bench.engine._requests[generating.id]


def free_a_slot(bench: Bench, *_: Request) -> None:
    bench.engine._scheduler._free_slots.append(0)


def take_a_slot(bench: Bench, generating: Request, *_: Request) -> None:
    generating.slot = 1


def promise(bench: Bench, generating: Request, *_: Request) -> None:
    generating.reserved += 1


def drop_a_block(bench: Bench, generating: Request, *_: Request) -> None:
    bench.engine.pool.release(generating.blocks)


def run_ahead(bench: Bench, generating: Request, *_: Request) -> None:
    generating.computed += 100


def publish_ahead(bench: Bench, generating: Request, *_: Request) -> None:
    generating.published += 1


def own_what_is_done(bench: Bench, generating: Request, computing: Request, parked: Request) -> None:
    bench.engine._scheduler._under_way._owners[computing.hashes[0]] = computing


def own_by_nobody(bench: Bench, generating: Request, computing: Request, parked: Request) -> None:
    assert parked.parked_on is not None
    del bench.engine._scheduler._under_way._owners[parked.parked_on]


def be_unknown(bench: Bench, generating: Request, computing: Request, parked: Request) -> None:
    computing.awaited = 1e9


def wake_by_half(bench: Bench, generating: Request, computing: Request, parked: Request) -> None:
    parked.parked_on = None


def lose_the_heap(bench: Bench, *_: Request) -> None:
    bench.engine._scheduler.waiting._heap.clear()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (forget, "3 requests are under way, which are not those that run or wait"),
        (free_a_slot, r"of 2 slots \[0\] are free and \[0, 1\] in use"),
        (take_a_slot, "request 0 is at its end or in slot 1, and listed in slot 0"),
        (promise, "requests may allocate .* blocks, and .* are reserved"),
        (drop_a_block, "1 requests hold block .*, which has 0 users"),
        (run_ahead, "request 0 computed .* tokens in 1 blocks"),
        (publish_ahead, "request 0 published 1 pages of .* tokens"),
        (own_what_is_done, "a block is under way that request 1 does not compute"),
        (own_by_nobody, "request 2 waits for a block that nobody computes"),
        (be_unknown, "request 1 does not know that request 2 waits for it"),
        (wake_by_half, "request 2 is parked and not listed so, or the other way round"),
        (lose_the_heap, "request 3 waits, and is not either parked or in the heap"),
    ],
)
def test_each_rule(damage: Callable[..., Any], message: str) -> None:
    bench, *requests = mixed()
    damage(bench, *requests)
    with pytest.raises(RuntimeError, match=message):
        bench.engine.check_integrity()
