import math

import pytest

from benchmarks.peers.lines import End, Result
from benchmarks.replay.measure import Misses, latencies, opening, requests, verdict, warm
from benchmarks.replay.trace import Ask


def ask(at: float, cancel_at: float | None = None, *, appends: bool = True, editor: int = 0, tokens: int = 100) -> Ask:
    return Ask(at, editor, (5,) * tokens, cancel_at, appends, False)


def result(n: int, *times: float, end: End = "line", cached: int | None = None) -> Result:
    return Result(n, end, times[0], times[-1], times[1:], (1,) * (len(times) - 1), (7,) * (len(times) - 1), cached)


def test_speed_divides_all_times() -> None:
    (request,) = requests([ask(3.0, 4.5, editor=2)], 1.5)
    assert (request.at, request.cancel_at, request.editor, request.first_line) == (2.0, 3.0, 2, True)


def test_each_editors_first_prompt_is_computed_before() -> None:
    asks = [ask(0.0, editor=2, tokens=7), ask(0.1, editor=1, tokens=8), ask(0.2, editor=2, tokens=9)]
    assert [(len(request.prompt), request.editor, request.max_tokens) for request in opening(asks)] == [
        (7, 2, 1),
        (8, 1, 1),
    ]


@pytest.mark.parametrize(
    ("name", "late", "unserved", "good"),
    [
        ("all in time", 0, 0, True),
        ("five of a hundred late", 5, 0, True),
        ("six of a hundred late", 6, 0, False),
        ("one of a hundred unserved", 0, 1, True),
        ("two of a hundred unserved", 0, 2, False),
    ],
)
def test_which_speed_is_good(name: str, late: int, unserved: int, good: bool) -> None:
    asked = requests([ask(1.0) for _ in range(100)] + [ask(1.0, 1.2) for _ in range(50)], 1.0)
    results = {n: result(n, 1.0, 1.1, 1.4) for n in range(100)}
    results |= {n: result(n, 1.0, 1.1, 1.6) for n in range(late)}
    results |= {n: result(n, 1.0, 1.1, end="cancelled") for n in range(50, 50 + unserved)}
    judged = verdict(asked, results)
    assert judged.good is good, name
    assert judged.served == pytest.approx(1 - unserved / 100)
    misses = Misses(asked)
    failed = [misses(each) for each in results.values()]
    assert any(failed) is (late > 5), "it ends early only where too many came late"


def test_a_request_without_a_result_is_not_served() -> None:
    judged = verdict(requests([ask(1.0), ask(2.0)], 1.0), {0: result(0, 1.0, 1.1)})
    assert (judged.first_line_p95, judged.served) == (math.inf, 0.5)


def test_time_counts_from_the_key_not_from_a_late_submission() -> None:
    judged = verdict(requests([ask(1.0)], 1.0), {0: result(0, 1.3, 1.4, 1.45)})
    assert judged.first_line_p95 == pytest.approx(0.45)


@pytest.mark.parametrize(
    ("name", "asks", "answered", "expected"),
    [
        ("the first prompt is cold", [ask(0, appends=False), ask(2)], {0: 1.0, 1: 2.1}, [1]),
        ("the one before it was cancelled too early", [ask(0, 0.1, appends=False), ask(0.1)], {1: 1.0}, []),
        ("computed by one that was cancelled later", [ask(0, 2.0, appends=False), ask(2)], {0: 1.9, 1: 2.1}, [1]),
        ("computed by an earlier one", [ask(0, appends=False), ask(2, 2.1), ask(2.1)], {0: 1.0, 2: 2.2}, [2]),
        ("cancelled ones are not awaited", [ask(0, appends=False), ask(2, 3)], {0: 1.0, 1: 2.1}, []),
        ("a jump makes it cold again", [ask(0, appends=False), ask(2, appends=False), ask(3)], {0: 1.0, 2: 3.1}, []),
        ("another editor's is none of its own", [ask(0, appends=False), ask(2, editor=1)], {0: 1.0, 1: 2.1}, []),
    ],
)
def test_which_requests_are_warm(name: str, asks: list[Ask], answered: dict[int, float], expected: list[int]) -> None:
    results = {n: result(n, asks[n].at, first) for n, first in answered.items()}
    assert warm(asks, requests(asks, 1.0), results) == expected, name


def test_latencies() -> None:
    asks = [ask(0.0, appends=False), ask(2.0), ask(4.0, 4.2), ask(5.0)]
    results = {
        0: result(0, 0.0, 0.8, 0.9, cached=0),
        1: result(1, 2.0, 2.1, 2.11, cached=97),
        2: result(2, 4.0, 4.1, end="cancelled"),
        3: result(3, 5.0, 5.2, 5.23, cached=90),
    }
    assert latencies(asks, requests(asks, 1.0), results) == pytest.approx(
        {"first_line_p95_ms": 900.0, "warm_ttft_p95_ms": 200.0, "recomputed_per_key_p95": 10, "delivery_ms": 30.0}
    )


def test_what_nothing_was_measured_of_is_left_out() -> None:
    asks = [ask(0.0, appends=False)]
    found = latencies(asks, requests(asks, 1.0), {0: result(0, 0.0, 5.0, end="cancelled")})
    assert found == {"first_line_p95_ms": 5000.0}
