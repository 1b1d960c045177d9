"""The simulated fleet, on requests few enough to be computed by hand."""

from collections.abc import Sequence

import numpy as np
import pytest

from benchmarks.scaling.fleet import Fleet
from benchmarks.scaling.traces import Trace

NEVER = float("inf")


def trace(at: Sequence[float], prompt: Sequence[int], output: int = 0, leaves: Sequence[float] | None = None) -> Trace:
    gone = np.full(len(at), np.inf) if leaves is None else np.array(leaves)
    outputs = np.full(len(at), output, np.int32)
    return Trace("hand", None, np.array(at, float), np.array(prompt, np.int32), outputs, gone)


def fleet(requests: Trace, replicas: int = 1, cold_start_s: float = 30.0, until: float = 100.0) -> Fleet:
    made = Fleet(requests, cold_start_s, 0.0, until)
    made.scale(replicas, at_once=True)
    return made


def waits(requests: Trace, replicas: int = 1) -> list[float]:
    made = fleet(requests, replicas)
    made.advance(100.0)
    return [round(float(wait), 6) for wait in made.finish()[1]]


def test_prompts_one_after_the_other() -> None:
    """0.1 s each. The third waits in the queue until less than 0.15 s are before it, then in the replica."""
    assert waits(trace([0, 0, 0], [1200] * 3)) == [0, 0.1, 0.2]


def test_on_the_replica_whose_prompts_are_done_first() -> None:
    assert waits(trace([0, 0, 0.05], [6000, 1200, 1200]), replicas=2) == [0, 0, 0.05]


def test_a_completion_takes_its_share_of_the_prompts_time() -> None:
    """100 tokens of 0.3 ms each: the next prompt begins 0.03 s later."""
    assert waits(trace([0, 0], [1200, 1200], output=100)) == [0, 0.13]


def test_a_slot_is_held_until_the_last_token() -> None:
    """Eight run: the ninth waits for the first, which ends after 0.001 s of prompt and 100 tokens of 11.3 ms."""
    assert waits(trace([0.0] * 9, [12] * 9, output=100))[-1] == pytest.approx(0.001 + 100 * 0.0113)


@pytest.mark.parametrize(
    ("leaves", "waited", "counter"),
    [
        pytest.param([0.04, NEVER], [0, 0.04], "cancelled_prefill", id="in its prompt: the rest is not computed"),
        pytest.param([0.5, NEVER], [0, 0.13], "cancelled_decode", id="in its completion: its share was charged"),
        pytest.param([NEVER, 0.05], [0, 0.05], "cancelled_prefill", id="before its prompt began"),
    ],
)
def test_clients_that_leave(leaves: list[float], waited: list[float], counter: str) -> None:
    requests = trace([0, 0], [1200, 1200], output=100, leaves=leaves)
    made = fleet(requests)
    counts = made.advance(100.0)
    assert getattr(counts, counter) == 1
    assert counts.completed == 1
    decoded = int((0.5 - 0.1) / 0.0113) if leaves[0] == 0.5 else 100
    expected = waited if leaves[0] != 0.5 else [0, round(0.1 + decoded * 0.0003, 6)]
    assert [round(float(wait), 6) for wait in made.finish()[1]] == expected


def test_a_client_that_leaves_the_queue() -> None:
    made = fleet(trace([0, 0, 0], [6000, 1200, 1200], leaves=[NEVER, NEVER, 0.3]))
    counts = made.advance(0.25)
    assert (counts.queued, counts.running, counts.waited_over_target) == (2, 1, 0)
    counts = made.advance(100.0)
    assert (counts.cancelled_waiting, counts.completed, counts.waited_over_target) == (1, 2, 2)
    assert [round(float(wait), 6) for wait in made.finish()[1]] == [0, 0.5, 0.3]


def test_shed_after_ten_seconds() -> None:
    made = fleet(trace([0, 5], [1200, 1200]), replicas=0)
    made.advance(8.0)
    made.scale(1)
    counts = made.advance(12.0)
    assert (counts.shed, counts.queued, counts.starting) == (1, 1, 1)
    assert made.finish()[1].tolist() == [NEVER, NEVER]


def test_a_replica_serves_after_its_cold_start() -> None:
    made = fleet(trace([25.0], [1200]), replicas=0)
    made.advance(0.0)
    made.scale(1)
    assert made.advance(29.0).ready == 0
    assert made.advance(31.0).ready == 1
    assert made.finish()[1].tolist() == [5.0]


def test_paid_from_asking_to_the_last_request() -> None:
    """One from the beginning to the end of 100 s; one asked for at 10 s and taken away at 60 s, with 0.565 s to go."""
    made = fleet(trace([59.9, 59.95], [1200, 1200], output=50))
    made.advance(10.0)
    made.scale(2)
    made.advance(60.0)
    made.scale(1)
    made.advance(100.0)
    assert made.finish()[0] == pytest.approx(100 + 50 + (59.9 + 0.1 + 50 * 0.0113) - 60)


def test_what_starts_goes_first() -> None:
    made = fleet(trace([0.0], [1200]))
    made.advance(10.0)
    made.scale(3)
    made.advance(15.0)
    made.scale(1)
    counts = made.advance(20.0)
    assert (counts.ready, counts.starting) == (1, 0)
    made.advance(100.0)
    assert made.finish()[0] == pytest.approx(100 + 2 * 5)
