"""What a gateway knows of a replica's load."""

from aixcoder_serving.gateway.replica_load import ReplicaLoad
from aixcoder_serving.protocol import LoadReport


def report(number: int, *, tokens: int = 0, room: int = 8, draining: bool = False) -> LoadReport:
    return LoadReport(
        number=number,
        slots=8,
        running=0,
        waiting=0,
        room=room,
        tokens=tokens,
        blocks_free=9,
        draining=draining,
        steps=1,
    )


def test_the_report_and_what_was_sent_since() -> None:
    load = ReplicaLoad()
    load.take(report(1, tokens=500, room=2))
    load.dispatched("r", 100)
    assert (load.tokens, load.room) == (600, True)
    load.dispatched("s", 100)
    assert (load.tokens, load.room) == (700, False)


def test_what_a_report_counts_is_not_counted_twice() -> None:
    load = ReplicaLoad()
    load.take(report(1))
    load.dispatched("r", 100)
    load.accepted("r", 3, 120)
    assert load.tokens == 120
    load.take(report(2))
    assert load.tokens == 120
    load.take(report(3, tokens=120, room=7))
    assert (load.tokens, load.room) == (120, True)


def test_a_report_can_come_before_the_first_message_of_a_request() -> None:
    load = ReplicaLoad()
    load.dispatched("r", 100)
    load.take(report(3, tokens=120))
    load.accepted("r", 3, 120)
    assert load.tokens == 120


def test_what_ended_or_was_refused_is_gone() -> None:
    load = ReplicaLoad()
    load.take(report(1))
    for name in ("r", "s"):
        load.dispatched(name, 100)
    load.ended("r")
    load.refused("s")
    load.ended("unknown")
    load.accepted("unknown", 1, 5)
    assert load.tokens == 0


def test_who_refused_has_no_room_until_it_says_so() -> None:
    load = ReplicaLoad()
    load.take(report(1))
    load.dispatched("r", 100)
    load.refused("r")
    assert not load.room
    load.take(report(2))
    assert load.room


def test_who_tells_nothing_is_asked_again() -> None:
    load = ReplicaLoad()
    load.dispatched("r", 100)
    load.refused("r")
    assert load.room


def test_who_leaves_has_no_room() -> None:
    load = ReplicaLoad()
    load.take(report(1, draining=True))
    assert not load.room


def test_who_tells_nothing_gets_a_few() -> None:
    load = ReplicaLoad()
    for n in range(4):
        assert load.room
        load.dispatched(str(n), 100)
    assert not load.room
    load.take(report(1))
    load.unheard()
    assert load.report is None
