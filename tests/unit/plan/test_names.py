"""Names that running objects carry: they never change, and always fit."""

from __future__ import annotations

from typing import Any

import pytest

from aixcoder_operator.api.deployment import MAX_NAME_LENGTH
from aixcoder_operator.api.objects import Object, name
from aixcoder_operator.plan import names
from tests.unit.plan.simulator import Simulator

MOST = 63
RANDOM = 5
"""Characters that a ReplicaSet adds to a pod's name, after a hyphen."""
REVISION_HASH = 10
"""The most characters that a StatefulSet adds, after a hyphen, in its pods' label controller-revision-hash."""

GOLDEN: list[tuple[Any, int, str]] = [
    ({}, 0, "mx58ts"),
    ({"a": 1, "b": [1, 2]}, 0, "wwzpw6"),
    ({"b": [1, 2], "a": 1}, 0, "wwzpw6"),
    ({"b": [2, 1], "a": 1}, 0, "rckzjc"),
    ({}, 1, "9792lv"),
    ([{"model": {"source": {"image": {"reference": "ü"}}}}, "x"], 0, "q952b7"),
]


@pytest.mark.parametrize(("content", "salt", "expected"), GOLDEN)
def test_digest(content: Any, salt: int, expected: str) -> None:
    assert names.digest(content, salt) == expected


@pytest.mark.parametrize("number", [0, 1, 9, 10, 123])
def test_incarnations(number: int) -> None:
    unit = names.unit_name("demo-bcdfgh", number)
    assert names.incarnation_of(unit, "demo-bcdfgh") == number
    assert names.is_unit_of(unit, "demo-bcdfgh")


@pytest.mark.parametrize("unit", ["", "demo", "demo-bcdfg", "demo-bcdfgh-", "demo-bcdfgh-x", "demo-bcdfgh2", "other-1"])
def test_what_is_no_incarnation(unit: str) -> None:
    assert not names.is_unit_of(unit, "demo-bcdfgh")


@pytest.mark.parametrize(("head", "number"), [({}, 0), ({}, 9), ({}, 11), ({"storageClassName": "fast"}, 9)])
def test_names_of_the_children_of_the_longest_name_fit(head: Object, number: int) -> None:
    demo = Simulator()
    demo.create("d" * MAX_NAME_LENGTH, head=head)
    demo.run()
    for _ in range(number):
        if head:
            demo.world.delete("StatefulSet", names.head_name(demo.serving()))
        else:
            demo.lose_head()
        demo.run()
    assert demo.serving().endswith(f"-{number}") or number == 0
    longest = {"ReplicaSet": 1 + RANDOM, "StatefulSet": 1 + REVISION_HASH}
    for obj in demo.world.objects.values():
        assert len(name(obj)) + longest.get(obj["kind"], 0) <= MOST, f"{obj['kind']} {name(obj)}"
        assert all(len(value) <= MOST for value in obj["metadata"].get("labels", {}).values())
