"""A cost that was measured wrong, or is no longer true, is put right by the steps that follow."""

import pytest

from aixcoder_serving.engine.cost import Cost, Room
from aixcoder_serving.engine.pace import Pace

TRUE = Cost(floor=6.0, base=1.0, per_token=0.2, per_read=0.0, per_row=0.3)


def steps(pace: Pace, true: Cost, count: int) -> None:
    """One step decodes, the next one fills 50 ms with a prompt, as far as the pace knows."""
    for n in range(count):
        room = Room(pace.cost, 50.0, 1024)
        room.take(0, 1, 1)
        if n % 2:
            room.take(0, max(room.left(0), 16), 1)
        pace.observe(room.tokens, room.rows, room.reads, true.milliseconds(room.tokens, room.rows, room.reads))


@pytest.mark.parametrize(
    ("name", "measured"),
    [
        ("as it is", TRUE),
        ("all of it three times too slow", Cost(18.0, 3.0, 0.6, 0.0, 0.9)),
        ("a machine that became slower", Cost(2.0, 0.3, 0.07, 0.0, 0.1)),
        ("only the tokens disturbed", Cost(6.0, 0.0, 9.0, 0.0, 0.0)),
        ("only the floor disturbed", Cost(60.0, 1.0, 0.2, 0.0, 0.3)),
        ("tokens too cheap", Cost(6.0, 0.0, 0.01, 0.0, 0.0)),
    ],
)
def test_it_finds_back(name: str, measured: Cost) -> None:
    pace = Pace(measured)
    steps(pace, TRUE, 200)
    for tokens in (1, 200):
        expected = TRUE.milliseconds(tokens, 1, 0)
        assert pace.cost.milliseconds(tokens, 1, 0) == pytest.approx(expected, rel=0.25), name


def test_one_slow_step_changes_little() -> None:
    pace = Pace(TRUE)
    pace.observe(1, 1, 0, 60.0)
    assert pace.cost.floor == pytest.approx(6.0 * 1.9)
    assert pace.cost.per_token == 0.2
    pace.observe(1, 1, 0, 0.0)
    assert pace.cost.floor == pytest.approx(6.0 * 1.9), "a clock that stood still tells nothing"


def test_it_stays_within_bounds() -> None:
    pace = Pace(TRUE)
    for _ in range(1000):
        pace.observe(1, 1, 0, 1e9)
    assert pace.cost.floor == pytest.approx(6.0 * 20)
    for _ in range(1000):
        pace.observe(1, 1, 0, 1e-9)
    assert pace.cost.floor == pytest.approx(6.0 * 0.02)
