"""Requests that wait for what another one computes: what a plan looks at, and that nobody is forgotten."""

from collections.abc import Sequence
from typing import Any

import pytest

from aixcoder_serving.engine.prefix import Match
from aixcoder_serving.engine.scheduler import AGE_SECONDS
from tests.unit.engine.scheduler_bench import Bench

LOOKS = 16
"""Parked, refused and admitted ones of a plan together."""


class Counting(Bench):
    """Counts how often a plan looks for a request's tokens in the cache."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.looks = 0
        match = self.pool.match

        def counted(tokens: Sequence[int], hashes: Sequence[bytes], root: bytes, limit: int) -> Match:
            self.looks += 1
            return match(tokens, hashes, root, limit)

        self.pool.match = counted  # type: ignore[method-assign]

    def looks_of_a_step(self, seconds: float = 0.01) -> int:
        self.looks = 0
        self.step(seconds)
        return self.looks

    def end(self, number: int) -> None:
        self.scheduler.remove(self.requests[number])

    def run(self) -> list[int]:
        """Step until each has its first token; the looks of each step."""
        looks = []
        while any(not request.done for request in self.requests):
            looks.append(self.looks_of_a_step())
            for request in self.requests:
                if request.generated and not request.done:
                    self.end(request.id)
            assert len(looks) < 2000, "somebody is forgotten"
        return looks


@pytest.mark.parametrize("followers", [30, 300])
@pytest.mark.parametrize("seconds", [0.001, AGE_SECONDS], ids=["young", "aged"])
@pytest.mark.parametrize("under_way", [True, False], ids=["under way", "all at once"])
@pytest.mark.parametrize("tail", [(), range(5000, 5040)], ids=["equal", "goes on"])
def test_followers_of_a_long_prompt_cost_a_plan_nothing(
    followers: int, seconds: float, under_way: bool, tail: Sequence[int]
) -> None:
    bench = Counting()
    bench.add(range(1000))
    if under_way:
        bench.step()
    for _ in range(followers):
        bench.add([*range(1000), *tail])
    looks = [bench.looks_of_a_step(seconds) for _ in range(14)]
    assert max(looks) <= LOOKS
    if under_way:
        assert sum(looks) == 0, "they were parked when they came"
    assert max(bench.run()) <= LOOKS


@pytest.mark.parametrize("cancelled_after", [1, 3, 15])
def test_when_the_one_that_computes_is_cancelled_another_one_takes_over(cancelled_after: int) -> None:
    bench = Counting()
    first = bench.add(range(1000))
    for _ in range(100):
        bench.add(range(1000))
    for _ in range(cancelled_after):
        bench.step()
    bench.end(first)
    assert len(bench.step()) == 1, "one of them, and those that wait for it let it"
    assert max(bench.run()) <= LOOKS
    assert bench.scheduler.prefix_hit_tokens > 99 * 900, "all but a rest was found by each"


def test_one_after_the_other_takes_over() -> None:
    bench = Counting()
    numbers = [bench.add(range(1000)) for _ in range(14)]
    for number in numbers[:-1]:
        assert bench.step().keys() == {number}
        bench.end(number)
    bench.run()


def test_who_comes_behind_many_followers_is_not_kept_back() -> None:
    bench = Counting()
    for _ in range(40):
        bench.add(range(300))
    other = bench.add(range(5000, 5400))
    steps = 0
    while other not in bench.step():
        steps += 1
    assert steps <= 5, "each plan parks some, then it is its turn"


def test_who_is_woken_has_its_place_by_what_is_left() -> None:
    bench = Counting()
    first = bench.add(range(128))
    bench.step()
    follower = bench.add(range(140))
    other = bench.add(range(5000, 5070))
    assert bench.counts() == {first: 64}
    assert bench.counts() == {first: 1, follower: 12, other: 51}


def test_a_follower_that_is_gone_makes_nobody_urgent() -> None:
    bench = Counting()
    long = bench.add(range(1000))
    bench.step()
    follower = bench.add(range(100))
    bench.end(follower)
    other = bench.add(range(5000, 5060))
    assert bench.counts() == {other: 60, long: 4}


def test_a_follower_that_left_the_common_part_leaves_the_others_urgency() -> None:
    bench = Counting()
    long = bench.add(range(1000))
    bench.step()
    soon, late = bench.add([*range(96), *range(7000, 7900)]), bench.add(range(200))
    bench.step()
    assert bench.requests[soon].parked_on is None
    assert bench.requests[late].parked_on is not None
    other = bench.add(range(5000, 5080))
    assert bench.counts() == {long: 64}, "72 tokens are what the late one waits for"
    assert bench.requests[other].slot is None


def test_the_shared_part_can_end_in_mid_prompt() -> None:
    bench = Counting()
    first = bench.add(range(300))
    bench.step()
    follower = bench.add([*range(200), *range(7000, 7050)])
    for _ in range(2):
        assert bench.counts() == {first: 64}
    assert bench.counts() == {follower: 58, first: 6}
    assert bench.requests[follower].cached == 192
