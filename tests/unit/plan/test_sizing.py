"""Scaling down by three observations; who goes; what Serve is told; when nothing moves."""

from __future__ import annotations

from dataclasses import replace

import pytest

from aixcoder_operator.api.objects import Object, name
from aixcoder_operator.plan.observed import ReplicaView, UnitView
from aixcoder_operator.plan.sizing import Sizing, choose_victims, is_settled, mark_patch, serve_replicas, size
from tests.unit.plan.views import NOW, pod, replica_set, unit, works

A, B, C = (pod(called, ready=True) for called in "abc")
NEW = pod("new")
HEAD = pod("head", ready=True)


def marked(called: str, seconds: float) -> Object:
    return pod(called, ready=True, marked=seconds)


SIZES: dict[str, tuple[UnitView, int, Sizing]] = {
    "as wished": (unit(A, B), 2, Sizing(2)),
    "up": (unit(A), 3, Sizing(3)),
    "up with a mark left over": (unit(marked("a", 99)), 3, Sizing(3, unmark=("a",))),
    "as wished with a mark left over": (unit(marked("a", 99), B), 2, Sizing(2, unmark=("a",))),
    "down: mark": (unit(A, B, C), 1, Sizing(3, mark=("a", "b"), settling=True)),
    "down: one more mark": (unit(marked("a", 99), B, C), 1, Sizing(3, mark=("b",), settling=True)),
    "down: the marks are young": (unit(marked("a", 99), marked("b", 1.9), C), 1, Sizing(3, settling=True)),
    "down: lower": (unit(marked("a", 99), marked("b", 2), C), 1, Sizing(1)),
    "lowered, not yet carried out: the marks stay": (unit(marked("a", 99), B, size=1), 1, Sizing(1)),
    "fewer pods than the ReplicaSet has yet to make": (unit(A, size=3), 1, Sizing(1)),
    "down: what is not made yet is not made": (unit(A, B, size=5), 1, Sizing(2, mark=("a",), settling=True)),
    "down: not ready goes in the place of one that was marked": (
        unit(marked("a", 99), B, NEW),
        2,
        Sizing(3, mark=("new",), unmark=("a",), settling=True),
    ),
    "down: lower, and spare one that was marked": (
        unit(marked("a", 99), B, pod("new", marked=2)),
        2,
        Sizing(2, unmark=("a",)),
    ),
    "down to nothing: nobody is chosen": (unit(A, B), 0, Sizing(0)),
    "nothing there": (UnitView("u", "u"), 2, Sizing(2)),
}


@pytest.mark.parametrize("case", SIZES)
def test_size(case: str) -> None:
    seen, wish, expected = SIZES[case]
    assert size(seen, wish, NOW) == expected


VICTIMS: dict[str, tuple[tuple[Object, ...], dict[str, ReplicaView], str]] = {
    "nobody told: by name": ((C, B, A), {}, "abc"),
    "the least work": ((A, B, C), {"a": works(3), "b": works(1), "c": works(2)}, "bca"),
    "waiting is work": ((A, B), {"a": works(1, 5), "b": works(2)}, "ba"),
    "who did not tell counts as busiest": ((A, B), {"b": works(99)}, "ba"),
    "not ready goes before idle": ((A, pod("z")), {"a": works(0)}, "za"),
    "not ready goes before marked": ((marked("m", 1), pod("z"), A), {"m": works(50)}, "zma"),
    "marked goes before idle": ((marked("m", 1), A), {"m": works(50), "a": works(0)}, "ma"),
    "without a node goes first": ((pod("n"), pod("z", node=False), A), {"a": works(0)}, "zna"),
    "without a node goes before marked": ((pod("m", marked=9), pod("z", node=False)), {}, "zm"),
    "of two that start the younger": ((pod("a", age=90), pod("z", age=9)), {}, "za"),
    "of two that idle the younger": (
        (pod("a", ready=True, age=90), pod("z", ready=True, age=9)),
        {"a": works(0), "z": works(0)},
        "za",
    ),
}


@pytest.mark.parametrize("case", VICTIMS)
def test_victims(case: str) -> None:
    workers, views, order = VICTIMS[case]
    for count in range(len(order) + 1):
        assert "".join(name(found) for found in choose_victims(workers, views, count)) == order[:count]


@pytest.mark.parametrize(
    ("workers", "wish", "told"),
    [((), 2, 2), ((A,), 3, 3), ((A, B, C), 1, 3), ((A,), 1, 1), ((A, pod("z")), 1, 2), ((), 0, 0)],
)
def test_serve_keeps_every_replica_whose_pod_stays(workers: tuple[Object, ...], wish: int, told: int) -> None:
    assert serve_replicas(unit(*workers), wish) == told


SETTLED = unit(A, B, head=HEAD, sets=replica_set(2, told=2))

MOVING: dict[str, tuple[UnitView, int, bool]] = {
    "settled": (SETTLED, 2, True),
    "wished more": (SETTLED, 3, False),
    "wished fewer": (SETTLED, 1, False),
    "one not ready": (replace(SETTLED, workers=(A, pod("b"))), 2, False),
    "one missing": (replace(SETTLED, workers=(A,)), 2, False),
    "one leaves": (replace(SETTLED, leaving=(C,)), 2, False),
    "no head": (replace(SETTLED, head=None), 2, False),
    "no ReplicaSet": (replace(SETTLED, replica_set=None), 2, False),
    "Serve was told another number": (replace(SETTLED, replica_set=replica_set(2, told=3)), 2, False),
    "Serve was told nothing": (replace(SETTLED, replica_set=replica_set(2)), 2, False),
    "none, and Serve was told nothing": (unit(head=HEAD), 0, True),
    "none, and Serve still runs some": (unit(head=HEAD, sets=replica_set(0, told=2)), 0, False),
}


@pytest.mark.parametrize("case", MOVING)
def test_is_settled(case: str) -> None:
    seen, wish, expected = MOVING[case]
    assert is_settled(seen, wish) is expected


def test_a_mark_is_a_cost_and_a_time_and_both_go_together() -> None:
    assert mark_patch(NOW) == {
        "controller.kubernetes.io/pod-deletion-cost": "-1000",
        "serving.aixcoder.io/victim-since": "2026-01-01T12:00:00+00:00",
    }
    assert set(mark_patch(NOW)) == set(mark_patch(None))
    assert set(mark_patch(None).values()) == {None}
