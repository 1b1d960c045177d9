"""What follows from what went wrong."""

import pytest

from aixcoder_serving.gateway.setbacks import EJECTED_SECONDS, Ejections, Poison, RetryBudget

ABCD = ["a", "b", "c", "d"]


@pytest.mark.parametrize(
    ("failed", "usable"),
    [
        pytest.param([], ABCD, id="none"),
        pytest.param(["a"], ["b", "c", "d"], id="one"),
        pytest.param(["a", "b"], ["c", "d"], id="half"),
        pytest.param(["a", "b", "c"], ["a", "d"], id="never more than half: the one that comes back first is used"),
        pytest.param(ABCD, ABCD, id="all: all are used"),
    ],
)
def test_ejected(failed: list[str], usable: list[str]) -> None:
    ejections = Ejections()
    for n, address in enumerate(failed):
        ejections.failed(address, float(n) / 10)
    assert ejections.usable(ABCD, 1.0) == usable


def test_of_two_one_is_ejected_and_a_single_one_never() -> None:
    ejections = Ejections()
    ejections.failed("a", 0.0)
    assert ejections.usable(["a", "b"], 1.0) == ["b"]
    assert ejections.usable(["a"], 1.0) == ["a"]


def test_it_comes_back_and_stays_away_longer_each_time() -> None:
    ejections = Ejections()
    ejections.failed("a", 0.0)
    ejections.failed("a", 1.0)  # a request that was under way: no further time
    assert ejections.usable(ABCD, EJECTED_SECONDS - 0.1) == ["b", "c", "d"]
    assert ejections.usable(ABCD, EJECTED_SECONDS) == ABCD
    ejections.failed("a", EJECTED_SECONDS)
    assert ejections.usable(ABCD, 2.9 * EJECTED_SECONDS) == ["b", "c", "d"]
    assert ejections.usable(ABCD, 3 * EJECTED_SECONDS) == ABCD


def test_an_answer_or_its_end_makes_it_good_as_new() -> None:
    ejections = Ejections()
    ejections.failed("a", 0.0)
    ejections.worked("a")
    assert ejections.usable(ABCD, 1.0) == ABCD
    ejections.failed("b", 0.0)
    ejections.forget(["a", "c"])
    assert ejections.usable(ABCD, 1.0) == ABCD


def test_a_tenth_is_sent_again() -> None:
    budget = RetryBudget()
    assert sum(budget.spend() for _ in range(1000)) == 100
    for _ in range(95):
        budget.sent()
    assert [budget.spend() for _ in range(10)].count(True) == 9
    for _ in range(5000):
        budget.sent()
    assert sum(budget.spend() for _ in range(1000)) == 100


def test_a_request_that_two_replicas_died_with_is_refused_for_ten_minutes() -> None:
    poison = Poison()
    assert not poison.suspected("r", 0.0)
    poison.death("r", 0.0)
    assert not poison.suspected("r", 1.0)
    poison.death("r", 100.0)
    poison.death("s", 100.0)
    assert poison.suspected("r", 101.0)
    assert not poison.suspected("s", 101.0)
    assert poison.suspected("r", 699.0)
    assert not poison.suspected("r", 700.0)
    poison.death("t", 1000.0)
    assert list(poison._deaths) == ["t"]
