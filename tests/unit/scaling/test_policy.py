"""The wish: cases by name."""

from dataclasses import replace
from typing import Any

import pytest

from aixcoder_operator.scaling.load import Capacity, Load, Second
from aixcoder_operator.scaling.memory import MEMORIES_S
from aixcoder_operator.scaling.policy import Bounds, Now, Rate, Standing, decide
from aixcoder_serving.protocol import KEPT_SECONDS
from tests.unit.scaling.world import BOUNDS, CAPACITY, COLD_START_S, PREFILL_S, PROMPT, World, calm

HOLD = int(2 * COLD_START_S)
PEAK_SECONDS = MEMORIES_S[0]


@pytest.mark.parametrize(
    ("arrivals", "replicas"),
    [
        pytest.param(0, 1, id="none: the least"),
        pytest.param(1, 1, id="one a second"),
        pytest.param(4, 1, id="just one replica"),
        pytest.param(5, 2, id="one more than that"),
        pytest.param(48, 10, id="many"),
        pytest.param(500, 20, id="the most"),
    ],
)
def test_steady_load(arrivals: int, replicas: int) -> None:
    assert World().steady(arrivals, 60).standing.desired == replicas


def test_burst() -> None:
    """The wish rises with the first second that is told, and more where requests wait."""
    world = World()
    world.steady(1, 400)
    assert world.steady(48, 1, queued=20).standing.desired == 10
    assert world.steady(48, 4, queued=40).standing.desired == 11
    assert "queued 40, 48/s arriving" in world.decisions[-1].reason


def test_a_second_with_less_than_a_hundredth_of_all_is_not_a_burst() -> None:
    world = World()
    world.steady(48, 400)
    world.steady(56, 1)
    assert world.steady(48, 10).standing.desired == 10


def test_ramp() -> None:
    """The wish is never behind by more than what the last seconds brought."""
    world = World()
    for rate in range(5, 100):
        decision = world.steady(rate, 5)
        assert decision.standing.desired * 5 >= rate
    assert list(world.desired) == sorted(world.desired)


def test_lull() -> None:
    """A lull shorter than what is remembered of the busiest seconds changes nothing; a longer one does, once held."""
    world = World()
    world.steady(48, 400)
    world.steady(4, 150)
    assert world.steady(48, 60).standing.desired == 10
    assert set(world.desired[-600:]) == {10}
    world.steady(4, PEAK_SECONDS + HOLD - 4)
    assert world.desired[-1] == 10
    assert world.steady(4, 10).standing.desired == 1


def test_night() -> None:
    """To zero where that is allowed, after so long without a request; back with as many as the queue needs."""
    world = World(bounds=replace(BOUNDS, least=0))
    world.steady(4, 60)
    assert world.steady(0, 299).standing.desired == 1
    assert world.steady(0, 1).standing.desired == 0
    assert world.steady(0, 3600).standing.desired == 0
    decision = world.play([Second(0, arrivals=4, queued=4)])
    assert decision.standing.desired == 4
    assert decision.standing.hold_until == world.time + HOLD


def test_a_night_with_a_request_now_and_then_keeps_one() -> None:
    world = World(bounds=replace(BOUNDS, least=0))
    for _ in range(20):
        world.steady(1, 1)
        assert world.steady(0, 250).standing.desired == 1


def test_nothing_goes_to_zero_while_something_runs() -> None:
    world = World(bounds=replace(BOUNDS, least=0))
    world.steady(0, 1000)
    now = Now(float(world.time), running=1.0)
    assert decide(world.load, now, world.bounds, Standing(1)).standing.desired == 1


def test_nothing_goes_to_zero_while_something_arrives() -> None:
    """At a gateway that is heard, though no second of it is known as a whole."""
    world = World(bounds=replace(BOUNDS, least=0))
    world.steady(0, 1000)
    now = Now(float(world.time), arrivals_per_s=0.1)
    assert decide(world.load, now, world.bounds, Standing(1)).standing.desired == 1


def woken(seconds: int) -> World:
    """Asleep, and then two requests a second that are held at the gateways."""
    world = World(bounds=replace(BOUNDS, least=0, most=100))
    world.steady(4, 60)
    assert world.steady(0, 400).standing.desired == 0
    world.play([Second(0, arrivals=2, queued=2 * held) for held in range(1, seconds + 1)], ready=0)
    return world


