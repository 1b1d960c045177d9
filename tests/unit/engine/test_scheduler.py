"""What the next step holds, case by case."""

import pytest

from aixcoder_serving.engine.cost import Cost
from aixcoder_serving.engine.plan import Work
from aixcoder_serving.engine.scheduler import AGE_SECONDS, MOST_ROWS
from tests.unit.engine.scheduler_bench import Bench

NOTHING_FREE = Cost(floor=0.0, base=0.0, per_token=1.0, per_read=0.0)
TEN_AT_LEAST = Cost(floor=10.0, base=0.0, per_token=1.0, per_read=0.0)


def test_nothing_to_do() -> None:
    assert Bench().plan() is None


def test_a_prompt_is_cut_to_the_budget() -> None:
    bench = Bench(budget=64)
    bench.add(150)
    assert [bench.step()[0] for _ in range(4)] == [
        Work(0, 0, 64, sample=False, blocks=(0, 1, 2, 3)),
        Work(0, 64, 64, sample=False, blocks=(4, 5, 6, 7)),
        Work(0, 128, 22, sample=True, blocks=(8, 9)),
        Work(0, 150, 1, sample=True),
    ]


def test_decoding_goes_on_beside_a_prompt_and_is_taken_from_its_budget() -> None:
    bench = Bench(budget=64)
    first = bench.add(10)
    assert bench.counts() == {first: 10}
    second = bench.add(200)
    assert bench.counts() == {first: 1, second: 63}
    assert bench.counts() == {first: 1, second: 63}


def test_the_fewest_tokens_go_first() -> None:
    bench = Bench(budget=64)
    long, short, middle = bench.add(300), bench.add(20), bench.add(60)
    assert bench.counts() == {short: 20, middle: 44}
    assert bench.counts() == {short: 1, middle: 16, long: 47}


def test_a_keystroke_overtakes_a_long_prompt_under_way() -> None:
    bench = Bench(budget=64)
    long = bench.add(1000)
    assert bench.counts() == {long: 64}
    key = bench.add(12)
    assert bench.counts() == {key: 12, long: 52}


def test_beside_what_gives_a_token_prompts_take_twice_as_long_again() -> None:
    bench = Bench(budget=64, cost=TEN_AT_LEAST)
    first = bench.add(10)
    assert bench.counts() == {first: 10}
    long = bench.add(1000)
    assert bench.counts() == {first: 1, long: 29}, "30 ms, not 64: the first one's next token comes as soon"
    key = bench.add(12)
    assert bench.counts() == {first: 1, key: 12, long: 26}, "the key gives a token too: 39 ms"


def test_many_prompts_have_their_share_by_heads() -> None:
    bench = Bench(budget=64, cost=TEN_AT_LEAST)
    first = bench.add(10)
    assert bench.counts() == {first: 10}
    longs = [bench.add(1000) for _ in range(3)]
    assert bench.counts() == {first: 1, longs[0]: 39}, "four times the 10 ms: one of them is the first one's"
    longs += [bench.add(1000) for _ in range(6)]
    assert bench.counts() == {first: 1, longs[0]: 63}, "but no more than the budget"


def test_a_prompt_alone_takes_the_whole_budget() -> None:
    bench = Bench(budget=64, cost=TEN_AT_LEAST)
    long = bench.add(1000)
    assert bench.counts() == {long: 64}
    key = bench.add(5)
    assert bench.counts() == {key: 5, long: 25}
    bench.scheduler.remove(bench.requests[key])
    assert bench.counts() == {long: 64}


def test_only_one_prompt_moves_by_a_block_however_full_the_step_is() -> None:
    bench = Bench(budget=2, cost=NOTHING_FREE)
    started = [bench.add(40), bench.add(41)]
    assert bench.counts() == {started[0]: 16}
    assert bench.counts() == {started[0]: 16}
    assert bench.counts() == {started[0]: 8}
    assert bench.counts() == {started[0]: 1, started[1]: 16}


def test_cached_tokens_do_not_count() -> None:
    bench = Bench(budget=64)
    done = bench.add(range(160))
    while bench.requests[done].generated < 2:
        bench.step()
    bench.scheduler.remove(bench.requests[done])
    other, again = bench.add(30), bench.add([*range(160), 5])
    assert bench.counts() == {again: 1, other: 30}
    assert bench.requests[again].cached == 160


def test_who_has_waited_long_goes_before_shorter_ones() -> None:
    bench = Bench(budget=64, slots=8)
    long = bench.add(400)
    waited = 0.0
    while bench.requests[long].slot is None:
        bench.add(64, max_tokens=1)
        for number in bench.step(0.05):
            if number != long:
                bench.scheduler.remove(bench.requests[number])
        waited += 0.05
        assert waited < 0.55, "none waits over 500 ms for its first chunk"
    assert waited > AGE_SECONDS - 0.05


