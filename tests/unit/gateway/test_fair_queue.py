"""Who is next."""

import itertools

from hypothesis import given
from hypothesis import strategies as st

from aixcoder_serving.gateway.editor import Editor
from aixcoder_serving.gateway.fair_queue import FairQueue, Waiting

_count = itertools.count()


def entry(
    key: str, tokens: int = 100, *, editor: str | None = None, deadline: float = 10.0, since: float = 0.0
) -> Waiting[int]:
    who = Editor(key, editor) if editor is not None else None
    return Waiting(key, who, tokens, deadline, since, 7, next(_count))


def drain(queue: FairQueue[int], most: int = 1000) -> list[Waiting[int]]:
    order: list[Waiting[int]] = []
    while (head := queue.peek()) is not None and len(order) < most:
        queue.take(head)
        order.append(head)
    return order


def test_keys_take_turns_however_much_one_asks_for() -> None:
    queue = FairQueue[int]()
    for found in [*(entry("flood") for _ in range(10)), *(entry("quiet") for _ in range(2))]:
        queue.push(found)
    assert [found.key for found in drain(queue)][:4] == ["flood", "quiet", "flood", "quiet"]


def test_a_weight_of_three_gets_three_times_the_tokens() -> None:
    queue = FairQueue[int]()
    for _ in range(40):
        queue.push(entry("a"), weight=3.0)
        queue.push(entry("b"))
    keys = [found.key for found in drain(queue, 40)]
    assert abs(keys.count("a") - 30) <= 1


def test_tokens_count_and_not_requests() -> None:
    queue = FairQueue[int]()
    for _ in range(30):
        queue.push(entry("long", 1000))
        queue.push(entry("short", 100))
    keys = [found.key for found in drain(queue, 22)]
    assert abs(keys.count("short") - 20) <= 1


def test_who_was_away_has_saved_nothing_up() -> None:
    queue = FairQueue[int]()
    queue.push(entry("late"))
    drain(queue)
    for _ in range(50):
        queue.push(entry("busy"))
    drain(queue, 40)
    for _ in range(10):
        queue.push(entry("late"))
    assert [found.key for found in drain(queue, 6)].count("late") <= 4


def test_what_was_charged_too_much_is_given_back() -> None:
    queue = FairQueue[int]()
    for _ in range(4):
        queue.push(entry("a", 1000))
        queue.push(entry("b", 1000))
    first = drain(queue, 1)[0]
    queue.charge(first.key, -1000)
    assert drain(queue, 1)[0].key == first.key


def test_inside_a_key_the_earliest_deadline_and_inside_an_editor_the_newest() -> None:
    queue = FairQueue[int]()
    old = entry("a", editor="x", deadline=5)
    other = entry("a", editor="y", deadline=3)
    new = entry("a", editor="x", deadline=6)
    nobody = entry("a", deadline=4)
    for found in (old, other, new, nobody):
        queue.push(found)
    assert drain(queue) == [other, nobody, new, old]


def test_one_that_comes_back_stands_where_it_stood_among_its_editors() -> None:
    queue = FairQueue[int]()
    back, newest, middle = (entry("a", editor="x", since=since) for since in (1.0, 3.0, 2.0))
    for found in (middle, newest, back):
        queue.push(found)
    assert drain(queue) == [newest, middle, back]


def test_who_leaves_is_charged_nothing_and_leaves_nothing() -> None:
    queue = FairQueue[int]()
    left, stays = entry("a"), entry("b")
    queue.push(left)
    queue.push(stays)
    assert (len(queue), queue.bytes) == (2, 14)
    queue.remove(left)
    queue.remove(left)
    assert (len(queue), queue.bytes) == (1, 7)
    assert drain(queue) == [stays]
    assert queue.peek() is None


def test_how_many_are_served_before_a_new_one_of_a_key() -> None:
    queue = FairQueue[int]()
    for _ in range(10):
        queue.push(entry("flood"))
    queue.push(entry("quiet"))
    assert queue.ahead_of("flood") == 11
    assert queue.ahead_of("quiet") == 3
    assert queue.ahead_of("new") == 2


def test_requests_of_an_editor_oldest_first() -> None:
    queue = FairQueue[int]()
    entries = [entry("a", editor="x") for _ in range(3)]
    for found in [*entries, entry("a", editor="y"), entry("b", editor="x")]:
        queue.push(found)
    assert queue.of_editor("a", Editor("a", "x")) == entries
    assert queue.of_editor("nobody", Editor("nobody", "x")) == []


def test_idle_keys_are_forgotten_once_nothing_is_owed() -> None:
    queue = FairQueue[int]()
    for n in range(100):
        queue.push(entry(f"key {n}"))
    drain(queue)
    queue.push(entry("last", 1_000_000))
    queue.push(entry("last"))
    drain(queue)
    queue.forget_idle()
    assert len(queue._flows) == 1


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 1000), st.floats(0, 9)), max_size=40))
def test_everybody_is_served_once_and_shares_differ_by_one_request_at_most(
    wishes: list[tuple[str, int, float]],
) -> None:
    queue = FairQueue[int]()
    entries = [entry(key, tokens, deadline=deadline) for key, tokens, deadline in wishes]
    for found in entries:
        queue.push(found)
    left = {key: [found for found in entries if found.key == key] for key in "abc"}
    given_to = dict.fromkeys("abc", 0)
    order = drain(queue)
    assert sorted(order, key=id) == sorted(entries, key=id)
    for found in order:
        waiting = [key for key in "abc" if left[key]]
        # Start-time fair queueing: who is served has had no more than anybody else who waits, but for a request.
        assert given_to[found.key] <= min(given_to[key] for key in waiting) + 1000
        given_to[found.key] += found.tokens
        left[found.key].remove(found)
