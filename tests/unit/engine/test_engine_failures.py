"""What failed leaves nothing in the cache that another request could take for computed."""

import pytest

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
