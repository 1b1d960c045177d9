import pytest
from hypothesis import given
from hypothesis import strategies as st

from aixcoder_serving.engine.cost import Cost, Room, measure
from aixcoder_serving.engine.plan import Plan

numbers = st.floats(1e-4, 10)


@given(
    numbers, numbers, numbers, st.floats(0, 1e-2), st.floats(0, 1), st.floats(0.1, 200), st.integers(0, 4000),
    st.integers(0, 200), st.integers(0, 64), st.booleans(),
)  # fmt: skip
def test_affordable_is_the_most_that_fits(
    floor: float, base: float, per_token: float, per_read: float, per_row: float, budget: float, start: int,
    tokens: int, rows: int, with_rows: bool,
) -> None:  # fmt: skip
    cost = Cost(floor, base, per_token, per_read, per_row)
    reads = tokens * start

    def milliseconds(n: int) -> float:
        return cost.milliseconds(tokens + n, rows + n * with_rows, reads + n * start + n * (n + 1) // 2)

    n = cost.affordable(budget, tokens, rows, reads, start, with_rows=with_rows)
    assert n >= 0
    if n:
        assert milliseconds(n) <= budget * (1 + 1e-9)
    room = budget - per_read * reads
    if n < 1_000_000 and room >= floor + per_read * (start + 1) and room > base + per_token * tokens + per_row * rows:
        assert milliseconds(n + 1) > budget * (1 - 1e-9)


def test_room_counts_down() -> None:
    room = Room(Cost(0.0, 0.0, 1.0, 0.0), budget=10, most=100)
    assert room.left(0) == 10
    room.take(5, 4, 1)
    assert (room.tokens, room.rows, room.reads, room.left(9)) == (4, 1, 5 * 4 + 10, 6)
    room.take(9, 6, 0)
    assert room.left(15) == 0


def test_a_draft_costs_its_rows() -> None:
    room = Room(Cost(0.0, 0.0, 1.0, 0.0, per_row=3.0), budget=10, most=100)
    room.take(5, 1, 1)
    assert room.milliseconds == 4.0
    assert (room.left(6), room.left(6, with_rows=True)) == (6, 1)


def test_one_more_request_beyond_the_floor() -> None:
    cost = Cost(floor=2.0, base=1.0, per_token=0.25, per_read=0.001, per_row=0.5)
    few, many = (cost.milliseconds(n, n, n * 2048) for n in (10, 11))
    assert many - few == pytest.approx(cost.per_request)


def test_room_ends_at_the_buffers() -> None:
    assert Room(Cost(0.0, 0.0, 0.001, 0.0), budget=1000, most=64).left(0) == 64


@pytest.mark.parametrize(
    ("true", "budget"),
    [
        pytest.param(Cost(floor=2.0, base=1.0, per_token=0.25, per_read=0.0), 50.0, id="a small model"),
        pytest.param(Cost(floor=2.0, base=1.0, per_token=0.25, per_read=0.0004), 50.0, id="reads that show"),
        pytest.param(Cost(floor=2.0, base=1.0, per_token=0.25, per_read=0.0, per_row=0.5), 50.0, id="rows that show"),
        pytest.param(Cost(floor=300.0, base=250.0, per_token=40.0, per_read=0.0), 50.0, id="a step beyond the budget"),
    ],
)
def test_measure(true: Cost, budget: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps of a known cost, by a clock that they move."""
    now = [0.0]
    monkeypatch.setattr("time.perf_counter", lambda: now[0])
    plans: list[Plan] = []

    def run(plan: Plan) -> None:
        plans.append(plan)
        (work,) = plan.work
        assert len(plan.admissions[0].prompt) == work.start + work.count <= 4096
        reads = work.count * work.start + work.count * (work.count + 1) // 2
        now[0] += true.milliseconds(work.count, 1 + len(work.draft), reads) / 1000

    found = measure(run, budget_ms=budget, most=1024, max_length=4096, block_size=16)
    for tokens, rows, start in ((1, 1, 0), (64, 1, 0), (64, 64, 0), (256, 1, 1000)):
        reads = tokens * start
        expected = true.milliseconds(tokens, rows, reads)
        if expected <= max(4 * budget, 2 * true.floor):
            assert found.milliseconds(tokens, rows, reads) == pytest.approx(expected, rel=0.35)
    assert len(plans) < 40
    assert all(work.blocks == tuple(range(len(work.blocks))) for plan in plans for work in plan.work)


def test_a_disturbed_measurement_does_not_last(monkeypatch: pytest.MonkeyPatch) -> None:
    """One of three timings is enough."""
    now, calls = [0.0], [0]
    monkeypatch.setattr("time.perf_counter", lambda: now[0])
    true = Cost(floor=2.0, base=1.0, per_token=0.25, per_read=0.0)

    def run(plan: Plan) -> None:
        calls[0] += 1
        now[0] += true.milliseconds(plan.work[0].count, 1, 0) / 1000 * (20 if calls[0] % 3 else 1)

    found = measure(run, budget_ms=50, most=1024, max_length=4096, block_size=16)
    assert found.milliseconds(64, 1, 0) == pytest.approx(true.milliseconds(64, 1, 0), rel=0.35)
