"""What keeps a spec that the API server accepted from being followed: what it refers to is not there, or is taken."""

from __future__ import annotations

from aixcoder_operator.api import cron
from aixcoder_operator.plan.diagnosis import Reason
from aixcoder_operator.plan.observed import Observed


def missing(observed: Observed) -> Reason | None:
    """What the spec refers to and is not there."""
    source = observed.deployment.spec.model.source.persistent_volume_claim
    if source is None or observed.children.claim is not None:
        return None
    return Reason(
        "ClaimNotFound",
        f"spec.model.source.persistentVolumeClaim: there is no claim {source.claim_name} in namespace "
        f"{observed.deployment.metadata.namespace}; create it, or name another",
    )


def conflict(observed: Observed) -> Reason | None:
    """Whose model name this one claims, where an older deployment has it."""
    if observed.name_taken_by is None:
        return None
    own = observed.deployment.spec.model.served_name
    field = "metadata.name" if own is None else "spec.model.servedName"
    return Reason(
        "NameConflict",
        f"{field}: the model name {own or observed.deployment.metadata.name} belongs to {observed.name_taken_by}, "
        "which is older and gets its requests: write another spec.model.servedName here, or delete that one",
    )


def unfollowed(observed: Observed) -> Reason | None:
    """The moment of a schedule that names none here: time zones are the API server's there and the operator's here."""
    autoscaling = observed.deployment.spec.autoscaling
    for index, entry in enumerate(autoscaling.schedule if autoscaling else ()):
        for field, expression in (("start", entry.start), ("end", entry.end)):
            wrong = cron.problem(expression, entry.time_zone or cron.DEFAULT_ZONE)
            if wrong is not None:
                place = f"spec.autoscaling.schedule[{index}].{field}"
                return Reason("ScheduleNotFollowed", f"{place}: {wrong}; its minimum does not hold until it is changed")
    return None
