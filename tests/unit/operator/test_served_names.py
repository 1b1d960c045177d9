"""Who answers to a model name that several deployments claim."""

from __future__ import annotations

from aixcoder_operator.api.objects import Object
from aixcoder_operator.served_names import ServedNames


def parent(name: str, created: int, served: str | None = None) -> Object:
    """A deployment of namespace `ns`, created in that second."""
    return {
        "metadata": {
            "namespace": "ns",
            "name": name,
            "uid": f"uid-{name}",
            "creationTimestamp": f"2026-01-01T00:00:{created:02}Z",
        },
        "spec": {"model": {"servedName": served} if served else {}},
    }


def test_the_oldest_has_the_name_whatever_is_heard_first() -> None:
    names = ServedNames()
    assert names.changed("ns/young", parent("young", 2, "m")) == []
    assert names.taken_by("ns/young") is None
    assert names.changed("ns/old", parent("old", 1, "m")) == ["ns/young"]
    assert names.taken_by("ns/young") == "ns/old"
    assert names.taken_by("ns/old") is None


def test_of_one_second_the_lesser_uid_has_it() -> None:
    names = ServedNames()
    for name in ("b", "a"):
        names.changed(f"ns/{name}", parent(name, 1, "m"))
    assert names.taken_by("ns/b") == "ns/a"


def test_a_name_is_the_resources_where_the_spec_says_none() -> None:
    names = ServedNames()
    names.changed("ns/m", parent("m", 1))
    assert names.changed("ns/other", parent("other", 2, "m")) == ["ns/m"]
    assert names.taken_by("ns/other") == "ns/m"


def test_a_name_that_is_given_up_or_deleted_is_the_next_ones() -> None:
    names = ServedNames()
    for second, name in enumerate(("first", "second", "third")):
        names.changed(f"ns/{name}", parent(name, second, "m"))
    assert names.changed("ns/first", parent("first", 0, "n")) == ["ns/second", "ns/third"]
    assert names.taken_by("ns/second") is None
    assert names.changed("ns/second", None) == ["ns/third"]
    assert names.taken_by("ns/third") is None


def test_what_changes_nothing_of_the_claim_concerns_nobody() -> None:
    names = ServedNames()
    names.changed("ns/a", parent("a", 1, "m"))
    names.changed("ns/b", parent("b", 2, "m"))
    assert names.changed("ns/a", parent("a", 1, "m") | {"status": {"replicas": 3}}) == []


def test_who_is_not_known_has_nothing_taken_away() -> None:
    assert ServedNames().taken_by("ns/a") is None
