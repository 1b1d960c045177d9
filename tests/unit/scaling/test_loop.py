"""The loop over all deployments: cases by name. A request holds a place for 0.4 s, two run at once: five a second."""

from __future__ import annotations

import pytest

from aixcoder_operator.scaling.history import History
from aixcoder_operator.scaling.load import UNKNOWN_COLD_START_S
from aixcoder_serving.protocol import ReplicaStats
from tests.unit.scaling.gateways import NOON, World
from tests.unit.scaling.scaled import Loop, sight, text, worker

HOLD = int(2 * UNKNOWN_COLD_START_S)
STATS = ReplicaStats(prefill_ms_per_token=0.1, decode_ms_per_request=2.0, slots=16)


def loop(*addresses: str) -> Loop:
    world = World()
    for address in addresses or ("a", "b"):
        world.start(address)
    return Loop(world)


def told(desired: int, *, hold: float | None = None, cold_start: int | None = None) -> dict[str, object]:
    """status.autoscaling as a leader before wrote it."""
    status: dict[str, object] = {
        "desired": desired,
        "lastDecision": {"time": text(NOON - 1000), "reason": "as it was"},
    }
    return (
        status
        | ({} if hold is None else {"holdUntil": text(hold)})
        | ({} if cold_start is None else {"coldStartSeconds": cold_start})
    )


def test_the_first_decision_is_told_and_an_idle_one_nothing_more() -> None:
    playing, seen = loop(), sight()
    playing.learn(seen)
    assert playing.autoscaler.decided(seen.deployment) is None
    playing.play(100)
    assert playing.changes == [(NOON + 1, "ns/demo")]
    decided = playing.autoscaler.decided(seen.deployment)
    assert decided is not None
    assert decided.model_dump(exclude_none=True) == {"desired": 1}


def test_a_burst_is_met_with_the_second_that_brings_it() -> None:
    playing, seen = loop(), sight()
    playing.learn(seen)
    playing.play(30, a=1)
    playing.play(2, a=30, b=30)
    assert playing.changes[1][0] == NOON + 31
    decided = playing.autoscaler.decided(seen.deployment)
    assert decided is not None
    assert decided.desired > 5
    assert decided.last_decision is not None
    assert "arriving" in decided.last_decision.reason
    assert decided.hold_until is not None
    assert decided.hold_until.timestamp() == pytest.approx(playing.changes[-1][0] + HOLD, abs=2)
    assert playing.value("decisions_total", direction="up") == len(playing.changes) - 1
    assert playing.value("desired") == decided.desired


def test_a_new_leader_stays_with_what_status_tells_and_scales_nothing_down_for_twice_a_start() -> None:
    playing, seen = loop(), sight(status=told(7, cold_start=30))
    playing.learn(seen)
    playing.play(59, a=1)
    assert playing.changes == []
    assert playing.autoscaler.decided(seen.deployment) == seen.deployment.status.autoscaling
    assert playing.value("cold_start_seconds") == 30
    playing.play(10, a=1)
    assert playing.desired(seen) == 1


@pytest.mark.parametrize("hold", [50, 1000])
def test_a_new_leader_holds_for_twice_a_start_whatever_hold_status_tells(hold: int) -> None:
    playing, seen = loop(), sight(status=told(7, hold=NOON + hold, cold_start=30))
    playing.learn(seen)
    playing.play(60, a=1)
    assert playing.desired(seen) == 7
    playing.play(2, a=1)
    decided = playing.autoscaler.decided(seen.deployment)
    assert decided is not None
    assert decided.desired == 1
    assert decided.cold_start_seconds == 30


def test_nothing_is_scaled_down_while_a_gateway_is_not_heard_and_all_is_known_when_it_is_back() -> None:
    playing, seen = loop(), sight(status=told(7, cold_start=30))
    playing.learn(seen)
    playing.world.at["b"].answers = False
    playing.play(200, a=1, b=30)
    assert playing.desired(seen) == 7
    assert playing.value("gateways_unheard") == 1
    playing.world.at["b"].answers = True
    playing.play(3, a=1, b=30)
    assert playing.desired(seen) == 7
    assert playing.value("gateways_unheard") == 0
    assert playing.value("arrivals_per_second") == 31
    assert (playing.value("wish") or 0) > 5


