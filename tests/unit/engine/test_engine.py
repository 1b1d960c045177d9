"""The core over simulated ranks: whatever comes together, each request gets what it would get alone."""

from typing import Any

import pytest

from aixcoder_serving.engine.cost import Cost
from aixcoder_serving.engine.interface import EngineClosed, Finish
from tests.unit.engine.engine_bench import BYTES, LINEAR, Bench, ids
from tests.unit.engine.simulated_ranks import VOCABULARY, completion


def test_a_request_alone() -> None:
    bench = Bench()
    number = bench.submit(ids(40), 8)
    bench.run()
    assert bench.answers[number].ids == completion(ids(40), 0, 8)
    assert bench.answers[number].finish == Finish("length", 8)


def test_what_it_can_do_is_told() -> None:
    cost = Cost(floor=1.0, base=0.5, per_token=0.1, per_read=0.001, per_row=0.2)
    stats = Bench(slots=3, cost=cost).engine.stats()
    assert (stats.slots, stats.prefill_ms_per_token) == (3, 0.1)
    assert stats.decode_ms_per_request == pytest.approx(0.1 + 0.2 + 2.048)


def test_the_first_step_of_a_prompt_tells_how_long_it_waited() -> None:
    bench = Bench(slots=1)
    long = bench.submit(ids(200), 2)
    bench.step()
    assert (bench.answers[long].waited_ms, bench.answers[long].ids) == (0.0, []), "its prompt takes several steps"
    next_one, left = bench.submit([3, *ids(10)], 2), bench.submit([4, *ids(10)], 2)
    asked = bench.now
    bench.cancel(left)
    while bench.answers[long].finish is None:
        bench.step()
    placed = bench.now
    bench.run()
    assert bench.answers[next_one].waited_ms == pytest.approx((placed - asked) * 1000)
    assert bench.answers[left].waited_ms is None


@pytest.mark.parametrize("length", [1, 15, 16, 17, 32, 33, 200])
def test_the_same_prompt_again_costs_one_token(length: int) -> None:
    bench = Bench(drafting=False)
    bench.submit(ids(length), 3)
    bench.run()
    before = bench.ranks.computed
    number = bench.submit(ids(length), 3)
    bench.run()
    assert bench.answers[number].ids == completion(ids(length), 0, 3)
    assert bench.answers[number].finish == Finish("length", 3, cached_tokens=length - 1)
    assert bench.ranks.computed - before == 3, "the prompt's last token and two generated ones"


def test_a_prompt_that_goes_on_after_a_completion_finds_it() -> None:
    bench = Bench(drafting=False)
    first = bench.submit(ids(21), 6)
    bench.run()
    typed = ids(21) + bench.answers[first].ids + [3]
    number = bench.submit(typed, 2)
    bench.run()
    finish = bench.answers[number].finish
    assert finish is not None
    assert finish.cached_tokens == len(typed) - 2, "the last generated token was never computed"
    assert bench.answers[number].ids == completion(typed, 0, 2)


def test_two_salts_share_nothing() -> None:
    bench = Bench()
    bench.submit(ids(64), 2, salt="a")
    bench.run()
    number = bench.submit(ids(64), 2, salt="b")
    bench.run()
    assert bench.answers[number].finish == Finish("length", 2, cached_tokens=0)


def test_reuse_off() -> None:
    bench = Bench(prefix_caching=False)
    bench.submit(ids(64), 2)
    bench.run()
    number = bench.submit(ids(64), 2)
    bench.run()
    assert bench.answers[number].finish == Finish("length", 2, cached_tokens=0)
    assert bench.engine.stats().blocks_cached == 0


def test_a_prompt_under_way_is_waited_for() -> None:
    bench = Bench(drafting=False)
    first = bench.submit(ids(200), 2)
    bench.step()
    second = bench.submit(ids(200), 2)
    bench.run()
    assert bench.answers[first].ids == bench.answers[second].ids == completion(ids(200), 0, 2)
    assert bench.ranks.computed <= 200 + 1 + 16 + 1, "the prompt was computed once"


def test_who_waited_takes_over_when_the_other_is_cancelled() -> None:
    bench = Bench(drafting=False)
    first = bench.submit(ids(200), 2)
    bench.step()
    computed = bench.ranks.computed
    second = bench.submit(ids(200), 2)
    bench.step()
    bench.cancel(first)
    bench.run()
    assert bench.answers[second].ids == completion(ids(200), 0, 2)
    finish = bench.answers[second].finish
    assert finish is not None
    assert finish.cached_tokens >= computed, "what the first one computed is not lost"


def test_n_samples_share_the_prompt() -> None:
    bench = Bench(drafting=False)
    numbers = [bench.submit(ids(100), 4, seed=seed) for seed in range(4)]
    bench.run()
    for seed, number in enumerate(numbers):
        assert bench.answers[number].ids == completion(ids(100), seed, 4)
    assert bench.ranks.computed <= 100 + 4 * 16 + 4 * 3


