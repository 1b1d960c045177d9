"""How long a start takes, from pods as reconcile sees them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from aixcoder_operator.api.objects import Object
from aixcoder_operator.scaling.cold_start import ColdStarts, Start

MADE = datetime(2026, 1, 1, 12, tzinfo=UTC)


def at(seconds: float) -> str:
    return (MADE + timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%SZ")


def pod(uid: str, *, made: float = 0, taken: float | None = 1, ready: bool = False, turned: float = 1) -> Object:
    """Made, taken by a node and turned ready or unready at these seconds. `taken` None: it has no node."""
    ready_condition = {"type": "Ready", "status": str(ready), "lastTransitionTime": at(turned)}
    return {
        "metadata": {"uid": uid, "creationTimestamp": at(made)},
        "status": {} if taken is None else {"startTime": at(taken), "conditions": [ready_condition]},
    }


@pytest.mark.parametrize(
    ("sights", "seconds"),
    [
        pytest.param([[pod("a", taken=None)], [pod("a")], [pod("a", ready=True, turned=40)]], 40, id="one start"),
        pytest.param([[pod("a", ready=True, turned=40)]], None, id="ready when first seen"),
        pytest.param([[pod("a")], [pod("a")]], None, id="not ready yet"),
        pytest.param([[pod("a")], []], None, id="gone before it was ready"),
        pytest.param(
            [[pod("a", turned=3600)], [pod("a", ready=True, turned=3610)]], None, id="unready again when first seen"
        ),
        pytest.param(
            [[pod("a")], [pod("a", ready=True, turned=40)], [pod("a", turned=99)], [pod("a", ready=True, turned=120)]],
            40,
            id="unready again, later",
        ),
        pytest.param([[pod("a")], [pod("a", turned=99)], [pod("a", ready=True, turned=120)]], None, id="ready unseen"),
        pytest.param(
            [[pod("a"), pod("b"), pod("c")], [pod(uid, ready=True, turned=after) for uid, after in
                                             (("a", 30), ("b", 40), ("c", 900))]],
            40,
            id="one that took long is not the rule",
        ),
        pytest.param(
            [
                sight
                for number, after in enumerate([100, 100, 100, 100, 20, 20, 20])
                for sight in ([pod(str(number))], [pod(str(number), ready=True, turned=after)])
            ],
            20,
            id="the last five count",
        ),
        pytest.param([[pod("a", made=50)], [pod("a", made=50, ready=True, turned=40)]], 0, id="clocks apart"),
        pytest.param(
            [[pod("a", taken=None)], [pod("a", taken=200, ready=True, turned=240)]], 240, id="a node was made for it"
        ),
        pytest.param(
            [[pod("a", taken=None)], [pod("a", taken=7200, ready=True, turned=7240)]], 340, id="no node for two hours"
        ),
    ],
)  # fmt: skip
def test_starts(sights: list[list[Object]], seconds: float | None) -> None:
    starts = ColdStarts(None)
    for sight in sights:
        starts.see(sight)
    assert starts.seconds == seconds


def test_what_was_measured_before_holds_until_a_start_is_seen() -> None:
    starts = ColdStarts(90)
    assert starts.see([pod("a")]) == []
    assert starts.whole_seconds == 90
    began, ended = MADE.timestamp(), MADE.timestamp() + 31
    assert starts.see([pod("a", ready=True, turned=31)]) == [Start(began, began + 1, ended)]
    assert starts.whole_seconds == 31
