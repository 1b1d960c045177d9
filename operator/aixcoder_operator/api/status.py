"""`status`: what the operator found and decided. Written when something changed, never each second."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator

from aixcoder_operator.api.base import Kube, Part
from aixcoder_operator.api.values import Timestamp

ConditionType = Literal["Ready", "Reconciling", "Stalled", "Valid"]
ConditionStatus = Literal["True", "False", "Unknown"]

MAX_MESSAGE = 4096
"""Characters of a condition's message; what is longer is cut, so that no error text can block a status write."""
MAX_REASON = 512
"""Characters of a scaling decision's reason, likewise."""

_Name = Annotated[str, Field(max_length=63)]
_Count = Annotated[int, Field(ge=0, le=100000)]


def _cut(value: object, longest: int) -> object:
    if isinstance(value, str) and len(value) > longest:
        return value[: longest - 1] + "…"
    return value


class Condition(Part):
    """One condition as `kubectl wait`, Helm and kstatus read it."""

    type: ConditionType = Field(
        description=(
            "Ready: a replica answers requests, or none is wished for. Reconciling: a change is being brought in. "
            "Stalled: it does not get on. Valid: what the spec refers to is there."
        )
    )
    status: ConditionStatus = Field(description="Whether it holds: True, False or Unknown.")
    reason: Annotated[str, Field(min_length=1, max_length=128)] = Field(
        description="One word for programs, as InsufficientGPU, ModelLoading, ImagePullFailed, Suspended."
    )
    message: Annotated[str, Field(max_length=MAX_MESSAGE)] = Field(
        default="", description="A sentence for people: what is the case and what to do."
    )
    last_transition_time: Timestamp = Field(description="When status last changed.")
    observed_generation: Annotated[int, Field(ge=0)] | None = Field(
        default=None, description="metadata.generation that this condition was found for."
    )

    @field_validator("message", mode="before")
    @classmethod
    def _fits(cls, value: object) -> object:
        return _cut(value, MAX_MESSAGE)


class RevisionStatus(Part):
    """One incarnation of a revision that has pods, by the name of its worker Service."""

    name: _Name = Field(description="Its name: its head is <name>-head, its ReplicaSet and worker Service <name>.")
    replicas: _Count = Field(description="Worker pods that exist.")
    ready: _Count = Field(description="Worker pods that are ready.")


class TrafficStatus(Part):
    """Which revisions get requests: what gateways act on."""

    version: Annotated[int, Field(ge=0)] = Field(
        default=0, description="Rises by one with each change; a gateway's /routes names the version it acts on."
    )
    weights: Annotated[dict[str, Annotated[int, Field(ge=0, le=100)]], Field(max_length=16)] = Field(
        default={}, description="Name of a worker Service → percent of the requests."
    )


class RolloutStatus(Part):
    """How far a change has got."""

    stable: _Name | None = Field(
        default=None,
        description="Revision that last got ready: it has the traffic, or comes back with it from zero replicas.",
    )
    target: _Name | None = Field(default=None, description="Revision that the spec asks for.")
    failed: _Name | None = Field(
        default=None,
        description="Revision that did not get ready in time; tried again only when spec or restart annotation change.",
    )
    phase: Annotated[str, Field(max_length=64)] | None = Field(
        default=None, description="Step that the rollout is at, one word."
    )
    step_started: Timestamp | None = Field(default=None, description="When that step began.")


class ScalingDecision(Part):
    """The last change of the number of replicas."""

    time: Timestamp = Field(description="When autoscaling.desired last changed.")
    reason: Annotated[str, Field(max_length=MAX_REASON)] = Field(
        default="", description="Why, in numbers: what waited, what arrived, how many replicas that needs."
    )

    @field_validator("reason", mode="before")
    @classmethod
    def _fits(cls, value: object) -> object:
        return _cut(value, MAX_REASON)


class AutoscalingStatus(Part):
    """What the operator's scaling has decided. Written when a decision changes, not when the load does."""

    desired: _Count = Field(description="Replicas that are wished for now.")
    hold_until: Timestamp | None = Field(default=None, description="Before this time nothing is scaled down.")
    last_decision: ScalingDecision | None = Field(default=None, description="When and why desired last changed.")
    cold_start_seconds: Annotated[int, Field(ge=0, le=86400)] | None = Field(
        default=None, description="Seconds from a pod that is asked for to its ready replica, as last measured."
    )
    margin_percent: Annotated[int, Field(ge=-100, le=100)] | None = Field(
        default=None,
        description="By how much more than the formula asks for is needed, as learned up to the last decision.",
    )


class DeploymentStatus(Part):
    """What the operator found and decided."""

    observed_generation: Annotated[int, Field(ge=-1)] = Field(
        default=-1, description="metadata.generation that the operator has acted on; -1 before it has looked."
    )
    conditions: Annotated[tuple[Condition, ...], Field(max_length=8), Kube(map_keys=("type",))] = Field(
        default=(),
        description="Ready, Valid, and while they hold Reconciling and Stalled, each with a reason and a sentence.",
    )
    replicas: _Count | None = Field(default=None, description="Worker pods that exist, of all revisions.")
    ready_replicas: _Count | None = Field(default=None, description="Worker pods that are ready, of all revisions.")
    selector: Annotated[str, Field(max_length=512)] | None = Field(
        default=None, description="Label selector of the worker pods, for the scale subresource."
    )
    revisions: Annotated[tuple[RevisionStatus, ...], Field(max_length=32), Kube(map_keys=("name",))] = Field(
        default=(), description="Revisions that have pods now."
    )
    traffic: TrafficStatus = Field(default=TrafficStatus(), description="Which revisions get requests.")
    rollout: RolloutStatus = Field(default=RolloutStatus(), description="How far a change has got.")
    autoscaling: AutoscalingStatus | None = Field(
        default=None, description="What the operator's scaling has decided; only with spec.autoscaling."
    )
    endpoint: Annotated[str, Field(max_length=512)] | None = Field(
        default=None, description="Base URL inside the cluster that clients use, with /v1/completions beneath it."
    )

    def condition(self, type_: ConditionType) -> Condition | None:
        """The condition of that type, None where it is not set."""
        return next((condition for condition in self.conditions if condition.type == type_), None)