def test_a_cancelled_request_is_in_no_later_plan() -> None:
    bench = Bench(slots=2)
    running, prefilling, queued = bench.submit(ids(4), 50), bench.submit(ids(400), 2), bench.submit(ids(9, 5), 2)
    bench.step()
    for number in (running, prefilling, queued):
        bench.cancel(number)
        bench.cancel(number)
    assert not bench.engine.busy
    assert bench.engine.stats().cancelled == 3
    assert bench.engine.stats().blocks_used == 0
    plans = len(bench.ranks.plans)
    bench.step()
    assert len(bench.ranks.plans) == plans
    assert {bench.answers[n].finish.reason for n in (running, prefilling, queued)} == {"cancelled"}  # type: ignore[union-attr]


ON_TWO_CORES = Cost(floor=4.0, base=2.0, per_token=0.33, per_read=0.0, per_row=0.12)
"""About that of the benchmarks' model, in bfloat16."""


@pytest.mark.parametrize(("tokens", "cost"), [(40, LINEAR), (100, ON_TWO_CORES)])
def test_a_typed_through_completion_ends_within_three_steps(tokens: int, cost: Cost) -> None:
    bench = Bench(budget_ms=50.0, cost=cost, most_tokens=256)
    expected = completion(ids(30), 0, tokens)
    number = bench.submit(ids(30), tokens, draft=expected)
    assert bench.run() <= 3
    assert bench.answers[number].ids == expected


@pytest.mark.parametrize("wrong", [0, 1, 5, 39])
def test_a_draft_never_changes_the_output(wrong: int) -> None:
    bench = Bench(budget_ms=50.0)
    expected = completion(ids(30), 0, 40)
    draft = [*expected[:wrong], (expected[wrong] + 1) % VOCABULARY, *expected[wrong + 1 :]]
    number = bench.submit(ids(30), 40, draft=draft)
    bench.run()
    assert bench.answers[number].ids == expected
    # What was rejected was not published: the same prompt with the draft behind it finds the true tokens only.
    follower = bench.submit([*ids(30), *draft], 4)
    bench.run()
    assert bench.answers[follower].ids == completion([*ids(30), *draft], 0, 4)


@pytest.mark.parametrize("end", ["stop_id", "stop_string", "max_tokens"])
def test_a_draft_across_the_end_ends_at_the_same_token(end: str) -> None:
    expected = completion(ids(30), 0, 40)
    at = expected.index(expected[6]) + 1
    ways: dict[str, dict[str, Any]] = {
        "stop_id": {"stop_ids": frozenset({expected[6]})},
        "stop_string": {"stop": (BYTES[expected[6]].decode(),)},
        "max_tokens": {"max_tokens": at},
    }
    outcomes = []
    for draft in ((), expected):
        bench = Bench(budget_ms=50.0)
        number = bench.submit(ids(30), **{"max_tokens": 40, **ways[end]}, draft=draft)
        bench.run()
        outcomes.append((bench.answers[number].ids, bench.answers[number].finish))
    assert outcomes[0] == outcomes[1]
    assert outcomes[0][0] == expected[:at]


def test_a_fault_fails_the_requests_of_its_step_alone() -> None:
    bench = Bench(slots=2)
    hit = [bench.submit(ids(20), 4), bench.submit(ids(20, 3), 4)]
    queued = bench.submit(ids(20, 7), 4)
    bench.ranks.fault = RuntimeError("rank 1: out of memory")
    bench.step()
    for number in hit:
        error = bench.answers[number].error
        assert error == "a step of the engine failed: rank 1: out of memory"
    bench.run()
    assert bench.answers[queued].ids == completion(ids(20, 7), 0, 4)
    again = bench.submit(ids(20), 4)
    bench.run()
    assert bench.answers[again].ids == completion(ids(20), 0, 4)


def test_a_lost_device_fails_all() -> None:
    bench = Bench(slots=1)
    numbers = [bench.submit(ids(20), 4), bench.submit(ids(20, 3), 4)]
    bench.ranks.fault = EngineClosed("the device is lost: unplugged")
    bench.step()
    assert [bench.answers[n].error for n in numbers] == ["the device is lost: unplugged"] * 2
    assert bench.engine.failure == "the device is lost: unplugged"


def test_a_deadline_ends_queued_and_running_ones() -> None:
    bench = Bench(slots=1)
    running = bench.submit(ids(20), 400, deadline_ms=35.0)
    queued = bench.submit(ids(20, 3), 4, deadline_ms=25.0)
    bench.run()
    assert bench.answers[queued].finish == Finish("length", 0)
    finish = bench.answers[running].finish
    assert finish is not None
    assert finish.reason == "length"
    assert 0 < finish.completion_tokens < 40


def test_nothing_to_generate() -> None:
    bench = Bench()
    number = bench.submit(ids(20), 0)
    assert bench.answers[number].finish == Finish("length", 0)
    assert not bench.ranks.plans
