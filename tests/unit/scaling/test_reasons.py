"""Why it is so many, in words: what is needed, and what keeps the number from it."""

from dataclasses import replace

from aixcoder_operator.scaling.memory import MEMORIES_S
from aixcoder_operator.scaling.policy import Bounds, Rate, Standing
from tests.unit.scaling.world import BOUNDS, COLD_START_S, World

HOLD = int(2 * COLD_START_S)
ONE_A_SECOND = "queued 0, 1/s arriving in the busiest seconds of 2 minutes, 0.20 s of a replica each: 1"
MANY = "queued 0, 48/s arriving in the busiest seconds of 2 minutes, 0.20 s of a replica each: 10"


def told(world: World, arrivals: float, seconds: int = 1) -> tuple[int, str]:
    """The number and its reason after so many seconds more."""
    decision = world.steady(arrivals, seconds)
    return decision.standing.desired, decision.reason


def test_what_is_needed() -> None:
    assert told(World(), 48) == (10, MANY)


def test_the_most() -> None:
    assert told(World(bounds=replace(BOUNDS, most=6)), 48) == (6, f"{MANY}; at most 6")


def test_a_most_that_is_lowered_tells_no_doubt_of_what_is_done() -> None:
    world = World(bounds=replace(BOUNDS, most=6), standing=Standing(9))
    assert told(world, 1) == (6, f"{ONE_A_SECOND}; at most 6")


def test_a_least_that_is_raised() -> None:
    world = World(bounds=replace(BOUNDS, least=7), standing=Standing(2))
    assert told(world, 1) == (7, f"{ONE_A_SECOND}; at least 7")


def test_a_least_above_the_step() -> None:
    world = World(bounds=Bounds(least=5, most=20, up=Rate(1, 60.0)), standing=Standing(2))
    assert told(world, 48) == (5, f"{MANY}; at least 5")


def test_a_step_up_and_the_wait_for_the_next() -> None:
    world = World(bounds=replace(BOUNDS, up=Rate(2, 60.0)))
    assert told(world, 48) == (3, f"{MANY}; 3 for now, by 2 at most in 60 s")
    assert told(world, 48) == (3, f"{MANY}; 3 for now, by 2 at most in 60 s")


def test_a_step_down() -> None:
    world = World(bounds=replace(BOUNDS, down=Rate(4, 60.0)))
    world.steady(48, 200)
    assert told(world, 1, MEMORIES_S[0] + HOLD) == (6, f"{ONE_A_SECOND}; 6 for now, by 4 at most in 60 s")


def test_what_is_held() -> None:
    world = World()
    world.steady(48, 300)
    assert told(world, 1, MEMORIES_S[0] + HOLD // 2) == (10, f"{ONE_A_SECOND}; 10 within the last 60 s")


def test_doubt_where_the_number_stays() -> None:
    assert told(World(standing=Standing(7)), 1) == (
        7,
        f"{ONE_A_SECOND}; stays at 7: of the last 60 s only 1 are known",
    )


def test_zero() -> None:
    world = World(bounds=replace(BOUNDS, least=0))
    world.steady(1, 60)
    number, reason = told(world, 0, 299)
    assert (number, reason.split("; ")[1:]) == (1, ["1 until no request came for 300 s"])
    number, reason = told(world, 0)
    assert (number, reason.split("; ")[1:]) == (0, ["no request for 300 s: 0"])
