import pytest

from benchmarks.replay.search import HIGH, LOW, highest

TOLERANCE = 1.05


@pytest.mark.parametrize("limit", [LOW, 0.3, 0.99, 1.0, 1.7, 12.0, HIGH])
@pytest.mark.parametrize("guess", [0.001, 0.5, 1.0, 3.0, 1000.0])
@pytest.mark.parametrize("stride", [TOLERANCE, 1.2, 1.5, 4.0])
def test_the_highest_speed_that_passes_is_found(limit: float, guess: float, stride: float) -> None:
    tried: list[float] = []

    def passes(speed: float) -> bool:
        tried.append(speed)
        return speed <= limit

    found = highest(passes, guess, stride=stride, tolerance=TOLERANCE)
    assert found <= limit < found * TOLERANCE * (1 + 1e-9) or found == limit
    assert all(LOW <= speed <= HIGH for speed in tried)
    assert len(tried) == len(set(tried)), "no speed is tried twice"


def test_no_speed_passes() -> None:
    assert highest(lambda _: False, 1.0, stride=1.5, tolerance=TOLERANCE) == 0.0


def test_every_speed_passes() -> None:
    assert highest(lambda _: True, 1.0, stride=1.5, tolerance=TOLERANCE) == HIGH


def test_a_good_guess_saves_tries() -> None:
    def tries(guess: float, stride: float) -> int:
        tried: list[float] = []

        def passes(speed: float) -> bool:
            tried.append(speed)
            return speed <= 6.1

        highest(passes, guess, stride=stride, tolerance=TOLERANCE)
        return len(tried)

    assert tries(6.0, TOLERANCE) == 2, "one that passes and one that does not"
    assert all(tries(6.1 / (1 + n / 2500), TOLERANCE) == 2 for n in range(1, 100)), "however a stride is rounded"
    assert tries(6.0, 1.2) < tries(1.0, 1.5) <= 10
    assert max(tries(guess, TOLERANCE) for guess in (LOW, 1.0, 20.0, HIGH)) <= 15, "a bad one costs some more"


def test_luck_ends_the_search_too() -> None:
    answers = iter([True, False, True, False, True, False, False, True] * 8)
    assert LOW <= highest(lambda _: next(answers), 1.0, stride=1.5, tolerance=TOLERANCE) <= HIGH
