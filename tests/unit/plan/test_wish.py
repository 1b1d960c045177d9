"""How many replicas are wished for: by the spec, by what was decided, or as many as there are."""

from __future__ import annotations

from typing import Any

import pytest

from aixcoder_operator.api.deployment import read
from aixcoder_operator.api.status import AutoscalingStatus
from aixcoder_operator.plan.observed import Observed
from tests.unit.plan.simulator import spec_of
from tests.unit.plan.views import NOW


def seen(spec: dict[str, Any], status: dict[str, Any], decided: int | None) -> Observed:
    metadata = {"name": "demo", "namespace": "team", "uid": "u"}
    kind = {"apiVersion": "serving.aixcoder.io/v1alpha1", "kind": "AixcoderDeployment"}
    resource = {**kind, "metadata": metadata, "spec": spec_of(**spec), "status": status}
    told = None if decided is None else AutoscalingStatus(desired=decided)
    return Observed(read(resource), NOW, autoscaling=told)


def between(least: int | None, most: int) -> dict[str, Any]:
    return {"autoscaling": {"maxReplicas": most} | ({} if least is None else {"minReplicas": least})}


def told(desired: int) -> dict[str, Any]:
    return {"autoscaling": {"desired": desired}}


CASES: dict[str, tuple[dict[str, Any], dict[str, Any], int | None, int]] = {
    "by hand": ({"replicas": 3}, {}, None, 3),
    "by hand, not said": ({}, {}, None, 1),
    "by hand, none": ({"replicas": 0}, {}, None, 0),
    "by hand, whatever was decided once": ({"replicas": 3}, told(7), None, 3),
    "decided": (between(1, 10), {}, 4, 4),
    "decided, and status tells an older one": (between(1, 10), told(7), 4, 4),
    "told by status": (between(1, 10), told(7), None, 7),
    "told by status: zero": (between(0, 10), told(0), None, 0),
    "decided: zero": (between(0, 10), told(3), 0, 0),
    "a new one": (between(None, 10), {}, None, 1),
    "a new one that may go to zero has one": (between(0, 10), {}, None, 1),
    "a new one has its minimum": (between(3, 10), {}, None, 3),
    "scaled by hand before: as many as there are": (between(1, 10), {"replicas": 5}, None, 5),
    "scaled by hand before, to none": (between(0, 10), {"replicas": 0}, None, 1),
    "two revisions had pods": (between(1, 10), {"replicas": 12}, None, 10),
    "above a maximum that was lowered": (between(1, 3), told(7), 7, 3),
    "below a minimum that was raised": (between(3, 9), told(1), 1, 3),
    "zero, and it may be zero no more": (between(None, 9), told(0), None, 1),
}


@pytest.mark.parametrize("case", CASES)
def test_wish(case: str) -> None:
    spec, status, decided, replicas = CASES[case]
    assert seen(spec, status, decided).wish().replicas == replicas
