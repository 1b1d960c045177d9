"""What a replica is told at its start, and what it tells of itself."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from aixcoder_serving.protocol.message import REPLICA_PORT, Message, Versioned

Phase = Literal["starting", "loading", "ready", "draining", "failed"]
FailureReason = Literal["ModelNotFound", "ModelInvalid", "OutOfMemory", "DeviceNotFound", "EngineFailed"]


DEFAULT_MODEL_LENGTH = 32768
"""Tokens of prompt and completion that a replica takes, where the deployment does not say."""


class Readiness(Message):
    """Body of `GET /ready`: 200 where phase is `ready`, else 503."""

    phase: Phase
    percent: int = Field(default=0, ge=0, le=100)
    message: str = ""
    reason: FailureReason | None = None


class LoadReport(Versioned):
    """A line of `GET /events`: told when it changes, at most every 20 ms, and at least every second.

    The stream's end means that the replica is gone, or that its engine stands still.
    """

    number: int = Field(ge=0)
    """Rises by one with each report of this process."""
    slots: int = Field(ge=0)
    """Completions it can run at once."""
    running: int = Field(ge=0)
    waiting: int = Field(ge=0)
    """Accepted, and nothing of them is computed yet."""
    room: int = Field(ge=0)
    """Requests it would accept now; one more is refused with 429."""
    tokens: int = Field(ge=0)
    """Of all it accepted: prompts, and what their completions may grow to."""
    blocks_free: int = Field(ge=0)
    draining: bool = False
    steps: int = Field(ge=0)
    """Of the engine, since it started."""


class ReplicaStats(Message):
    """Body of `GET /stats`, field by field the engine's `EngineStats`: gauges now, counters since it started.

    The first ones tell what a replica can do, by its engine's own measure; each is 0 where it is not known yet.
    """

    load_percent: int = Field(default=0, ge=0, le=100)
    slots: int = Field(default=0, ge=0)
    """Completions it can run at once."""
    running: int = Field(default=0, ge=0)
    waiting: int = Field(default=0, ge=0)
    prefill_waiting_ms: float = Field(default=0.0, ge=0)
    prefill_ms_per_token: float = Field(default=0.0, ge=0)
    """What a token of a prompt takes that is computed and not found in the cache, in milliseconds."""
    decode_ms_per_request: float = Field(default=0.0, ge=0)
    """By how many milliseconds one more running request lengthens everybody's next token, its own included.

    It is that of a request whose prompt and completion so far have 2,048 tokens, at a replica that is busy enough for
    computing to take longer than reading the weights. With fewer requests it is less, up to nothing.
    """
    submitted: int = Field(default=0, ge=0)
    completed: int = Field(default=0, ge=0)
    cancelled: int = Field(default=0, ge=0)
    failed: int = Field(default=0, ge=0)
    tokens_prefilled: int = Field(default=0, ge=0)
    tokens_decoded: int = Field(default=0, ge=0)
    blocks_total: int = Field(default=0, ge=0)
    blocks_used: int = Field(default=0, ge=0)
    blocks_cached: int = Field(default=0, ge=0)
    prefix_query_tokens: int = Field(default=0, ge=0)
    prefix_hit_tokens: int = Field(default=0, ge=0)
    recomputed_evicted: int = Field(default=0, ge=0)
    evictions: int = Field(default=0, ge=0)
    draft_tokens: int = Field(default=0, ge=0)
    draft_tokens_accepted: int = Field(default=0, ge=0)
    steps: int = Field(default=0, ge=0)
    step_seconds_sum: float = Field(default=0.0, ge=0)
    step_seconds: tuple[Annotated[int, Field(ge=0)], ...] = ()
    """Steps by how long they took, not cumulated; the buckets' bounds are on `/metrics`."""


class ReplicaSettings(Message):
    """How to run one replica: the argument of the Ray Serve application, written by the operator.

    `threads` None: on cpu, the cores less one. `cache_tokens` None: what fits. `token_file`: who completes or listens
    to the load has to know the token in it; None: anybody, as on loopback.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    model_path: str
    device: Literal["cuda", "cpu"] = "cuda"
    dtype: Literal["auto", "bfloat16", "float16", "float32"] = "bfloat16"
    tensor_parallel_size: Literal[1, 2, 4, 8] = 1
    max_model_length: int = Field(default=DEFAULT_MODEL_LENGTH, ge=16)
    max_concurrent_sequences: int = Field(default=64, ge=1)
    threads: int | None = Field(default=None, ge=1)
    cache_tokens: int | None = Field(default=None, ge=16)
    step_budget_ms: float = Field(default=50.0, gt=0, allow_inf_nan=False)
    prefix_caching: bool = True
    drafting: bool = True
    port: int = Field(default=REPLICA_PORT, ge=0, le=65535)
    token_file: str | None = None
    shutdown_grace_seconds: float = Field(default=60.0, ge=0)
