import asyncio
from collections.abc import Callable

import pytest

from aixcoder_operator.queue import FIRST_DELAY, LONGEST_DELAY, WorkQueue, backoff
from tests.unit.operator.virtual_time import run


def now() -> float:
    return round(asyncio.get_running_loop().time(), 3)


class Recorder:
    """Work that takes `seconds`, ends as `outcome` says, and notes when each run began and ended."""

    def __init__(self, seconds: float = 1.0, outcome: Callable[[str, int], float | None] = lambda key, n: None) -> None:
        self.seconds = seconds
        self.outcome = outcome
        self.runs: list[tuple[str, float, float]] = []
        self.running: list[str] = []
        self.most_at_once = 0

    async def __call__(self, key: str) -> float | None:
        assert key not in self.running, "a key ran twice at once"
        self.running.append(key)
        self.most_at_once = max(self.most_at_once, len(self.running))
        began = now()
        n = sum(1 for run_key, _, _ in self.runs if run_key == key)
        try:
            await asyncio.sleep(self.seconds)
            return self.outcome(key, n)
        finally:
            self.running.remove(key)
            self.runs.append((key, began, now()))

    def starts(self, key: str = "a") -> list[float]:
        return [began for run_key, began, _ in self.runs if run_key == key]


def queue_of(work: Recorder, workers: int = 4, **more: object) -> WorkQueue:
    queue = WorkQueue(work, workers=workers, jitter=lambda: 0.5, **more)  # type: ignore[arg-type]
    queue.start()
    return queue


def test_adds_while_waiting_and_while_running_fold_into_one_run_each() -> None:
    async def main() -> list[float]:
        work = Recorder()
        queue = WorkQueue(work, workers=1)
        for _ in range(5):
            queue.add("a")
        queue.start()
        await asyncio.sleep(0.5)
        for _ in range(5):
            queue.add("a")
        await asyncio.sleep(10)
        return work.starts()

    assert run(main()) == [0.0, 1.0]


def test_many_keys_run_at_once_but_no_more_than_the_workers_and_in_the_order_of_arrival() -> None:
    async def main() -> Recorder:
        work = Recorder()
        queue = queue_of(work, workers=2)
        for key in "abcde":
            queue.add(key)
        assert len(queue) == 3
        assert queue.running == 2
        await asyncio.sleep(10)
        return work

    work = run(main())
    assert work.most_at_once == 2
    assert [(key, began) for key, began, _ in work.runs] == [("a", 0), ("b", 0), ("c", 1), ("d", 1), ("e", 2)]


@pytest.mark.parametrize(
    ("name", "delays", "starts"),
    [
        ("the later one is folded into the earlier", [5, 9], [5.0]),
        ("an earlier one moves it forward", [9, 5], [5.0]),
        ("zero is now", [9, 0], [0.0]),
        ("negative is now", [-1], [0.0]),
    ],
)
def test_add_after_takes_the_earliest(name: str, delays: list[float], starts: list[float]) -> None:
    async def main() -> list[float]:
        work = Recorder()
        queue = queue_of(work)
        for delay in delays:
            queue.add_after("a", delay)
        await asyncio.sleep(30)
        return work.starts()

    assert run(main()) == starts, name


def test_an_add_makes_a_timer_needless() -> None:
    async def main() -> list[float]:
        work = Recorder()
        queue = queue_of(work)
        queue.add_after("a", 10)
        await asyncio.sleep(2)
        queue.add("a")
        await asyncio.sleep(30)
        return work.starts()

    assert run(main()) == [2.0]


def test_a_timer_that_ends_while_its_key_runs_runs_it_again_after() -> None:
    async def main() -> list[float]:
        work = Recorder(seconds=3)
        queue = queue_of(work)
        queue.add("a")
        queue.add_after("a", 1)
        await asyncio.sleep(30)
        return work.starts()

    assert run(main()) == [0.0, 3.0]


def test_the_seconds_that_work_returns_are_kept_from_its_end() -> None:
    async def main() -> list[float]:
        work = Recorder(outcome=lambda key, n: 10.0 if n < 2 else None)
        queue = queue_of(work)
        queue.add("a")
        await asyncio.sleep(100)
        return work.starts()

    assert run(main()) == [0.0, 11.0, 22.0]


def fail_times(times: int) -> Callable[[str, int], float | None]:
    def outcome(key: str, n: int) -> float | None:
        if n < times:
            raise ValueError(f"{key} failed")
        return None

    return outcome


