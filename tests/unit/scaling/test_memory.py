"""How long the busiest seconds are remembered."""

import pytest

from aixcoder_operator.scaling.memory import LONGEST_HOLD_S, MEMORIES_S, Trial, Window, chosen, hold_s


@pytest.mark.parametrize(
    ("arrivals", "peak"),
    [
        pytest.param([], 0, id="nothing known"),
        pytest.param([0, 0], 0, id="nothing came"),
        pytest.param([1] * 100, 1, id="steady"),
        pytest.param([10] * 99 + [11], 11, id="the busiest has more than one in a hundred"),
        pytest.param([10] * 199 + [11], 10, id="the busiest has less"),
        pytest.param([0] * 119 + [50], 50, id="all in one second"),
    ],
)
def test_peak(arrivals: list[float], peak: float) -> None:
    window = Window(max(len(arrivals), 120))
    for each in arrivals:
        window.add(each)
    assert window.peak() == peak


@pytest.mark.parametrize(
    ("known", "more"),
    [
        pytest.param(120, 1.5, id="little is known: half as far again above the mean"),
        pytest.param(900, 1.2559, id="half of it: log 30 / log 15"),
        pytest.param(1800, 1.0, id="all"),
    ],
)
def test_what_a_full_window_would_show(known: int, more: float) -> None:
    window = Window(1800)
    for second in range(known):
        window.add(20.0 if second % 10 == 0 else 0.0)
    assert window.peak() == pytest.approx(2 + 18 * more, rel=1e-4)


def test_what_is_older_is_forgotten() -> None:
    window = Window(10)
    for each in [50, *[5] * 9]:
        window.add(each)
    assert window.peak() == 50
    window.add(5)
    assert window.peak() == 5


def played(bursts_every_s: int, seconds: int) -> list[Trial]:
    """A request a second, and a burst of 100 in each second of ten, again and again; a request is 0.1 s of work."""
    trials = [Trial(each) for each in MEMORIES_S]
    for second in range(seconds):
        for trial in trials:
            trial.add(100.0 if second % bursts_every_s < 10 else 1.0, 0.1, 30.0)
    return trials


@pytest.mark.parametrize(("every", "memory"), [(100, 120), (300, 300), (1500, 1800)])
def test_remembered_from_one_burst_to_the_next(every: int, memory: int) -> None:
    """A memory is as good as one that is longer by what is held, two cold starts."""
    assert chosen(played(every, 4 * 3600)).window.seconds == memory


def test_the_shortest_where_none_was_better() -> None:
    assert chosen(played(7200, 7200 + 60)).window.seconds == MEMORIES_S[0]


@pytest.mark.parametrize(("cold_start", "held"), [(0, 0), (30, 60), (600, LONGEST_HOLD_S), (7205, LONGEST_HOLD_S)])
def test_how_long_a_need_is_held(cold_start: float, held: float) -> None:
    assert hold_s(cold_start) == held


def late_on_paper(bursts_every_s: int) -> float:
    """With the shortest memory and a start of 900 s, of which twice would hold for half an hour."""
    trial = Trial(MEMORIES_S[0])
    for second in range(4 * 3600):
        trial.add(100.0 if second % bursts_every_s < 10 else 1.0, 0.1, 900.0)
    return trial.late


def test_on_paper_a_need_is_held_for_no_longer_than_really() -> None:
    """What a burst asks for is there after 900 s, for 1200 s and the 120 of the memory, and no longer."""
    assert late_on_paper(2000) < 0.1
    assert late_on_paper(2400) > 0.15


def test_on_paper_nobody_is_late_before_a_cold_start_is_over() -> None:
    trial = Trial(120)
    for _ in range(30):
        trial.add(100.0, 1.0, 30.0)
    assert trial.late == 0