def test_a_prompt_under_way_that_stood_still_goes_on() -> None:
    bench = Bench(budget=64, slots=8)
    long = bench.add(400)
    bench.step()
    moved = []
    for _ in range(30):
        bench.add(64, max_tokens=1)
        done = bench.step(0.05)
        moved.append(long in done)
        for number in done:
            if number != long:
                bench.scheduler.remove(bench.requests[number])
    assert 0 < sum(moved) < len(moved)
    gaps = "".join("x" if each else "." for each in moved).split("x")
    assert max(map(len, gaps)) * 0.05 <= 0.5


def test_a_key_and_first_chunks_among_many_long_prompts() -> None:
    """All editors begin anew, as after a replica's start: nobody has whole steps, and none waits long to begin."""
    bench = Bench(budget=64, slots=16, blocks=2000)
    longs = [bench.add(1000) for _ in range(12)]
    first: dict[int, float] = {}
    while len(first) < len(longs):
        now = bench.now
        for number in bench.step(0.05):
            first.setdefault(number, now)
        assert bench.now < 10
    assert max(first.values()) <= 0.5 + 1e-9
    for _ in range(100):  # some of them stand still at any time
        key = bench.add(3, max_tokens=1)
        steps = 1
        while key not in (done := bench.step(0.05)):
            steps += 1
        assert done[key].count == 3
        assert steps <= 2
        bench.scheduler.remove(bench.requests[key])


def test_who_stood_still_has_half_of_what_is_left() -> None:
    bench = Bench(budget=64, slots=8)
    long = bench.add(400)
    bench.step()
    bench.now += AGE_SECONDS + 0.01
    shorter = bench.add(100)
    assert bench.counts() == {long: 32, shorter: 32}


def test_however_full_a_step_is_the_most_urgent_prompt_moves() -> None:
    bench = Bench(budget=2, slots=8, cost=NOTHING_FREE)
    decoding = [bench.add(16) for _ in range(4)]
    for _ in range(8):
        bench.step()
    prompt = bench.add(100)
    assert bench.counts() == {**dict.fromkeys(decoding, 1), prompt: 16}


def test_a_step_holds_no_more_than_its_buffers() -> None:
    bench = Bench(budget=1e9)
    bench.add(2000, 1)
    assert list(bench.counts().values()) == [512]


def test_no_slot() -> None:
    bench = Bench(slots=1)
    first, second = bench.add(10), bench.add(5)
    assert bench.counts() == {second: 5}
    assert bench.counts() == {second: 1}
    bench.scheduler.remove(bench.requests[second])
    assert bench.counts() == {first: 10}


def test_what_was_started_always_has_its_blocks() -> None:
    """Prompt and max_tokens are reserved at admission: a second request waits rather than stop the first."""
    bench = Bench(blocks=10)
    first, second = bench.add(32, max_tokens=96), bench.add(32, max_tokens=16)
    assert bench.counts() == {first: 32}
    for _ in range(95):
        assert bench.counts() == {first: 1}
    bench.scheduler.remove(bench.requests[first])
    assert bench.counts() == {second: 32}


def test_a_small_one_passes_a_large_one_that_does_not_fit_yet() -> None:
    bench = Bench(blocks=20)
    running = bench.add(16, max_tokens=160)
    bench.step()
    large, small = bench.add(200, max_tokens=1), bench.add(201, max_tokens=1)
    tiny = bench.add(16, max_tokens=16)
    assert bench.counts() == {running: 1, tiny: 16}
    assert bench.requests[large].slot is bench.requests[small].slot is None


def test_a_large_one_that_has_waited_long_is_not_passed_any_more() -> None:
    bench = Bench(blocks=20)
    running = bench.add(16, max_tokens=160)
    bench.step()
    bench.add(200, max_tokens=1)
    bench.now += AGE_SECONDS + 0.01
    bench.add(16, max_tokens=16)
    assert bench.counts() == {running: 1}


def test_the_same_prompt_at_once_is_computed_once() -> None:
    bench = Bench(budget=64)
    first, second = bench.add(range(200)), bench.add(range(200))
    for _ in range(3):
        assert bench.counts() == {first: 64}
    assert bench.counts() == {first: 8, second: 8}, "a rest of less than a block is not waited for"
    assert bench.counts() == {first: 1, second: 1}


def test_without_a_cache_the_same_prompts_run_side_by_side() -> None:
    bench = Bench(budget=64, caching=False)
    first, second = bench.add(range(40)), bench.add(range(40))
    assert bench.counts() == {first: 40, second: 24}


def test_who_parked_takes_over_in_mid_prompt() -> None:
    bench = Bench(budget=64)
    first, second = bench.add(range(200)), bench.add(range(200))
    bench.step()
    bench.step()
    bench.scheduler.remove(bench.requests[first])
    assert bench.counts() == {second: 64}
    assert bench.requests[second].cached == 128


def test_who_parked_and_is_cancelled_leaves_nothing() -> None:
    bench = Bench(budget=64)
    first, second = bench.add(range(200)), bench.add(range(200))
    bench.step()
    bench.scheduler.remove(bench.requests[second])
    assert len(bench.scheduler.waiting) == 0
    for _ in range(4):
        bench.step()
    bench.scheduler.remove(bench.requests[first])
    assert bench.plan() is None
    assert bench.pool.used == 0


