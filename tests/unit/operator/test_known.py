from typing import Any

from aixcoder_operator.api.objects import Object
from aixcoder_operator.watches import Known, parent_key_of


def parent(version: str = "1", *, name: str = "a", status: Any = None, **metadata: Any) -> Object:
    made = {"namespace": "n", "name": name, "uid": "u", "generation": 1, "resourceVersion": version, **metadata}
    return {"metadata": made, "spec": {}, "status": status or {}}


def test_only_what_can_change_what_is_to_be_done_matters() -> None:
    known = Known()
    events: list[tuple[str, str | None, Object, bool]] = [
        ("first seen in the list", None, parent("1"), True),
        ("our own status", "MODIFIED", parent("2", status={"replicas": 1}), False),
        ("the same again", "MODIFIED", parent("2"), False),
        ("a spec change", "MODIFIED", parent("3", generation=2), True),
        ("a restart", "MODIFIED", parent("4", generation=2, annotations={"restart": "1"}), True),
        ("status after it", "MODIFIED", parent("5", generation=2, annotations={"restart": "1"}), False),
        ("deletion asked for", "MODIFIED", parent("6", generation=2, deletionTimestamp="now"), True),
        ("gone", "DELETED", parent("7", generation=2), True),
        ("made again under that name", "ADDED", parent("8", uid="v"), True),
        ("listed again after a reconnect", None, parent("8", uid="v"), False),
        ("replaced while the watch was broken", None, parent("9", uid="w"), True),
    ]
    assert [(name, known.changed(kind, obj)) for name, kind, obj, _ in events] == [(e[0], e[3]) for e in events]


def test_a_watch_that_is_late_by_two_checks_is_missed_and_one_that_follows_is_not() -> None:
    known = Known()
    known.changed(None, parent("1"))
    assert known.missed({"n/a": "1"}) == []
    # Newer in the list, not yet in the watch: it may be on its way.
    assert known.missed({"n/a": "2"}) == []
    known.changed("MODIFIED", parent("2"))
    # The watch has moved since, though the list is ahead again.
    assert known.missed({"n/a": "3"}) == []
    assert known.missed({"n/a": "4"}) == ["n/a"]
    known.changed("MODIFIED", parent("4"))
    assert known.missed({"n/a": "4"}) == []


def test_an_object_that_the_watch_never_showed_is_missed_at_the_second_check() -> None:
    known = Known()
    assert known.missed({"n/a": "1"}) == []
    assert known.missed({"n/a": "1"}) == ["n/a"]


def test_a_deletion_that_the_watch_did_not_show_is_found_by_the_list_once() -> None:
    known = Known()
    known.changed(None, parent(name="a"))
    known.changed(None, parent(name="b"))
    assert known.gone({"n/b": "1"}) == ["n/a"]
    assert known.gone({"n/b": "1"}) == []
    assert known.changed("ADDED", parent(name="a"))


def test_a_child_leads_to_its_deployment_by_its_label() -> None:
    child = {"metadata": {"namespace": "n", "name": "x", "labels": {"serving.aixcoder.io/deployment": "a"}}}
    assert parent_key_of(child) == "n/a"
    assert parent_key_of({"metadata": {"namespace": "n", "name": "x"}}) is None
