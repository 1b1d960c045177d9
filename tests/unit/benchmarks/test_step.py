import random

import pytest

from benchmarks import step


@pytest.mark.parametrize(
    ("name", "spans", "expected"),
    [
        ("from one pass to the next", [(1.0, 0.03), (1.04, 0.03), (1.08, 0.03)], (40.0, 30.0, 25.0)),
        ("what began before does not count", [(0.5, 0.5), (1.0, 0.05), (1.1, 0.01)], (100.0, 50.0, 50.0)),
        ("nor what began behind", [(1.0, 0.1), (1.1, 0.01), (2.0, 0.01)], (100.0, 100.0, 0.0)),
    ],
)
def test_the_share_of_what_is_not_the_model(
    name: str, spans: list[step.Span], expected: tuple[float, float, float]
) -> None:
    found = step.shares(spans, 1.0, 2.0)
    assert (found["step_ms"], found["forward_ms"], found["other_percent"]) == pytest.approx(expected, abs=1e-9), name


def test_a_stopwatch_adds_up_since_the_last_time() -> None:
    watch = step.Stopwatch()
    double = watch.around(lambda n, *, by: n * by)
    assert (double(3, by=2), double(4, by=2)) == (6, 8)
    assert watch.take() > 0
    assert watch.take() == 0


def test_nobody_who_waits_fits_into_a_full_cache() -> None:
    chance = random.Random(2)
    crowd = step.Crowd(chance, step.BLOCKS // step.RUNNING * step.BLOCK)
    crowd.submit([crowd.prompts[0]], 1)
    assert set(crowd.times(3)) == {"plan_ms", "plan_ms_max", "advance_ms", "advance_ms_max"}
    assert (crowd.stats.running, crowd.stats.waiting) == (step.RUNNING, 1)
    assert crowd.stats.tokens_decoded >= 4 * step.RUNNING, "all that run decode"


def test_who_waits_for_a_long_prompt_starts_when_it_is_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(step, "PARKED", 3)
    crowds: list[step.Crowd] = []
    times = step.Crowd.times

    def within(self: step.Crowd, steps: int) -> dict[str, float]:
        crowds.append(self)
        found = times(self, steps // 2)
        assert (self.stats.running, self.stats.waiting) == (step.RUNNING + 1, 3), "parked until then"
        times(self, steps - steps // 2)
        assert (self.stats.running, self.stats.waiting) == (step.RUNNING + 4, 0)
        return found

    monkeypatch.setattr(step.Crowd, "times", within)
    step.parked(random.Random(3))
    assert crowds