def test_zero_is_woken_with_what_the_queue_needs_until_a_replica_is_ready() -> None:
    world = woken(30)
    assert world.desired[-30:] == [2 * held for held in range(1, 31)]
    assert world.decisions[-1].reason == "woken by 60, 0.20 s of a replica each: 60"
    assert world.play([Second(0, arrivals=2, queued=99)], ready=1).wish == 3
    assert world.play([Second(0, arrivals=2, queued=99)], ready=0).wish == 3  # lost again: that is no wake
    assert world.desired[-1] == 60


def test_what_waited_for_a_wake_raises_no_margin() -> None:
    """Only who waits while replicas are at work shows that they are slow."""
    world = woken(10)
    world.play([Second(0, arrivals=2, queued=20, waited_over_target=2)] * 20, ready=0)
    assert world.load.margin == 0
    world.steady(2, 1, waited_over_target=2)
    assert world.load.margin > 0


def asleep() -> World:
    """After bursts that are remembered, more than ten minutes apart."""
    world = World(bounds=replace(BOUNDS, least=0, zero_after_s=600.0))
    for _ in range(4):
        world.steady(40, 20)
        world.steady(0, 700)
    assert world.steady(0, 40).standing.desired == 0
    assert world.load.need > 7
    return world


def test_one_request_wakes_one_whatever_is_remembered() -> None:
    world = asleep()
    world.play([Second(0, arrivals=1, queued=1)] + [Second(0, queued=1)] * 20, ready=0)
    assert set(world.desired[-21:]) == {1}
    assert world.play([Second(0)], ready=1).standing.desired > 7


def test_one_that_has_left_again_wakes_one() -> None:
    assert asleep().play([Second(0, arrivals=1)], ready=0).standing.desired == 1


def test_unknown_seconds_wake_nobody() -> None:
    """A gateway is gone, and with it what it had to tell."""
    world = asleep()
    world.play([Second(0, heard=False)] * 12, ready=0)
    world.play([Second(0)] * 60, ready=0)
    assert set(world.desired[-72:]) == {0}


def test_what_a_wake_asked_for_is_held() -> None:
    """From the last second in which it did, however long the first replica takes."""
    world = woken(30)
    world.play([Second(0, queued=60)] * (2 * HOLD), ready=0)
    world.steady(2, HOLD - 1)
    assert set(world.desired[-3 * HOLD + 1 :]) == {60}
    assert world.steady(2, 2).standing.desired < 10


@pytest.mark.parametrize(("target_s", "replicas"), [(0.01, 11), (0.2, 10), (1.0, 10), (60.0, 10)])
def test_a_second_may_leave_as_much_as_may_wait(target_s: float, replicas: int) -> None:
    """Of 48 seconds' steady load nothing: five in a row need what arrives."""
    world = World()
    world.load.target_s = target_s
    assert world.steady(48, 60).standing.desired == replicas


@pytest.mark.parametrize(("target_s", "replicas"), [(0.01, 11), (0.2, 10), (1.0, 6), (60.0, 6)])
def test_a_lonely_busy_second_may_leave_as_much_as_may_wait(target_s: float, replicas: int) -> None:
    world = World()
    world.load.target_s = target_s
    for _ in range(10):
        world.steady(48, 1)
        world.steady(4, 9)
    assert world.standing.desired == replicas


def test_zero_is_not_woken_without_a_request() -> None:
    world = World(bounds=replace(BOUNDS, least=0), standing=Standing(0))
    assert world.steady(0, 10).standing.desired == 0


def test_a_minimum_at_night() -> None:
    world = World(bounds=replace(BOUNDS, least=3))
    assert world.steady(0, 1).standing.desired == 3


def test_one_slow_replica() -> None:
    """What is late shows that a replica does less than its speed says."""
    world = World()
    world.steady(23, 300)
    before = world.desired[-1]
    world.steady(23, 1200, waited_over_target=3)
    assert world.desired[-1] > before
    assert "15% more by how many were late" in world.decisions[-1].reason


