"""How much a replica accepts."""

import pytest

from aixcoder_serving.engine.interface import EngineStats
from aixcoder_serving.replica.admission import PREFILL_MS, Admission
from aixcoder_serving.replica.stall import STALLED_SECONDS, Stall


def stats(waiting_ms: float = 0.0, *, submitted: int = 0, per_token: float = 0.1) -> EngineStats:
    return EngineStats(submitted=submitted, prefill_waiting_ms=waiting_ms, prefill_ms_per_token=per_token)


@pytest.mark.parametrize(
    ("prompts", "seen", "waiting_ms", "room"),
    [
        pytest.param([], 0, 0.0, 2, id="idle: a thousand tokens are 100 ms, and one more fits always"),
        pytest.param([], 0, 60.0, 1, id="some wait"),
        pytest.param([], 0, PREFILL_MS, 0, id="enough wait"),
        pytest.param([2000], 0, 0.0, 0, id="a prompt that the engine has not seen yet"),
        pytest.param([2000], 1, 0.0, 2, id="one that it has is in its stats"),
        pytest.param([1] * 4, 4, 0.0, 0, id="no slot"),
    ],
)
def test_room(prompts: list[int], seen: int, waiting_ms: float, room: int) -> None:
    admission = Admission(4)
    for tokens in prompts:
        admission.submitted(admission.accept(1, 50), tokens)
    assert admission.room(stats(waiting_ms, submitted=seen)) == room


def test_what_is_cached_costs_nothing() -> None:
    admission = Admission(64)
    for _ in range(200):
        accepted = admission.accept(900, 50)
        admission.submitted(accepted, 1000)
        admission.ended(accepted, cached_tokens=990)
    assert admission.room(stats(submitted=200)) == 64


def test_what_was_never_submitted_is_not_waited_for() -> None:
    admission = Admission(4)
    refused = admission.accept(5000, 50)
    assert admission.room(stats()) == 0
    admission.ended(refused)
    admission.submitted(admission.accept(1000, 50), 1000)
    assert admission.room(stats(submitted=1)) == 2


def test_what_ended_leaves_nothing() -> None:
    admission = Admission(4)
    accepted = admission.accept(900, 50)
    admission.submitted(accepted, 1000)
    assert (len(admission), admission.tokens) == (1, 1050)
    admission.ended(accepted)
    admission.ended(accepted)
    assert (len(admission), admission.tokens, admission.room(stats())) == (0, 0, 2)


@pytest.mark.parametrize(
    ("looks", "stalled"),
    [
        pytest.param([(0.0, 1, True), (3.0, 2, True)], False, id="it moves"),
        pytest.param([(0.0, 1, True), (1.9, 1, True)], False, id="not for long"),
        pytest.param([(0.0, 1, True), (1.0, 1, True), (2.1, 1, True)], True, id="it stands still"),
        pytest.param([(0.0, 1, False), (9.0, 1, False)], False, id="nothing to do"),
        pytest.param([(0.0, 1, False), (9.0, 1, False), (10.0, 1, True)], False, id="work has just come"),
        pytest.param([(0.0, 1, True), (9.0, 1, True), (9.1, 2, True)], False, id="it goes on"),
        pytest.param([(0.0, 1, False), (9.9, 1, True), (10.0, 1, True)], False, id="work came long after a look"),
        pytest.param([(0.0, 1, False), (9.9, 1, True), (12.0, 1, True)], True, id="and is not done"),
    ],
)
def test_stall(looks: list[tuple[float, int, bool]], stalled: bool) -> None:
    stall = Stall()
    assert [stall.seen(now, steps, busy=busy) for now, steps, busy in looks][-1] is stalled
    assert STALLED_SECONDS == 2.0
