"""What all gateways did, merged: cases by name."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest

from aixcoder_operator.scaling.history import History
from aixcoder_serving.protocol import KEPT_SECONDS, DeploymentLoad, GatewayLoad, LoadBin, LoadCounters
from tests.unit.scaling.gateways import KEY, NOON, World


def two() -> World:
    world = World()
    world.start("a")
    world.start("b")
    return world


def all_answer(world: World) -> None:
    world.seconds(3, a=2, b=3)


def a_deployment_that_one_does_not_know(world: World) -> None:
    world.seconds(3, a=2)


def one_is_missing(world: World) -> None:
    world.second(a=2, b=3)
    world.at["b"].answers = False
    world.seconds(4, a=2, b=3)


def one_is_missing_and_comes_back(world: World) -> None:
    one_is_missing(world)
    world.at["b"].answers = True
    world.second(a=2, b=3)


def one_is_slow_by_a_second(world: World) -> None:
    for number in range(6):
        world.at["b"].answers = bool(number % 2)
        world.second(a=2, b=3)


def a_process_is_replaced_between_two_rounds(world: World) -> None:
    world.second(a=2, b=3)
    world.now += 0.1
    world.at["b"].serve(10)
    world.start("b", "another")
    world.seconds(2, a=2, b=3)


def a_process_is_replaced_after_it_told_of_a_second_that_was_not_over(world: World) -> None:
    world.second(a=2, b=3)
    world.now += 0.5
    world.at["b"].serve(4)
    world.ask()
    world.now -= 0.5
    world.start("b", "another")
    world.seconds(2, a=2, b=3)


def a_process_that_was_missing_is_replaced(world: World) -> None:
    one_is_missing(world)
    world.start("b", "another")
    world.seconds(2, a=2, b=3)


def a_pod_leaves(world: World) -> None:
    world.second(a=2, b=3)
    world.leave("b")
    world.seconds(2, a=5)


def a_pod_leaves_that_told_of_a_second_that_was_not_over(world: World) -> None:
    world.second(a=2, b=3)
    world.now += 0.5
    world.at["b"].serve(4)
    world.ask()
    world.now -= 0.5
    world.leave("b")
    world.seconds(2, a=5)


def a_pod_that_ends_is_asked_but_not_waited_for(world: World) -> None:
    world.second(a=2, b=3)
    world.ready.discard("b")
    world.second(a=2, b=3)
    world.at["b"].answers = False
    world.seconds(4, a=2)


def a_pod_is_new(world: World) -> None:
    world.second(a=2, b=3)
    world.now += 0.1
    world.start("c")
    world.now -= 0.1
    world.second(a=2, b=3, c=1)


def a_pod_is_new_and_never_answers(world: World) -> None:
    world.second(a=2, b=3)
    world.listed.add("c")
    world.ready.add("c")
    world.seconds(3, a=2, b=3)


def nobody_is_there(world: World) -> None:
    for address in ("a", "b"):
        world.leave(address)
    world.seconds(3)


def clocks_are_300_ms_apart(world: World) -> None:
    world.start("b", off=-0.3)
    world.seconds(4, a=2, b=3)


def a_clock_is_an_hour_off(world: World) -> None:
    world.start("b", off=3600.0)
    world.seconds(4, a=2, b=3)


def a_clock_is_set_forward(world: World) -> None:
    world.seconds(2, a=2, b=3)
    world.at["b"].off = 100.0
    world.seconds(2, a=2, b=3)


def one_is_behind_by_minutes(world: World) -> None:
    world.at["b"].answers = False
    world.seconds(200, a=2, b=3)
    world.at["b"].answers = True
    world.second(a=2, b=3)


@pytest.mark.parametrize(
    ("story", "told"),
    [
        (all_answer, [5, 5, 5]),
        (a_deployment_that_one_does_not_know, [2, 2, 2]),
        (one_is_missing, [5, None, None, None, None]),
        (one_is_missing_and_comes_back, [5, 5, 5, 5, 5, 5]),
        (one_is_slow_by_a_second, [5, 5, 5, 5, 5, 5]),
        (a_process_is_replaced_between_two_rounds, [5, 5, 5]),
        (a_process_is_replaced_after_it_told_of_a_second_that_was_not_over, [5, 9, 5]),
        (a_process_that_was_missing_is_replaced, [5, None, None, None, None, 5, 5]),
        (a_pod_leaves, [5, 5, 5]),
        (a_pod_leaves_that_told_of_a_second_that_was_not_over, [5, 9, 5]),
        (a_pod_that_ends_is_asked_but_not_waited_for, [5, 5, 2, 2, 2, 2]),
        (a_pod_is_new, [5, 6]),
        (a_pod_is_new_and_never_answers, [5, None, None, None]),
        (nobody_is_there, [None, None, None]),
        (clocks_are_300_ms_apart, [5, 5, 5]),
        (a_clock_is_an_hour_off, [5, 5, 5, 5]),
        (a_clock_is_set_forward, [5, 5, 5, 5]),
        (one_is_behind_by_minutes, [5] * 201),
    ],
    ids=lambda case: case.__name__ if callable(case) else "",
)
def test_story(story: Callable[[World], None], told: list[float | None]) -> None:
    world = two()
    story(world)
    assert world.told() == told


def test_a_second_is_told_as_soon_as_it_is_over() -> None:
    world = two()
    world.seconds(5, a=1, b=1)
    assert world.history.closed == NOON + 5


def test_who_reads_again_is_told_so_and_only_then() -> None:
    world = two()
    numbers = []
    for answers in (True, False, False, False, True, True):
        world.at["b"].answers = answers
        world.second(a=2, b=3)
        numbers.append(world.history.mended(KEY))
    assert len(set(numbers[:4])) == 1
    assert len(set(numbers)) == 2
    assert numbers[4] == numbers[5]


def test_what_one_tells_late_that_need_not_tell_is_read_again_for_its_deployments_alone() -> None:
    world = two()
    world.ready.discard("b")
    world.second(a=2, b=3)
    world.at["b"].answers = False
    world.seconds(4, a=2, b=3)
    before = (world.history.mended(KEY), world.history.mended("ns/other"))
    assert world.told() == [5, 2, 2, 2, 2]
    world.at["b"].answers = True
    world.second(a=2, b=3)
    assert world.told() == [5, 5, 5, 5, 5, 5]
    assert world.history.mended(KEY) != before[0]
    assert world.history.mended("ns/other") == before[1]


def test_who_begins_reads_the_last_half_hour() -> None:
    world = two()
    world.seconds(KEPT_SECONDS + 100, a=2, b=3)
    world.history = History(world.now)
    world.second(a=2, b=3)
    assert world.told(int(world.now) - KEPT_SECONDS) == [5.0] * KEPT_SECONDS
    assert world.told(int(world.now) - KEPT_SECONDS - 10)[:9] == [0.0] * 9


def test_who_begins_while_one_is_missing_knows_nothing_before_it_is_back() -> None:
    world = two()
    world.seconds(100, a=2, b=3)
    world.at["b"].answers = False
    world.history = History(world.now)
    world.seconds(4, a=2, b=3)
    assert set(world.told(NOON)) == {None}
    world.at["b"].answers = True
    world.second(a=2, b=3)
    assert set(world.told(NOON)) == {5}


def test_seconds_before_a_gateway_started_are_known() -> None:
    world = two()
    world.seconds(5, a=2, b=3)
    world.start("c")
    world.history = History(world.now)
    world.seconds(3, a=2, b=3, c=1)
    assert world.told(NOON - 5) == [0] * 5 + [5] * 5 + [6] * 3


def test_one_that_left_and_is_listed_again_is_not_counted_twice() -> None:
    world = two()
    world.seconds(3, a=2, b=3)
    gateway = world.at["b"]
    world.leave("b")
    world.seconds(3, a=2)
    world.at["b"] = gateway
    world.listed.add("b")
    world.ready.add("b")
    world.seconds(3, a=2, b=3)
    assert world.told() == [5, 5, 5, 2, 2, 2, 5, 5, 5]


def test_one_process_at_two_addresses_is_counted_once() -> None:
    world = two()
    world.at["v6"] = world.at["b"]
    world.listed.add("v6")
    world.ready.add("v6")
    world.at["b"].ledger.of("ns", "demo").waiting = 4
    world.seconds(3, a=2, b=3)
    assert world.told() == [5, 5, 5]
    assert world.history.waiting(KEY, world.now) == 4


def test_what_waits_and_runs_is_the_sum_of_those_that_are_heard() -> None:
    world = two()
    for gateway, waiting in zip(world.at.values(), (2, 5), strict=True):
        gateway.ledger.of("ns", "demo").waiting = waiting
        gateway.ledger.of("ns", "demo").place_taken()
    world.second()
    assert (world.history.waiting(KEY, world.now), world.history.running(KEY, world.now)) == (7, 2)
    assert world.history.unheard(world.now, world.ready) == []
    world.at["b"].answers = False
    world.seconds(3)
    assert (world.history.waiting(KEY, world.now), world.history.running(KEY, world.now)) == (2, 1)
    assert world.history.unheard(world.now, world.ready) == ["b"]


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("where", ["now", "started", "arrivals"])
def test_a_page_that_is_not_made_of_numbers_is_no_answer(where: str, value: float) -> None:
    whole: dict[str, Any] = {"uid": "u", "started": NOON - 10.0, "now": float(NOON)}
    # Not checked, as a reader that is more lenient would hand it on.
    counts = LoadCounters.model_construct(arrivals=value if where == "arrivals" else 1.0)
    load = DeploymentLoad(
        namespace="ns",
        name="demo",
        waiting=1,
        running=0,
        counters=counts,
        bins=(LoadBin(second=NOON - 5, counts=counts),),
    )
    page = (
        GatewayLoad.model_construct(**whole | {where: value}, deployments=(load,))
        if where in whole
        else GatewayLoad(**whole, deployments=(load,))
    )
    history = History(NOON)
    assert not history.take("a", NOON - KEPT_SECONDS, NOON, page, NOON)
    assert history.unheard(NOON, ["a"]) == ["a"]
    assert history.waiting(KEY, NOON) == 0


def test_memory_is_bounded() -> None:
    world = two()
    world.seconds(10, a=1)
    world.leave("b")
    world.start("b", "another")
    world.seconds(KEPT_SECONDS + 20)
    assert world.history._sums == {}
    assert len(world.history._processes) == 2