def test_nobody_late_shows_that_fewer_would_do() -> None:
    """Of a hundred one may be: within hours the number falls, by a tenth at most."""
    world = World()
    world.steady(60, 10)
    before = world.load.need
    world.steady(60, 7190)
    assert world.load.margin == pytest.approx(-7200 * 0.007 * 0.001, rel=0.1)
    world.steady(60, 10_000)
    assert world.load.need == pytest.approx(0.9 * before, rel=0.001)
    assert "10% less by how many were late" in world.decisions[-1].reason


def test_what_is_learned_aims_at_fewer_late_than_may_be() -> None:
    world = World()
    world.steady(60, 600)
    before = world.load.margin
    world.play([calm(0, 60, waited_over_target=0.7 * 0.01 * 60)] * 3600)
    assert world.load.margin == pytest.approx(before)


def test_a_burst_out_of_reach_raises_the_margin_at_once_for_half_an_hour() -> None:
    world = World()
    world.steady(48, 600)
    before = world.load.margin
    world.steady(48, 60, waited_over_target=48)
    assert world.load.margin == pytest.approx(before + 60 * (0.5 * 0.003 + 0.001), rel=0.1)
    world.steady(48, 3 * KEPT_SECONDS)
    assert world.load.margin < before + 0.06


def test_what_was_learned_of_a_second_is_not_learned_again() -> None:
    """Half an hour is read anew, by a new leader and where a gateway tells late."""
    load = Load(CAPACITY, COLD_START_S, 0.12, learned_at=1_000_100.0)
    for second in range(1_000_000, 1_000_101):
        load.add(calm(second, 48, waited_over_target=24))
    assert load.learned == 0.12
    load.add(calm(1_000_101, 48, waited_over_target=24))
    assert load.learned > 0.12


@pytest.mark.parametrize(("seen", "quiet_s"), [(0, 7000), (5, KEPT_SECONDS)])
def test_how_long_it_is_quiet_is_known_for_longer_than_gateways_keep(seen: int, quiet_s: int) -> None:
    """The half hour is read again; `seen`: arrivals in its first second that were not told before."""
    world = World()
    world.steady(1, 1)
    world.steady(0, 7000)
    load, last = world.load.anew(), world.time - 1
    for second in range(last - KEPT_SECONDS, last + 1):
        load.add(Second(second, arrivals=seen if second == last - KEPT_SECONDS else 0))
    assert load.last == last
    assert last + 1 - load.quiet_since == quiet_s


def test_nothing_is_learned_of_who_is_late_where_replicas_are_missing() -> None:
    world = World()
    world.steady(48, 60)
    before = world.load.margin
    world.steady(48, 600, waited_over_target=48, starved=True)
    assert world.load.margin == pytest.approx(before, abs=0.001)


@pytest.mark.parametrize(("told", "learned"), [(-0.7, -0.1), (0.2, 0.2), (3.0, 0.5)])
def test_what_was_learned_has_bounds(told: float, learned: float) -> None:
    assert Load(CAPACITY, learned=told).learned == learned


def test_steady_load_of_a_large_fleet_has_as_many_as_it_keeps_at_work() -> None:
    """A second may leave some of its work to the next, but not each second."""
    world = World(bounds=replace(BOUNDS, most=250))
    assert world.steady(1000, 10).standing.desired == 200


def test_one_late_request_after_a_quiet_spell_is_no_more_than_ten_late_seconds() -> None:
    world = World()
    world.steady(4, 60)
    world.steady(0, 3600)
    world.steady(1, 1, waited_over_target=1)
    assert world.load.margin == pytest.approx(10 * (0.003 + 0.001))


def test_gateway_restart() -> None:
    """Seconds of which a gateway's share is lost are unknown: nothing is scaled down for them, nor right after."""
    world = World()
    world.steady(48, 400)
    world.play([calm(0, 24, heard=False)] * (PEAK_SECONDS + HOLD), all_heard=False)
    assert set(world.desired[-PEAK_SECONDS:]) == {10}
    assert world.steady(48, 300).standing.desired == 10


def test_nothing_is_scaled_down_while_a_gateway_is_not_heard() -> None:
    world = World()
    world.steady(48, 400)
    assert world.play([calm(0, 4)] * 400, all_heard=False).standing.desired == 10
    assert "a gateway is not heard" in world.decisions[-1].reason
    assert world.steady(4, 1).standing.desired == 1


