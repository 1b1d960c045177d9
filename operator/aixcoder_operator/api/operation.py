"""`spec.completion` and `spec.rollout`: what changes in place, without new replicas."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from aixcoder_operator.api.base import Part


class Completion(Part):
    """What holds where a client's request says nothing. Changed in place by the gateway: no replica restarts."""

    max_tokens: Annotated[int, Field(ge=1, le=32768)] | None = Field(
        default=None,
        description="Most tokens of a completion (default 256). The model usually stops earlier by itself.",
    )
    temperature: Annotated[float, Field(ge=0, le=2)] | None = Field(
        default=None,
        description=(
            "0 (the default): always the likeliest token, the same answer each time. Higher: more varied. At most 2."
        ),
    )


class Rollout(Part):
    """How a change that needs new replicas is brought in. Changed in place: no replica restarts."""

    progress_deadline_seconds: Annotated[int, Field(ge=1, le=86400)] | None = Field(
        default=None,
        description=(
            "Seconds in which a new revision must get ready, counted while its pods are scheduled (default 600). After "
            "that the old one keeps serving, the new one gives its GPUs back and the condition Stalled says why."
        ),
    )
    scheduling_deadline_seconds: Annotated[int, Field(ge=1, le=604800)] | None = Field(
        default=None,
        description=(
            "Seconds after which a revision that still waits for nodes or GPUs is told by the condition Stalled "
            "(default 600). It goes on waiting."
        ),
    )
    revision_history_limit: Annotated[int, Field(ge=0, le=100)] | None = Field(
        default=None, description="Old revisions that are kept as ControllerRevisions to look at (default 10)."
    )
