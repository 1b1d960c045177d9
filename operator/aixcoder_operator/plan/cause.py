"""Why the unit that a rollout goes to is not ready, remembered over the moments in which nobody can say it."""

from __future__ import annotations

import re
from datetime import datetime
from typing import get_args

from aixcoder_operator.api.defaults import Effective
from aixcoder_operator.api.status import DeploymentStatus
from aixcoder_operator.plan.diagnosis import STARTING, GpuRequest, Reason, why_not_ready
from aixcoder_operator.plan.observed import UnitView
from aixcoder_serving.protocol import FailureReason

_SAID_BY_REPLICAS = frozenset({*get_args(FailureReason), "ReplicaCrashed"})
_BEFORE_THE_CAUSE = re.compile(r"(\d+ of \d+ ready: |not ready within \d+ s: )*")
"""What `conditions` and `lateness` put before a cause."""


def cause_of(unit: UnitView, wish: Effective, status: DeploymentStatus, now: datetime) -> Reason | None:
    """Why `unit` has fewer ready replicas than wished; None where it has them.

    A replica whose start failed says why for some seconds; then its process is replaced, and until the next one says
    something there is only silence. What status tells holds for that long.
    """
    if len(unit.ready) >= wish.replicas:
        return None
    found = why_not_ready(unit, wish.replicas, GpuRequest(wish.gpu_resource, wish.gpus_per_pod), now)
    of_this = status.rollout.target == unit.name and status.rollout.failed is None
    return (_told(status) if of_this and found.reason == STARTING else None) or found


def _told(status: DeploymentStatus) -> Reason | None:
    for type_ in ("Stalled", "Reconciling", "Ready"):
        told = status.condition(type_)
        if told is not None and told.reason in _SAID_BY_REPLICAS:
            message = _BEFORE_THE_CAUSE.sub("", told.message, count=1).removeprefix(f"{told.reason}: ")
            return Reason(told.reason, message)
    return None