def test_operator_restart() -> None:
    """A new one, given the half hour that the gateways keep, decides what the old one did."""
    world = World()
    rates = [(second * 37) % 60 for second in range(2 * KEPT_SECONDS)]
    world.play(calm(0, rate) for rate in rates)
    load = Load(CAPACITY, COLD_START_S)
    for number in range(KEPT_SECONDS, 0, -1):
        load.add(calm(world.time - number, rates[-number]))
    now = Now(float(world.time))
    decision = decide(load, now, world.bounds, world.standing)
    assert decision.wish == world.decisions[-1].wish
    assert decision.standing.desired == world.desired[-1]


def test_a_new_leader_without_any_history_scales_nothing_down() -> None:
    world = World(standing=Standing(7))
    world.steady(1, int(0.9 * HOLD) - 2)
    assert world.desired[-1] == 7
    assert world.steady(1, HOLD).standing.desired == 1


def test_a_new_leader_keeps_what_is_held() -> None:
    world = World(standing=Standing(7, hold_until=1_000_000 + 58.0))
    assert world.steady(1, 57).standing.desired == 7
    assert world.steady(1, 1).standing.desired == 1


@pytest.mark.parametrize("jump", [-86_400, -40, 40, 86_400])
def test_clock_jump(jump: int) -> None:
    """What was known is of another time: nothing falls until as much is known again as a fall needs."""
    world = World()
    world.steady(48, 400)
    world.time += jump
    world.steady(4, HOLD // 2)
    assert set(world.desired[-HOLD // 2 :]) == {10}
    world.steady(4, PEAK_SECONDS + 2 * HOLD)
    assert world.desired[-1] == 1


def test_a_clock_that_is_set_back_begins_anew() -> None:
    """All that it says is what one says that was fed with nothing before, but for what it has learned."""
    world, fresh = World(), World()
    world.steady(48, 400, waited_over_target=30)
    fresh.load.learned = world.load.learned
    world.time = fresh.time
    for each in (world, fresh):
        each.steady(4, 1)
    assert fresh.load.margin > 0.1
    assert [(each.load.need, each.load.margin, each.load.peak, each.load.memory_s) for each in (world, fresh)] == [
        (fresh.load.need, fresh.load.margin, 4.0, PEAK_SECONDS)
    ] * 2
    assert world.load.learned_at == world.time - 1


def test_nothing_is_held_for_longer_than_twenty_minutes() -> None:
    world = World()
    world.load.cold_start_s = 7205.0
    world.steady(48, 300)
    world.steady(4, PEAK_SECONDS + 1195)
    assert world.desired[-1] == 10
    assert world.steady(4, 10).standing.desired == 1


def test_nothing_goes_to_zero_within_twice_a_start() -> None:
    """Though it was to after ten seconds."""
    world = World(bounds=replace(BOUNDS, least=0, zero_after_s=10.0))
    world.steady(1, 100)
    assert world.steady(0, HOLD - 1).standing.desired == 1
    assert world.steady(0, 1).standing.desired == 0


@pytest.mark.parametrize(("measured", "start"), [(None, 120), (0.0, 1), (30.0, 30), (7205.0, 1200)])
def test_the_start_to_reckon_with(measured: float | None, start: float) -> None:
    assert Load(CAPACITY, measured).start_s == start


def test_the_last_rise_stays_where_it_was_though_a_start_takes_longer_now() -> None:
    world = World(bounds=replace(BOUNDS, up=Rate(2, 100.0)), standing=Standing(1))
    world.steady(48, 1)
    world.load.cold_start_s = 120.0
    world.steady(48, 99)
    assert set(world.desired) == {3}
    assert world.steady(48, 1).standing.desired == 5


def test_a_hold_of_another_time_ends() -> None:
    world = World(standing=Standing(7, hold_until=1e12))
    world.steady(1, HOLD + 5)
    assert world.standing.hold_until <= world.time + HOLD


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -1.0, 1e308])
@pytest.mark.parametrize("counter", ["arrivals", "completed", "tokens_prefilled", "waited_over_target", "queued"])
def test_what_is_no_number_is_unknown(counter: str, value: float) -> None:
    world = World()
    world.steady(48, 100)
    changes: dict[str, Any] = {counter: value}
    world.play([replace(calm(0, 48), **changes)] * 10)
    assert world.desired[-1] == 10
    assert world.steady(48, 10).standing.desired == 10


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -1.0, 1e308])
@pytest.mark.parametrize("amount", ["queued", "running", "arrivals_per_s"])
@pytest.mark.parametrize("all_heard", [True, False])
def test_what_is_no_number_now_is_unknown(amount: str, value: float, all_heard: bool) -> None:
    """What waits is as it was at the end of the last second, and nothing is taken for quiet."""
    world = World(bounds=replace(BOUNDS, least=0))
    world.steady(48, 100)
    changes: dict[str, Any] = {amount: value, "all_heard": all_heard}
    now = replace(Now(float(world.time)), **changes)
    assert decide(world.load, now, world.bounds, world.standing).standing.desired == 10
    world.steady(0, 1000)
    now = replace(now, time=float(world.time))
    assert decide(world.load, now, world.bounds, Standing(1)).standing.desired == (amount == "queued" and all_heard) ^ 1


