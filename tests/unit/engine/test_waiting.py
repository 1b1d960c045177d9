"""The waiting queue alone: order, parking, and how much it keeps of those that left."""

import pytest

from aixcoder_serving.engine.waiting import WaitingQueue
from tests.unit.engine.scheduler_bench import Bench


def test_those_that_left_leave_the_heap_while_a_shorter_one_stays_on_top() -> None:
    bench, queue = Bench(), WaitingQueue()
    requests = [bench.requests[bench.add(16)] for _ in range(1000)]
    queue.add(requests[0], 1)
    for request in requests[1:]:
        queue.add(request, 100)
        queue.remove(request)
        queue.check_integrity()
    assert len(queue._heap) <= 100
    assert list(queue.shortest()) == [requests[0]]


def test_those_that_left_at_once_leave_the_heap_at_once() -> None:
    bench, queue = Bench(), WaitingQueue()
    requests = [bench.requests[bench.add(16)] for _ in range(1000)]
    for request in requests:
        queue.add(request, 100)
    for request in requests[1:]:
        queue.remove(request)
    assert len(queue._heap) <= 100
    queue.check_integrity()
    assert list(queue.shortest()) == [requests[0]]


@pytest.mark.parametrize("times", [1, 5])
def test_one_that_was_parked_from_the_heap_comes_up_once(times: int) -> None:
    """As an old one is: it keeps the entry that it had."""
    bench, queue = Bench(), WaitingQueue()
    request = bench.requests[bench.add(16)]
    queue.add(request, 16)
    for _ in range(times):
        queue.park(request, b"block")
        assert list(queue.shortest()) == []
        queue.wake(b"block", 0)
    queue.check_integrity()
    assert list(queue.shortest()) == [request]
    assert list(queue.shortest()) == [request], "it keeps its place"