def test_a_burst_at_one_gateway_is_met_while_another_is_silent() -> None:
    playing, seen = loop(), sight()
    playing.learn(seen)
    playing.play(30, a=1)
    playing.world.at["b"].answers = False
    playing.play(10, a=1)
    assert playing.desired(seen) == 1
    playing.play(8, a=60)
    assert playing.desired(seen) == 12
    decided = playing.autoscaler.decided(seen.deployment)
    assert decided is not None
    assert decided.last_decision is not None
    assert decided.last_decision.reason == "60/s arriving at those gateways that are heard: 12"


def test_nothing_is_scaled_down_where_no_gateway_is_known() -> None:
    playing, seen = loop(), sight(status=told(7, cold_start=30))
    for address in ("a", "b"):
        playing.world.leave(address)
    playing.learn(seen)
    playing.play(200)
    assert playing.desired(seen) == 7
    assert playing.value("gateways_unheard") == 1


def test_zero_is_woken_with_what_the_queue_needs() -> None:
    playing, seen = loop(), sight(autoscaling={"minReplicas": 0, "maxReplicas": 20}, status=told(0))
    playing.learn(seen)
    playing.play(30)
    assert playing.desired(seen) == 0
    playing.world.at["a"].ledger.of("ns", "demo").waiting = 3
    playing.world.at["b"].ledger.of("ns", "demo").waiting = 4
    playing.play(1)
    # Before a request was served, each is taken to need 0.2 s, which is the target.
    assert playing.desired(seen) == 7
    playing.world.at["b"].ledger.of("ns", "demo").waiting = 9
    playing.play(1)
    assert playing.desired(seen) == 12
    playing.learn(sight(worker("w1", NOON, NOON + 31), autoscaling={"minReplicas": 0, "maxReplicas": 20}))
    playing.world.at["b"].ledger.of("ns", "demo").waiting = 15
    playing.play(1)
    assert playing.desired(seen) == 12


def test_one_that_cannot_be_decided_for_stops_no_other(caplog: pytest.LogCaptureFixture) -> None:
    class Broken(History):
        def waiting(self, key: str, now: float) -> int:
            if key == "ns/broken":
                raise RuntimeError("made to fail")
            return super().waiting(key, now)

    playing, seen = loop(), sight()
    playing.world.history = Broken(playing.world.now)
    playing.learn(sight(name="broken"))
    playing.learn(seen)
    playing.play(20, a=30)
    assert playing.desired(seen) > 1
    assert [record.message for record in caplog.records if record.levelname == "ERROR"] == [
        "ns/broken: nothing can be decided"
    ]


def test_bounds_of_the_spec_hold_from_the_next_second_on() -> None:
    playing, seen = loop(), sight()
    playing.learn(seen)
    playing.play(10, a=60)
    assert playing.desired(seen) > 4
    lower = sight(autoscaling={"maxReplicas": 4})
    playing.learn(lower)
    playing.play(1, a=60)
    assert playing.desired(lower) == 4
    decided = playing.autoscaler.decided(lower.deployment)
    assert decided is not None


def test_what_status_tells_beyond_the_bounds_is_told_anew() -> None:
    playing, seen = loop(), sight(autoscaling={"maxReplicas": 4}, status=told(7))
    playing.learn(seen)
    playing.play(1)
    assert playing.desired(seen) == 4
    assert playing.changes == [(NOON + 1, "ns/demo")]


def test_a_scheduled_minimum_holds_from_its_start_on() -> None:
    # NOON is 13:46:40.
    schedule = [{"start": "48 13 * * *", "end": "0 18 * * *", "minReplicas": 3}]
    playing, seen = loop(), sight(autoscaling={"maxReplicas": 20, "schedule": schedule})
    playing.learn(seen)
    playing.play(79)
    assert playing.desired(seen) == 1
    playing.play(1)
    assert playing.desired(seen) == 3
    higher = sight(autoscaling={"maxReplicas": 20, "schedule": [schedule[0] | {"minReplicas": 5}]})
    playing.learn(higher)
    playing.play(1)
    assert playing.desired(higher) == 5


def test_who_is_not_scaled_or_suspended_or_gone_is_forgotten() -> None:
    playing = loop()
    for unscaled in (sight(autoscaling={}), sight(suspend=True), None):
        playing.learn(sight())
        playing.play(1)
        assert playing.value("desired") == 1
        if unscaled is None:
            playing.autoscaler.forget("ns/demo")
        else:
            playing.learn(unscaled)
            assert playing.autoscaler.decided(unscaled.deployment) is None
        playing.play(1)
        assert playing.value("desired") is None


