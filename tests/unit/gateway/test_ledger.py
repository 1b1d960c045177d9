"""What the operator reads of a gateway."""

from collections.abc import Callable

from aixcoder_serving.gateway.ledger import Ledger
from aixcoder_serving.protocol import KEPT_SECONDS, DeploymentLoad


class Clock:
    def __init__(self, now: float = 1000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def only(ledger: Ledger, since: float = 0.0) -> DeploymentLoad:
    (load,) = ledger.page(since).deployments
    return load


def counts(load: DeploymentLoad, counter: str) -> dict[int, float]:
    return {one.second: getattr(one.counts, counter) for one in load.bins if getattr(one.counts, counter)}


def sum_of(load: DeploymentLoad, counter: str) -> float:
    return sum(counts(load, counter).values())


def test_a_request_of_80_ms_between_two_polls_is_in_it() -> None:
    clock = Clock(1000.2)
    ledger = Ledger("uid", clock)
    mine = ledger.of("ns", "a")
    before = only(ledger)
    mine.count("arrivals")
    mine.place_taken()
    clock.now += 0.08
    mine.place_left()
    mine.count("cancelled_prefill")
    clock.now += 0.9
    after = only(ledger, since=1000)
    assert (before.counters.arrivals, after.counters.arrivals, after.counters.cancelled_prefill) == (0, 1, 1)
    assert counts(after, "slot_ms") == {1000: 80.0}


def test_time_is_counted_in_the_seconds_in_which_it_was_spent() -> None:
    clock = Clock(1000.5)
    ledger = Ledger("uid", clock)
    mine = ledger.of("ns", "a")
    mine.place_taken()
    clock.now = 1001.25
    mine.place_taken()
    clock.now = 1002.5
    mine.place_left()
    clock.now = 1003.0
    mine.place_left()
    assert counts(only(ledger), "slot_ms") == {1000: 500.0, 1001: 250.0 + 1500.0, 1002: 1000.0 + 500.0}
    assert only(ledger).counters.slot_ms == 3750.0


def test_what_runs_on_is_counted_when_it_is_asked_for() -> None:
    clock = Clock()
    ledger = Ledger("uid", clock)
    ledger.of("ns", "a").place_taken()
    clock.now += 0.5
    assert (only(ledger).counters.slot_ms, only(ledger).running) == (500.0, 1)


def test_bins_since_a_second_and_no_older_than_half_an_hour() -> None:
    clock = Clock()
    ledger = Ledger("uid", clock)
    mine = ledger.of("ns", "a")
    for second in range(1000, 1000 + KEPT_SECONDS + 100, 50):
        clock.now = second + 0.5
        mine.count("arrivals")
    load = only(ledger)
    assert len(load.bins) == KEPT_SECONDS // 50
    assert sum_of(load, "arrivals") < load.counters.arrivals
    assert [one.second for one in only(ledger, since=clock.now - 60).bins] == [int(clock.now) - 50, int(clock.now)]
    (piece,) = ledger.page(int(clock.now) - 150, int(clock.now) - 50).deployments
    assert [one.second for one in piece.bins] == [int(clock.now) - 150, int(clock.now) - 100]


def test_whose_counts_they_are() -> None:
    clock = Clock()
    ledger = Ledger("uid", clock)
    clock.now += 5
    page = ledger.page(0)
    assert (page.uid, page.started, page.now) == ("uid", 1000.0, 1005.0)


def test_deployments_that_are_no_more_are_forgotten_once_nothing_runs() -> None:
    ledger = Ledger("uid", Clock())
    ledger.of("ns", "a")
    ledger.of("ns", "b").place_taken()
    ledger.of("ns", "c").count("arrivals")
    ledger.keep({("ns", "c")})
    assert [load.name for load in ledger.page(0).deployments] == ["b", "c"]


def test_a_page_of_half_an_hour_is_small() -> None:
    clock = Clock()
    ledger = Ledger("uid", clock)
    mine = ledger.of("ns", "a")
    busy(mine.count, clock)
    assert len(ledger.page(0).model_dump_json(exclude_defaults=True)) < 200_000
    assert len(ledger.page(clock.now - 2).model_dump_json(exclude_defaults=True)) < 1_000


def busy(count: Callable[[str], None], clock: Clock) -> None:
    for _ in range(KEPT_SECONDS):
        clock.now += 1
        for counter in ("arrivals", "completed", "cancelled_prefill"):
            count(counter)


def test_what_is_counted_meanwhile_does_not_move_the_time_that_a_place_took() -> None:
    clock = Clock(1000.0)
    ledger = Ledger("uid", clock)
    mine = ledger.of("ns", "a")
    mine.place_taken()
    for second in range(1, 4):
        clock.now = 1000.0 + second
        mine.count("arrivals")
    mine.place_left()
    assert counts(only(ledger), "slot_ms") == {1000: 1000.0, 1001: 1000.0, 1002: 1000.0}