def test_failures_back_off_and_success_forgets_them() -> None:
    told: list[tuple[str, str, float]] = []

    async def main() -> list[float]:
        work = Recorder(seconds=0, outcome=fail_times(4))
        queue = queue_of(work, on_failure=lambda key, error, delay: told.append((key, str(error), delay)))
        queue.add("a")
        await asyncio.sleep(30)
        work.runs.clear()  # it fails from the start again
        queue.add("a")
        await asyncio.sleep(0.6)
        return work.starts()

    starts = run(main())
    assert [delay for _, _, delay in told[:4]] == [0.5, 1.0, 2.0, 4.0]
    assert told[0][:2] == ("a", "a failed")
    assert starts == [30.0, 30.5]
    assert told[4][2] == 0.5


def test_events_do_not_hurry_a_key_that_has_just_failed_but_do_run_it_before_its_back_off_ends() -> None:
    async def main() -> list[float]:
        work = Recorder(seconds=0, outcome=fail_times(100))
        queue = queue_of(work)
        queue.add("a")
        await asyncio.sleep(3.6)  # ran at 0, 0.5, 1.5, 3.5: the next would be at 7.5
        for _ in range(10):
            queue.add("a")
        await asyncio.sleep(0.8)
        return work.starts()

    assert run(main()) == [0.0, 0.5, 1.5, 3.5, 4.0]


def test_one_key_that_fails_holds_up_no_other() -> None:
    async def main() -> Recorder:
        work = Recorder(seconds=0, outcome=lambda key, n: fail_times(100)(key, n) if key == "bad" else None)
        queue = queue_of(work, workers=1)
        queue.add("bad")
        for key in "abc":
            queue.add(key)
        await asyncio.sleep(0.1)
        return work

    work = run(main())
    assert [key for key, _, _ in work.runs] == ["bad", "a", "b", "c"]


class Throttled(Exception):
    retry_after = 20.0


def test_an_error_that_says_when_to_come_again_is_obeyed_even_where_events_come_in() -> None:
    def outcome(key: str, n: int) -> float | None:
        if n == 0:
            raise Throttled
        return None

    async def main() -> list[float]:
        work = Recorder(seconds=0, outcome=outcome)
        queue = queue_of(work)
        queue.add("a")
        await asyncio.sleep(5)
        queue.add("a")
        await asyncio.sleep(60)
        return work.starts()

    assert run(main()) == [0.0, 20.0]


def test_nothing_runs_before_start_and_what_was_added_does_then() -> None:
    async def main() -> Recorder:
        work = Recorder()
        queue = WorkQueue(work, workers=4)
        queue.add("a")
        queue.add_after("b", 3)
        await asyncio.sleep(10)
        assert work.running == []
        assert len(queue) == 2
        queue.start()
        await asyncio.sleep(10)
        return work

    work = run(main())
    assert sorted(work.runs) == [("a", 10.0, 11.0), ("b", 10.0, 11.0)]


def test_close_lets_runs_end_starts_no_more_and_takes_no_more() -> None:
    async def main() -> Recorder:
        work = Recorder(seconds=3)
        queue = queue_of(work, workers=1)
        queue.add("a")
        queue.add("b")
        queue.add_after("c", 1)
        await asyncio.sleep(1)
        queue.add("a")
        await queue.close(10)
        assert now() == 3.0
        queue.add("d")
        await asyncio.sleep(30)
        return work

    work = run(main())
    assert work.runs == [("a", 0.0, 3.0)]


def test_close_cancels_what_outlives_the_grace() -> None:
    async def main() -> float:
        work = Recorder(seconds=1000)
        queue = queue_of(work)
        queue.add("a")
        await asyncio.sleep(1)
        assert queue.oldest_running_seconds() == pytest.approx(1)
        await queue.close(5)
        assert work.running == []
        assert queue.running == 0
        return now()

    assert run(main()) == 6.0


@pytest.mark.parametrize(
    ("failures", "low", "high"),
    [(1, 0.375, 0.625), (2, 0.75, 1.25), (5, 6.0, 10.0), (8, 45.0, 75.0), (10_000, 45.0, 75.0)],
)
def test_backoff_grows_to_a_minute_and_spreads(failures: int, low: float, high: float) -> None:
    assert backoff(failures, 0.0) == pytest.approx(low)
    assert backoff(failures, 1.0) == pytest.approx(high)
    assert backoff(1, 0.5) == FIRST_DELAY
    assert backoff(99, 0.5) == LONGEST_DELAY
