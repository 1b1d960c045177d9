"""What the gateway reads of an `AixcoderDeployment`."""

from __future__ import annotations

from datetime import datetime

from pydantic import ConfigDict, Field
from pydantic.alias_generators import to_camel

from aixcoder_serving.protocol.message import Message


class ResourceView(Message):
    """Parts of a Kubernetes object: camelCase outside, snake_case inside."""

    model_config = ConfigDict(extra="ignore", frozen=True, alias_generator=to_camel, populate_by_name=True)


class CompletionDefaults(ResourceView):
    """`spec.completion`: what applies where a client says nothing. Changes in place."""

    max_tokens: int | None = None
    temperature: float | None = None


class Traffic(ResourceView):
    """`status.traffic`: which units get requests. A unit's name is the name of its headless Service.

    `version` rises by one with each change; a gateway's `/routes` names the version it acts on.
    """

    version: int = 0
    weights: dict[str, int] = Field(default_factory=dict)


class _ModelView(ResourceView):
    variant: str = "aixcoder-7b"
    served_name: str | None = None


class _EngineView(ResourceView):
    max_model_length: int | None = None


class _AutoscalingView(ResourceView):
    queue_time_target_ms: float = 200.0
    """For which a request may wait, where the deployment does not say."""


class _SpecView(ResourceView):
    model: _ModelView = _ModelView()
    engine: _EngineView = _EngineView()
    completion: CompletionDefaults = CompletionDefaults()
    autoscaling: _AutoscalingView = _AutoscalingView()


class _StatusView(ResourceView):
    traffic: Traffic = Traffic()


class _MetadataView(ResourceView):
    name: str
    namespace: str
    uid: str
    creation_timestamp: datetime


class DeploymentView(ResourceView):
    """What the gateway reads of an `AixcoderDeployment`."""

    metadata: _MetadataView
    spec: _SpecView = _SpecView()
    status: _StatusView = _StatusView()

    @property
    def served_name(self) -> str:
        """The model name clients ask for: `spec.model.servedName`, else `metadata.name`."""
        return self.spec.model.served_name or self.metadata.name
