from collections.abc import Callable, Sequence
from typing import cast

import pytest

from benchmarks.peer import Running
from benchmarks.peers.lines import Request, Result
from benchmarks.replay.__main__ import LEAST_SECONDS, Player
from benchmarks.replay.trace import Ask

TRACE = [Ask(float(at), 0, (at,), None, True, False) for at in range(101)]


class Instant:
    """An engine that is too slow from a speed on; it tells what it was asked by the prompts' ids."""

    def __init__(self, highest: float) -> None:
        self.plays: list[tuple[int, int]] = []
        self.resets = 0
        self._highest = highest

    def reset(self) -> None:
        self.resets += 1

    def run(
        self, requests: Sequence[Request], limit_s: float, enough: Callable[[Result], bool] | None = None
    ) -> list[Result]:
        if len(requests) == 1 and requests[0].max_tokens == 1:
            return []
        self.plays.append((requests[0].prompt[0], requests[-1].prompt[0]))
        speed = 1 / (requests[1].at - requests[0].at)
        took = 0.4 if speed <= self._highest else 0.6
        return [
            Result(request.id, "line", request.at, request.at + took, (request.at + took,), (1,), (7,), 0)
            for request in requests
        ]


def player(engine: Instant, place: float) -> Player:
    return Player(TRACE, cast(Running, engine), "instant", 20.0, place)


def test_a_turn_goes_on_in_the_trace_and_begins_anew_behind_its_end() -> None:
    engine = Instant(1.0)
    turn = player(engine, 0.5)
    judged = [turn.play(speed, to_the_end=True)[0].good for speed in (0.5, 1.0, 2.0, 0.01)]
    assert judged == [True, True, False, True]
    assert engine.plays == [(50, 59), (60, 79), (0, 39), (40, 40 + int(LEAST_SECONDS) - 1)]
    assert engine.resets == 2, "at the turn's begin, and where the trace began anew"


def test_a_play_is_no_longer_than_the_trace() -> None:
    engine = Instant(100.0)
    player(engine, 0.0).play(64.0, to_the_end=False)
    assert engine.plays == [(0, 99)]


@pytest.mark.parametrize(
    ("name", "guess", "plays"),
    [("as it was", 1.0, 3), ("it has become faster", 0.92, 3), ("it has become slower", 1.05, 3)],
)
def test_a_measure_is_three_plays_where_little_has_changed(name: str, guess: float, plays: int) -> None:
    engine = Instant(1.0)
    found = player(engine, 0.0).measure(guess)
    assert found["goodput"] == pytest.approx(1.0, rel=0.1), name
    assert found["first_line_p95_ms"] == pytest.approx(400)
    assert len(engine.plays) == plays, name
