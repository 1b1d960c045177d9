"""How long a client waits, what a key may do, how many tokens a text has."""

import pytest

from aixcoder_serving.gateway.estimate import BYTES_PER_TOKEN, TokenEstimate
from aixcoder_serving.gateway.keys import Key
from aixcoder_serving.gateway.limits import Limits
from aixcoder_serving.gateway.patience import MOST_SECONDS, patience
from aixcoder_serving.gateway.problems import Problem


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        pytest.param({}, 30.0, id="its kind's"),
        pytest.param({"x-patience-ms": "500"}, 0.5, id="its own header"),
        pytest.param({"x-patience-ms": "90000"}, 90.0, id="its own header may be longer"),
        pytest.param({"x-patience-ms": "1e99"}, MOST_SECONDS, id="bounded"),
        pytest.param({"x-patience-ms": "500", "x-stainless-timeout": "5"}, 0.5, id="its own before the SDK's"),
        pytest.param({"x-stainless-timeout": "3"}, 3.0, id="the SDK's"),
        pytest.param({"x-stainless-read-timeout": "600", "x-stainless-timeout": "600"}, 30.0, id="an SDK's is a bound"),
        pytest.param({"x-patience-ms": "nan"}, 30.0, id="no number"),
        pytest.param({"x-patience-ms": "-1"}, 30.0, id="negative"),
        pytest.param({"x-patience-ms": "soon"}, 30.0, id="a word"),
    ],
)
def test_patience(headers: dict[str, str], seconds: float) -> None:
    assert patience(headers, 30.0) == seconds


def key(**limits: int) -> Key:
    return Key(id="k", sha256="0" * 64, **limits)


def test_a_key_has_no_limits_by_itself() -> None:
    limits = Limits(lambda: 0.0)
    with limits.counted(key()), limits.counted(key()):
        pass


def test_requests_at_once() -> None:
    limits = Limits(lambda: 0.0)
    two = key(concurrent_requests=2)
    with limits.counted(two), limits.counted(two):
        with pytest.raises(Problem) as caught, limits.counted(two):
            pass
        assert (caught.value.status, caught.value.retry_after) == (429, 1)
    with limits.counted(two):
        pass


def test_requests_in_a_minute() -> None:
    now = 0.0
    limits = Limits(lambda: now)
    six = key(requests_per_minute=6)
    for _ in range(6):
        with limits.counted(six):
            pass
    with pytest.raises(Problem) as caught, limits.counted(six):
        pass
    assert caught.value.retry_after == 10
    now = 10.0
    with limits.counted(six):
        pass
    with pytest.raises(Problem), limits.counted(six):
        pass


def test_tokens_in_a_minute_are_those_that_were_used() -> None:
    now = 0.0
    limits = Limits(lambda: now)
    thousand = key(tokens_per_minute=1000)
    # The second is let in with any left: a request may be larger than a minute's tokens.
    with limits.charged(thousand, 900, lambda: 600), limits.charged(thousand, 5000, lambda: 500):
        with pytest.raises(Problem) as caught, limits.charged(thousand, 1, lambda: 1):
            pass
        assert (caught.value.status, caught.value.retry_after) == (429, 60)
    # 1,100 were used: 100 are owed, which six seconds give back.
    with pytest.raises(Problem) as caught, limits.charged(thousand, 1, lambda: 1):
        pass
    assert caught.value.retry_after == 6
    now = 6.1
    with limits.charged(thousand, 1, lambda: 1):
        pass


def test_a_request_that_failed_has_cost_what_it_used() -> None:
    limits = Limits(lambda: 0.0)
    ten = key(tokens_per_minute=10)
    for _ in range(3):
        with pytest.raises(ZeroDivisionError), limits.charged(ten, 10, lambda: 0):
            raise ZeroDivisionError


def test_tokens_are_learnt_by_language() -> None:
    estimate = TokenEstimate()
    assert estimate.tokens(3200, None) == round(3200 / BYTES_PER_TOKEN)
    for _ in range(200):
        estimate.correct(4000, "python", 1000)
        estimate.correct(2000, "java", 1000)
    assert abs(estimate.tokens(4000, "python") - 1000) < 10
    assert abs(estimate.tokens(4000, "java") - 2000) < 20
    assert estimate.tokens(3200, "go") == 1000
    assert estimate.tokens(0, "go") == 1


def test_no_measure_is_taken_of_nothing() -> None:
    estimate = TokenEstimate()
    estimate.correct(0, None, 4)
    estimate.correct(4, None, 0)
    assert estimate.tokens(3200, None) == 1000
    estimate.correct(1_000_000, None, 1)
    assert estimate.tokens(3200, None) > 900
