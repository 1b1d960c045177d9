"""`AixcoderDeployment`, the custom resource: one code-completion service."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError

from aixcoder_operator.api.autoscaling import MAX_REPLICAS, Autoscaling
from aixcoder_operator.api.base import GROUP, Part, rule, ruled
from aixcoder_operator.api.engine import Engine
from aixcoder_operator.api.model import Model
from aixcoder_operator.api.operation import Completion, Rollout
from aixcoder_operator.api.resources import Head, WorkerResources
from aixcoder_operator.api.scheduling import Scheduling
from aixcoder_operator.api.status import DeploymentStatus
from aixcoder_operator.api.values import Timestamp
from aixcoder_operator.api.worker import Worker

MAX_NAME_LENGTH = 38
"""Longest metadata.name: names of its children add up to 25 characters to it and must fit a DNS label."""

RESTART_ANNOTATION = f"{GROUP}/restart"
"""Annotation of the resource; a new value that is not empty makes new replicas of the same spec."""


class DeploymentSpec(Part):
    """What is wished for. Fields left out have the defaults their descriptions name; they are never written back."""

    model_config = ruled(
        rule(
            "(has(self.engine) && has(self.engine.device) && self.engine.device == 'cpu')"
            " || (has(self.resources) && has(self.resources.gpu))",
            "engine.device cuda (the default) needs GPUs: add resources.gpu, or set engine.device to cpu",
        ),
        rule(
            "!(has(self.replicas) && has(self.autoscaling))",
            "replicas and autoscaling exclude each other: remove replicas to let the operator choose their number (its "
            "bounds are autoscaling.minReplicas and maxReplicas), or remove autoscaling to set it yourself",
        ),
    )

    model: Model = Field(description="Which weights are served, where they lie and what clients call them.")
    engine: Engine = Field(
        default=Engine(),
        description="How one replica runs the model. A change makes new replicas, which take over when they are ready.",
    )
    replicas: Annotated[int, Field(ge=0, le=MAX_REPLICAS)] | None = Field(
        default=None,
        description=(
            "Number of replicas: worker pods of engine.tensorParallelSize GPUs each. Absent: 1. 0 removes the "
            "workers and keeps the head. Write it where an autoscaler uses the scale subresource. Not beside "
            "autoscaling."
        ),
    )
    autoscaling: Autoscaling | None = Field(
        default=None,
        description=(
            "Present: the operator chooses the number of replicas by the requests that come and wait, and "
            "kubectl scale or a HorizontalPodAutoscaler are refused. Changed without new replicas of what runs."
        ),
    )
    resources: WorkerResources = Field(default=WorkerResources(), description="What each worker pod asks of its node.")
    scheduling: Scheduling = Field(
        default=Scheduling(), description="Which nodes the pods may run on, in the words of a pod."
    )
    worker: Worker = Field(
        default=Worker(),
        description="Labels, variables, volumes and pull secrets that a platform adds to the worker pods.",
    )
    head: Head = Field(
        default=Head(), description="The head pod of the Ray cluster. No request passes through it and it needs no GPU."
    )
    completion: Completion = Field(
        default=Completion(),
        description="What holds where a client's request says nothing. Changed without new replicas.",
    )
    rollout: Rollout = Field(
        default=Rollout(),
        description="Deadlines and history of changes that need new replicas. Changed without new replicas.",
    )
    suspend: bool | None = Field(
        default=None,
        description=(
            "true removes workers and head and frees their GPUs; the resource stays. false or absent brings them back."
        ),
    )


class Metadata(Part):
    """Of the object's metadata, what the operator reads."""

    name: str
    namespace: str
    uid: str
    generation: int = 0
    resource_version: str = ""
    labels: dict[str, str] = Field(default={})
    annotations: dict[str, str] = Field(default={})
    creation_timestamp: Timestamp | None = None
    deletion_timestamp: Timestamp | None = None

    @property
    def restart(self) -> str:
        """Value of the restart annotation, "" where there is none."""
        return self.annotations.get(RESTART_ANNOTATION, "")


class AixcoderDeployment(Part):
    """One code-completion service: a model on a number of replicas behind the gateway's URL."""

    api_version: Literal["serving.aixcoder.io/v1alpha1"] = "serving.aixcoder.io/v1alpha1"
    kind: Literal["AixcoderDeployment"] = "AixcoderDeployment"
    metadata: Metadata
    spec: DeploymentSpec
    status: DeploymentStatus = DeploymentStatus()


class UnreadableResourceError(ValueError):
    """A stored resource that the operator's types cannot read; the text names each field and what is wrong with it."""


def read(stored: dict[str, Any]) -> AixcoderDeployment:
    """An `AixcoderDeployment` from the object the API server returned.

    Raises UnreadableResourceError: stored under an older or newer CRD whose rules differ from these types.
    """
    try:
        return AixcoderDeployment.model_validate(stored)
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(str(step) for step in problem['loc'])}: {problem['msg']}" for problem in error.errors()
        )
        raise UnreadableResourceError(f"this operator cannot read the resource: {problems}") from error
