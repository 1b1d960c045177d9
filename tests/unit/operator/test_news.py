import pytest

from aixcoder_operator.cluster.events import (
    BURST,
    REFILL_SECONDS,
    REPEAT_SECONDS,
    TOPIC_SECONDS,
    NewsFilter,
    shortened,
)


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_the_same_news_of_one_object_is_told_once_in_a_while() -> None:
    clock = Clock()
    news = NewsFilter(clock)
    assert news.admits("u", "Pulled", "x")
    assert not news.admits("u", "Pulled", "x")
    assert news.admits("u", "Pulled", "y")
    assert news.admits("u", "Failed", "x")
    assert news.admits("other", "Pulled", "x")
    clock.now += REPEAT_SECONDS - 1
    assert not news.admits("u", "Pulled", "x")
    clock.now += 1
    assert news.admits("u", "Pulled", "x")


def test_an_object_with_ever_new_news_is_cut_short_and_others_are_not() -> None:
    clock = Clock()
    news = NewsFilter(clock)
    told = [news.admits("u", "Crashed", str(n)) for n in range(BURST * 3)]
    assert told == [True] * BURST + [False] * BURST * 2
    assert news.admits("other", "Crashed", "x")
    clock.now += REFILL_SECONDS
    assert [news.admits("u", "Crashed", f"later {n}") for n in range(2)] == [True, False]
    clock.now += BURST * REFILL_SECONDS
    assert [news.admits("u", "Crashed", f"much later {n}") for n in range(BURST + 1)] == [True] * BURST + [False]


def test_what_was_not_told_for_want_of_room_is_news_once_there_is_room() -> None:
    clock = Clock()
    news = NewsFilter(clock)
    for n in range(BURST):
        news.admits("u", "Crashed", str(n))
    assert not news.admits("u", "Ready", "at last")
    clock.now += REFILL_SECONDS
    assert news.admits("u", "Ready", "at last")


def test_one_topic_of_one_object_is_told_once_a_minute_whatever_the_words() -> None:
    clock = Clock()
    news = NewsFilter(clock)
    assert news.admits("u", "ScaledUp", "from 1 to 3", "scaling")
    assert not news.admits("u", "ScaledDown", "from 3 to 2", "scaling")
    assert news.admits("other", "ScaledUp", "from 1 to 3", "scaling")
    assert news.admits("u", "ScaledUp", "from 1 to 4", "another")
    assert news.admits("u", "Ready", "of no topic")
    clock.now += TOPIC_SECONDS - 1
    assert not news.admits("u", "ScaledUp", "from 2 to 4", "scaling")
    clock.now += 1
    assert news.admits("u", "ScaledUp", "from 2 to 5", "scaling")
    assert not news.admits("u", "ScaledUp", "from 5 to 6", "scaling")


def test_nothing_is_remembered_for_ever() -> None:
    clock = Clock()
    news = NewsFilter(clock)
    for n in range(100):
        news.admits(str(n), "Crashed", "x", "topic")
        clock.now += REPEAT_SECONDS / 10
    assert len(news._told) <= 11
    assert len(news._topics) <= 2
    assert len(news._spent) <= 2


@pytest.mark.parametrize(
    ("message", "expected"),
    [("short", "short"), ("x" * 1024, "x" * 1024), ("x" * 1025, "x" * 1021 + "…"), ("模" * 342, "模" * 340 + "…")],
)
def test_a_note_is_cut_by_bytes_and_never_within_a_character(message: str, expected: str) -> None:
    assert shortened(message) == expected
