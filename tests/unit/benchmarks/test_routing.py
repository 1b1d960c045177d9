"""The arithmetic of the routing simulation, on fleets that can be computed by hand."""

from __future__ import annotations

import pytest

from benchmarks.routing.simulate import ROUTES, TOKEN_S, TOKEN_S_PER_REQUEST, Arrival, attained, simulate

SECOND = 12_000
"""Tokens of a prompt that takes a second."""


def arrivals(*requests: tuple[float, int], output: int = 10) -> list[Arrival]:
    return [Arrival(at, prompt, output, f"editor {n}".encode()) for n, (at, prompt) in enumerate(requests)]


@pytest.mark.parametrize("route", ["fewest", "least", "affinity"])
def test_prompts_of_one_replica_are_computed_one_after_the_other(route: str) -> None:
    fleet = simulate(arrivals((0.0, SECOND), (0.5, SECOND)), 1, ROUTES[route])
    assert fleet.waits == pytest.approx([0.0, 0.5])
    assert attained(fleet, arrivals((0.0, SECOND), (0.5, SECOND)), 0.2) == 0.5


def test_ours_keeps_the_second_back_until_its_prompt_would_wait_no_longer_than_the_room() -> None:
    """It is sent at 0.85 s and begins when the first is computed: waiting in the gateway costs it nothing."""
    fleet = simulate(arrivals((0.0, SECOND), (0.5, SECOND)), 1, ROUTES["ours"])
    assert fleet.waits == pytest.approx([0.0, 0.5])


def test_the_least_busy_is_no_better_than_the_first_free_of_two() -> None:
    requests = arrivals((0.0, 3 * SECOND), (0.1, SECOND), (0.2, SECOND))
    assert simulate(requests, 2, ROUTES["least"]).waits == pytest.approx([0.0, 0.0, 0.9])
    # By requests both have one: the third goes to the one with the long prompt.
    assert simulate(requests, 2, ROUTES["fewest"]).waits == pytest.approx([0.0, 0.0, 2.8])


def test_a_request_without_a_slot_waits_for_the_first_that_ends() -> None:
    requests = arrivals(*((0.0, 12) for _ in range(9)), output=100)
    fleet = simulate(requests, 1, ROUTES["fewest"])
    # The first decodes alone as far as it could tell when it began: 100 tokens.
    first_end = 0.001 + 100 * (TOKEN_S + TOKEN_S_PER_REQUEST)
    assert fleet.waits[:8] == pytest.approx([n * 0.001 for n in range(8)])
    assert fleet.waits[8] == pytest.approx(first_end)


def test_affinity_alone_waits_for_its_own_replica() -> None:
    requests = [Arrival(0.0, SECOND, 1, b"same") for _ in range(3)]
    fleet = simulate(requests, 3, ROUTES["affinity"])
    assert fleet.waits == pytest.approx([0.0, 1.0, 2.0])
    assert fleet.at_first_choice == 3
    assert simulate(requests, 3, ROUTES["ours"]).at_first_choice < 3