@pytest.mark.parametrize("value", [float("nan"), float("-inf"), 1e308, None])
def test_what_is_no_cold_start_is_not_known(value: float | None) -> None:
    """Held as after one of two minutes."""
    world = World()
    world.load.cold_start_s = value
    world.steady(48, 300)
    world.steady(4, PEAK_SECONDS + 235)
    assert world.desired[-1] == 10
    assert world.steady(4, 10).standing.desired == 1


def test_missing_samples() -> None:
    """One of ten may be missing; where it is every second one, nothing is scaled down."""
    few, many = World(), World()
    for world in (few, many):
        world.steady(48, 400)
    for number in range(1000):
        few.play([calm(0, 4, heard=bool(number % 20))])
        many.play([calm(0, 4, heard=bool(number % 2))])
    assert (few.desired[-1], many.desired[-1]) == (1, 10)
    assert "are known" in many.decisions[-1].reason


def test_no_sample_for_some_seconds() -> None:
    world = World()
    world.steady(4, 600)
    late = Now(float(world.time + 10))
    decision = decide(world.load, late, world.bounds, Standing(9))
    assert decision.standing.desired == 9
    assert "no load is known" in decision.reason


def test_steps() -> None:
    """So many replicas within a period, up and down."""
    bounds = Bounds(least=1, most=20, up=Rate(2, 10.0), down=Rate(3, 10.0))
    world = World(bounds=bounds, standing=Standing(1))
    world.steady(48, 25)
    assert world.desired[:25] == [3] * 10 + [5] * 10 + [7] * 5
    world.steady(48, 300)
    world.steady(1, PEAK_SECONDS + HOLD + 60)
    assert sorted(set(world.desired), reverse=True) == [10, 9, 7, 5, 4, 3, 1]


def test_bounds_that_change_hold_at_once() -> None:
    world = World()
    world.steady(48, 60)
    world.bounds = replace(BOUNDS, most=4)
    assert world.steady(48, 1).standing.desired == 4
    world.bounds = replace(BOUNDS, least=6)
    assert world.steady(48, 1).standing.desired >= 6


def test_speed_not_known() -> None:
    """A replica is taken to run two requests at once: 25 that take half a second each need more than six."""
    world = World(load=Load(Capacity(None, None, 64)))
    assert world.steady(25, 60).standing.desired == 7


def test_cancelled_requests_count_by_what_they_cost() -> None:
    """Seven of ten leave: those before their first token have half of their prompt computed, the others all of it."""
    load = Load(CAPACITY)
    typing = Second(
        0, arrivals=10, completed=3, cancelled_prefill=4, cancelled_decode=3, tokens_prefilled=6 * PROMPT, slot_ms=2000
    )
    for second in range(600):
        load.add(replace(typing, second=second))
    assert load.work_s == pytest.approx(PROMPT * PREFILL_S * 0.8)


def test_who_leaves_the_queue_does_not_make_requests_cheap() -> None:
    """Overload: eight of ten leave before they have a place. What arrives still needs what a request takes."""
    load = Load(CAPACITY)
    for second in range(600):
        load.add(calm(second, 10, completed=2, tokens_prefilled=2 * PROMPT, slot_ms=1000))
    assert load.work_s == pytest.approx(PROMPT * PREFILL_S)
    assert load.peak == 10
