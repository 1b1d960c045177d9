"""What goes wrong only where two things meet: a plan and a submission, a draft and an end, a cancel and a survivor."""

from typing import Any

import pytest

from aixcoder_serving.engine.interface import Sampling
from aixcoder_serving.engine.plan import Plan, StepResult
from tests.unit.engine.engine_bench import Bench, alone, ids
from tests.unit.engine.scheduler_bench import Bench as SchedulerBench
from tests.unit.engine.simulated_ranks import VOCABULARY, completion

LINES = (b"a", b"b", b"\n", b" ", b"  c", b"d\n", b"\te", b"f", b"g\n ", b"h", b"i")
"""Ids that spell lines, some of them indented."""


def test_a_block_of_an_unfinished_step_is_not_matchable() -> None:
    bench = SchedulerBench(budget=64)
    first = bench.add(range(150))
    bench.step()
    plan = bench.plan()
    assert plan is not None
    for prompt in (range(150), range(100)):
        late = bench.requests[bench.add(prompt)]
        assert bench.scheduler._match(late).tokens == 64, "what the step before computed, and no more"
        assert late.parked_on is not None
    bench.scheduler.advance(bench.requests[first], plan.work[0], 0, ())
    assert bench.scheduler._match(late).tokens == 99


def test_what_comes_while_a_step_runs_reads_nothing_of_it() -> None:
    bench = Bench(budget_ms=4.0, drafting=False)
    bench.submit(ids(120), 4)
    run, late = bench.ranks.run, list[int]()

    def submitting(plan: Plan) -> StepResult:
        late.append(bench.submit([*ids(20 * len(late)), len(late)], 4))
        return run(plan)

    bench.ranks.run = submitting  # type: ignore[method-assign]
    for _ in range(6):
        bench.step()
    bench.ranks.run = run  # type: ignore[method-assign]
    bench.run()
    for count, number in enumerate(late):
        assert bench.answers[number].ids == completion([*ids(20 * count), count], 0, 4)


@pytest.mark.parametrize("min_tokens", [1, 2, 5, 12])
@pytest.mark.parametrize("banned_at", [0, 1, 4, 6])
def test_a_draft_of_a_stop_id_before_min_tokens_changes_nothing(min_tokens: int, banned_at: int) -> None:
    """The draft holds what would come if stop ids were not banned: it is wrong from there on."""
    free = completion(ids(30), 0, 40)
    wish: dict[str, Any] = {"stop_ids": frozenset({free[banned_at]}), "min_tokens": min_tokens}
    expected, finish = alone(ids(30), Sampling(max_tokens=40, seed=0, **wish))
    for draft in ((), free, expected, [free[banned_at]] * 20):
        bench = Bench(budget_ms=50.0)
        number = bench.submit(ids(30), 40, draft=draft, **wish)
        bench.run()
        assert (bench.answers[number].ids, bench.answers[number].finish) == (expected, finish)


@pytest.mark.parametrize("start", range(VOCABULARY))
@pytest.mark.parametrize(
    "wish",
    [
        pytest.param({"first_line": True}, id="first_line"),
        pytest.param({"n_indent": 1}, id="n_indent"),
        pytest.param({"n_indent": 2}, id="n_indent of two"),
        pytest.param({"first_line": True, "min_tokens": 6}, id="first_line and min_tokens"),
        pytest.param({"n_indent": 1, "stop": ("h\n", "ab")}, id="n_indent and stop strings"),
    ],
)
def test_a_draft_across_the_end_of_a_line_ends_at_the_same_token(start: int, wish: dict[str, Any]) -> None:
    prompt = ids(30, start)
    right = completion(prompt, 0, 40)
    expected, finish = alone(prompt, Sampling(max_tokens=40, seed=0, **wish), LINES)
    for draft in ((), right, [*right[: len(expected)], *[(i + 1) % VOCABULARY for i in right[len(expected) :]]]):
        bench = Bench(budget_ms=50.0, token_bytes=LINES)
        number = bench.submit(prompt, 40, draft=draft, **wish)
        bench.run()
        assert (bench.answers[number].ids, bench.answers[number].finish) == (expected, finish)
    again = bench.submit([*prompt, *expected], 4)  # what was verified behind the end is not found
    bench.run()
    assert bench.answers[again].ids == completion([*prompt, *expected], 0, 4)


@pytest.mark.parametrize("when", ["queued", "prefilling", "generating"])
def test_a_cancelled_request_is_in_no_later_plan_while_another_one_runs(when: str) -> None:
    bench = Bench(slots=1 if when == "queued" else 3, budget_ms=4.0, drafting=False)
    survivor = bench.submit(ids(4), 60)
    bench.step()
    victim = bench.submit(ids(9 if when == "generating" else 400, 5), 60)
    for _ in range(3):
        bench.step()
    slot = bench.engine._requests[victim].slot
    assert (slot is None) == (when == "queued")
    got, plans = list(bench.answers[victim].ids), len(bench.ranks.plans)
    bench.cancel(victim)
    bench.run()
    later = bench.ranks.plans[plans:]
    assert len(later) > 50
    assert all([work.slot for work in plan.work] == [0] and not plan.admissions for plan in later)
    assert bench.answers[victim].ids == got
    assert bench.answers[survivor].ids == completion(ids(4), 0, 60)