def test_a_short_one_that_waits_for_a_long_one_makes_it_urgent() -> None:
    bench = Bench(budget=64)
    long = bench.add(range(1000))
    assert bench.counts() == {long: 64}
    other = bench.add(range(5000, 5060))
    follower = bench.add(range(100))
    assert bench.counts() == {long: 64}, "36 tokens are what the follower waits for"
    assert bench.counts() == {follower: 1, other: 60, long: 3}


def test_drafts_use_what_is_left_only() -> None:
    bench = Bench(budget=20, cost=TEN_AT_LEAST)
    number = bench.add(10, max_tokens=40, draft=[9] * 30)
    assert bench.step()[number] == Work(0, 0, 20, sample=True, draft=(9,) * 10, blocks=(0, 1))
    prompt = bench.add(200)
    work = bench.step()
    assert (work[number].count, work[prompt].count) == (1, 19), "a prompt comes before a draft"


@pytest.mark.parametrize(("max_tokens", "drafted"), [(1, 0), (2, 1), (8, 7), (100, 16)])
def test_no_draft_beyond_the_length(max_tokens: int, drafted: int) -> None:
    bench = Bench(budget=400)
    number = bench.add(10, max_tokens=max_tokens, draft=[9] * 30)
    assert len(bench.step()[number].draft) == drafted


def test_rows_of_drafts_are_bounded() -> None:
    bench = Bench(budget=1e9, slots=16)
    for _ in range(16):
        bench.add(10, max_tokens=100, draft=[9] * 64)
    rows = sum(1 + len(work.draft) for work in bench.step().values())
    assert rows == MOST_ROWS


def test_free_tokens_below_the_floor_are_drafted() -> None:
    """Where reading the weights takes the time, a few rows more cost nothing; but never beyond the budget."""
    bench = Bench(budget=12.5, cost=Cost(floor=10.0, base=5.0, per_token=0.5, per_read=0.0))
    number = bench.add(2, max_tokens=100, draft=[9] * 64)
    assert bench.step()[number].count == 15


def test_rows_of_drafts_are_paid_for() -> None:
    bench = Bench(budget=20, cost=Cost(floor=0.0, base=0.0, per_token=1.0, per_read=0.0, per_row=2.0))
    number = bench.add(2, max_tokens=100, draft=[9] * 64)
    assert bench.step()[number].draft == (9,) * 5, "2 + 2 ms for the prompt and its row, 3 for each draft"


def test_where_one_token_takes_longer_than_the_budget_others_are_computed_along() -> None:
    bench = Bench(budget=50, cost=Cost(floor=400.0, base=100.0, per_token=4.0, per_read=0.0))
    bench.add(300)
    assert bench.counts() == {0: 100}, "400 ms / 4 of 1.25 * 400 less 100"


def test_prompt_logprobs_read_no_cache() -> None:
    bench = Bench(budget=512)
    first = bench.add(range(100), max_tokens=1)
    bench.step()
    bench.scheduler.remove(bench.requests[first])
    again = bench.add(range(100), max_tokens=1, prompt_logprobs=0)
    assert bench.counts() == {again: 100}


def test_recomputed_because_evicted() -> None:
    bench = Bench(budget=512, blocks=8)
    for start in (0, 1000, 0):
        number = bench.add(range(start, start + 96), max_tokens=8)
        while bench.requests[number].generated < 1:
            bench.step()
        bench.scheduler.remove(bench.requests[number])
    assert bench.scheduler.prefix_hit_tokens == 32, "the second prompt took two empty blocks and the last four"
    assert bench.scheduler.recomputed_evicted == 64


@pytest.mark.parametrize(
    ("steps", "counted"),
    [
        pytest.param(0, 0, id="while it is queued"),
        pytest.param(1, 32, id="after its first chunk"),
        pytest.param(2, 64, id="after its second chunk"),
    ],
)
def test_what_was_evicted_is_computed_again_only_as_far_as_its_request_came(steps: int, counted: int) -> None:
    bench = Bench(budget=40, blocks=8)
    for start in (0, 1000):
        number = bench.add(range(start, start + 96), max_tokens=8)
        while bench.requests[number].generated < 1:
            bench.step()
        bench.scheduler.remove(bench.requests[number])
    number = bench.add(range(96), max_tokens=8)
    for _ in range(steps):
        bench.step()
    bench.scheduler.remove(bench.requests[number])
    assert bench.scheduler.recomputed_evicted == counted


def test_steps_that_take_longer_than_measured_get_smaller() -> None:
    bench = Bench(budget=64)
    number = bench.add(3000, 1)
    sizes = []
    for _ in range(40):
        sizes.append(bench.counts()[number])
        bench.scheduler.took(4.0 * sizes[-1])
    assert sizes[0] == 64
    assert sizes[-1] == pytest.approx(16, abs=1)