def test_another_of_the_same_name_begins_anew() -> None:
    playing, before, after = loop(), sight(uid="one"), sight(uid="another")
    playing.learn(before)
    playing.play(10, a=60)
    assert playing.desired(before) > 4
    assert playing.autoscaler.decided(after.deployment) is None
    playing.learn(after)
    playing.play(1)
    assert playing.autoscaler.decided(before.deployment) is None


def test_ready_replicas_are_asked_until_one_has_told_what_it_can_do() -> None:
    playing = loop()
    ready, starts = worker("w1", NOON - 50, NOON - 10), worker("w2", NOON - 5)
    seen = sight(ready, starts)
    assert [pod["metadata"]["name"] for pod in playing.autoscaler.unmeasured(seen)] == ["w1"]
    playing.learn(seen)
    assert len(playing.autoscaler.unmeasured(seen)) == 1
    playing.learn(sight(ready, starts, stats=STATS))
    assert playing.autoscaler.unmeasured(seen) == ()
    assert playing.autoscaler.unmeasured(sight(ready, autoscaling={})) == ()


def test_what_a_replica_can_do_changes_what_a_request_takes() -> None:
    playing, ready = loop(), worker("w1", NOON - 50, NOON - 10)
    playing.learn(sight(ready))
    playing.play(30, a=10)
    assert playing.value("work_seconds") == pytest.approx(0.2)
    playing.learn(sight(ready, stats=STATS))
    # Told once it holds, until the spec says otherwise.
    playing.learn(sight(ready))
    playing.play(30, a=10)
    assert playing.value("work_seconds") == pytest.approx(0.4 / 16)
    playing.learn(sight(ready, engine={"device": "cpu", "maxConcurrentSequences": 4}))
    playing.play(1, a=10)
    assert playing.value("work_seconds") == pytest.approx(0.4 / 4)


def test_a_start_is_measured_from_the_burst_to_the_first_new_replica() -> None:
    playing, old = loop(), worker("w1", NOON - 500, NOON - 400)
    playing.learn(sight(old))
    playing.play(20, a=60)
    raised = playing.changes[0][0]
    new = worker("w2", raised + 1)
    playing.learn(sight(old, new))
    playing.play(30, a=60)
    ready = worker("w2", raised + 1, raised + 26)
    playing.learn(sight(old, ready))
    playing.learn(sight(old, ready))
    playing.play(1, a=60)
    assert playing.value("burst_to_ready_seconds_count") == 1
    assert playing.value("burst_to_ready_seconds_sum") == pytest.approx(26, abs=1)
    assert playing.value("cold_start_seconds") == 25


def test_a_wish_that_is_met_without_a_start_measures_none() -> None:
    playing = loop()
    old, kept = worker("w1", NOON - 500, NOON - 400), worker("w2", NOON - 500, NOON - 400)
    playing.learn(sight(old))
    playing.play(5, a=8)
    assert playing.desired(sight()) == 2
    playing.learn(sight(old, kept))
    playing.play(60, a=20)
    assert playing.desired(sight()) > 2
    playing.learn(sight(old, kept, worker("w3", NOON + 6)))
    playing.learn(sight(old, kept, worker("w3", NOON + 6, NOON + 16)))
    assert playing.value("burst_to_ready_seconds_sum") == pytest.approx(10, abs=1.5)


def test_a_start_that_was_measured_is_told_though_nothing_else_is_decided() -> None:
    playing = loop()
    playing.learn(sight(worker("w1", NOON)))
    playing.play(10)
    decided = playing.autoscaler.decided(sight().deployment)
    playing.learn(sight(worker("w1", NOON, NOON + 9)))
    playing.play(10)
    told = playing.autoscaler.decided(sight().deployment)
    assert decided is not None
    assert told == decided.model_copy(update={"cold_start_seconds": 9})
    assert len(playing.changes) == 1


def test_series_are_there_before_anything_happened() -> None:
    playing = loop()
    playing.learn(sight(worker("w1", NOON - 50, NOON - 10), worker("w2", NOON - 5)))
    assert playing.value("burst_to_ready_seconds_count") == 0
    assert [playing.value("decisions_total", direction=one) for one in ("up", "down")] == [0, 0]
    assert (playing.value("ready_replicas"), playing.value("max_replicas")) == (1, 20)
