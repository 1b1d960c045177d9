"""What failed leaves nothing in the cache that another request could take for computed."""

import math
from dataclasses import replace

import pytest

from aixcoder_serving.engine.interface import Finish, TokenLogprobs
from aixcoder_serving.engine.plan import Plan, StepResult
from aixcoder_serving.engine.prefix import CANDIDATES
from tests.unit.engine.engine_bench import Bench, ids
from tests.unit.engine.simulated_ranks import VOCABULARY, completion


def test_a_page_that_a_failed_step_was_to_copy_is_not_found() -> None:
    bench = Bench(blocks=400, slots=4, budget_ms=50.0, drafting=False)
    page = ids(16)
    bench.submit([*page, *ids(1600, 1)], 4)  # in use for long, so that its first page gives way to no partial one
    bench.step()
    for number in range(CANDIDATES + 1):  # and behind so many siblings that nobody looks at that page
        bench.submit([page[0], (page[1] + 1) % VOCABULARY, number % VOCABULARY, number // VOCABULARY, *ids(12)], 1)
        bench.step()
    bench.submit(page, 4)
    bench.submit(ids(63, 3), 4)  # more urgent than the long prompt, for which no room is left
    bench.ranks.fault_at_once = RuntimeError("rank 0: out of memory")
    bench.step()
    assert len(bench.ranks.plans[-1].copies) == 1
    assert 0 not in [work.slot for work in bench.ranks.plans[-1].work]
    key = [*page[:15], (page[15] + 1) % VOCABULARY]
    number = bench.submit(key, 4)
    bench.run()
    assert bench.answers[number].ids == completion(key, 0, 4)


@pytest.mark.parametrize(
    ("steps", "cached"),
    [
        pytest.param(0, 0, id="the first chunk"),
        pytest.param(1, 32, id="the second chunk: the first one is there"),
        pytest.param(3, 79, id="the first token after the prompt"),
    ],
)
def test_what_a_failed_step_was_to_compute_is_not_found(steps: int, cached: int) -> None:
    bench = Bench(budget_ms=4.0, drafting=False)
    bench.submit(ids(80), 8)
    for _ in range(steps):
        bench.step()
    bench.ranks.fault_at_once = RuntimeError("rank 0: out of memory")
    bench.step()
    again = bench.submit(ids(80), 8)
    bench.run()
    assert bench.answers[again].ids == completion(ids(80), 0, 8)
    finish = bench.answers[again].finish
    assert finish is not None
    assert finish.cached_tokens == cached


NAN = "the model computed no probabilities for the next token (not a number)"


@pytest.mark.parametrize(
    ("length", "position"),
    [
        pytest.param(8, 3, id="in the only page"),
        pytest.param(16, 15, id="in a full page that is the only one"),
        pytest.param(120, 10, id="in the first chunk: pages were published before it shows"),
        pytest.param(120, 119, id="in the last chunk"),
        pytest.param(120, 125, id="while it generates: the tail was published"),
    ],
)
def test_after_nan_the_same_prompt_is_computed_anew(length: int, position: int) -> None:
    bench = Bench(budget_ms=4.0, drafting=False)
    number = bench.submit(ids(length), 30)
    bench.ranks.spoilt = (0, position)
    bench.run()
    assert bench.answers[number].error == NAN
    again = bench.submit(ids(length), 30)
    bench.run()
    assert bench.answers[again].finish == Finish("length", 30, cached_tokens=0)
    assert bench.answers[again].ids == completion(ids(length), 0, 30)


@pytest.mark.parametrize(
    ("position", "key"),
    [
        pytest.param(20, ids(60), id="in a full page that is found"),
        pytest.param(10, [*ids(12), 7], id="in the first page, whose beginning is copied"),
        pytest.param(35, [*ids(40), 7], id="in a later page, whose beginning is copied"),
        pytest.param(66, ids(80), id="in a tail page"),
    ],
)
def test_nan_from_the_cache_fails_one_request_only(position: int, key: list[int]) -> None:
    """Who computed it was cancelled before it showed."""
    bench = Bench(budget_ms=4.0, drafting=False)
    first = bench.submit(ids(120), 4)
    bench.ranks.spoilt = (0, position)
    bench.step()
    bench.step()
    bench.cancel(first)
    answers = []
    for _ in range(3):
        answers.append(bench.answers[bench.submit(key, 4)])
        bench.run()
    assert answers[0].error == NAN
    assert [answer.ids for answer in answers[1:]] == [completion(key, 0, 4)] * 2


def test_a_request_beside_a_broken_one_goes_on_and_leaves_its_pages() -> None:
    bench = Bench(budget_ms=50.0, drafting=False)
    bench.submit(ids(40), 1)
    bench.run()
    good, bad = bench.submit([*ids(40), 3], 60), bench.submit([*ids(40), 4], 60)
    bench.ranks.spoilt = (1, 44)
    for _ in range(8):
        bench.step()
    assert bench.answers[bad].error == NAN
    again = bench.submit([*ids(40), 5], 1)  # the pages that both had found, anew, while the first one still has its own
    bench.run()
    for number, prompt, length in ((good, [*ids(40), 3], 60), (again, [*ids(40), 5], 1)):
        assert bench.answers[number].ids == completion(prompt, 0, length)
    assert bench.answers[again].finish == Finish("length", 1, cached_tokens=0)


@pytest.mark.parametrize("length", [0, 1])
@pytest.mark.parametrize("at", [5, 39], ids=["before the last chunk", "in the last chunk"])
def test_prompt_logprobs_that_are_no_numbers_fail_their_request(length: int, at: int) -> None:
    bench = Bench(budget_ms=4.0)
    number = bench.submit(ids(40), length, prompt_logprobs=0)
    run = bench.ranks.run

    def spoiling(plan: Plan) -> StepResult:
        nan = [work.start <= at < work.start + work.count for work in plan.work]
        sampled = zip(run(plan).sampled, nan, strict=True)
        return StepResult(
            tuple(replace(s, prompt_logprobs=(TokenLogprobs(1, math.nan),)) if n else s for s, n in sampled)
        )

    bench.ranks.run = spoiling  # type: ignore[method-assign]
    bench.run()
    assert bench.answers[number].error == NAN
    assert bench.engine.stats().blocks_cached == 0
