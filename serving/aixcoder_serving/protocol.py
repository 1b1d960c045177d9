"""The messages between the programs: gateway ↔ replica, operator → replica, and what the gateway reads of a resource.

A replica answers `POST /generate` (body: `CompletionRequest`) with NDJSON: one `Started`, any number of `Delta`, then
one `Finished` or `Failed`. A stream that ends without either was cut. Every message is validated where it enters a
process.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, model_validator
from pydantic.alias_generators import to_camel

PROTOCOL_VERSION = 1
"""Raised when a message changes its meaning; a gateway speaks this version and the one before."""

REPLICA_PORT = 30000
"""The pod port on which a replica listens: `/generate`, `/ready`, `/stats`, `/metrics`."""


class Message(BaseModel):
    """Base of all messages: unknown fields are ignored, so that an older peer understands a newer one.

    Its errors hold no input: that may be a user's code, and errors are logged.
    """

    model_config = ConfigDict(extra="ignore", frozen=True, hide_input_in_errors=True)


TokenId = Annotated[int, Field(ge=0)]
Penalty = Annotated[float, Field(ge=-2.0, le=2.0, allow_inf_nan=False)]
Milliseconds = Annotated[float, Field(gt=0.0, allow_inf_nan=False)]
Likeliest = Annotated[int, Field(ge=0, le=20)]


class Sampling(Message):
    """How to choose tokens and when to stop. Temperature 0 is greedy; a seed that is None is a new one each time.

    Bias, penalties and filters act in the order of vLLM: bias and `min_tokens`, penalties, temperature, min-p, top-k,
    top-p. `top_k` 0: all tokens. `logprobs` n: those of each token and of the n likeliest in its place, of the model's
    own distribution; `prompt_logprobs` n: the same for each token of the prompt but the first.

    The text ends before a stop string; with `first_line` at the end of the first line that has more than white space;
    with `n_indent` at the first later line that is indented by fewer characters. A token of `stop_token_ids` ends it as
    the model's own end does, which `ignore_eos` takes away. `deadline_ms` counts from the replica's acceptance and ends
    it wherever it is; `max_predict_ms` from the first token, once a line is complete.
    """

    max_tokens: int = Field(default=256, ge=0)
    min_tokens: int = Field(default=0, ge=0)
    temperature: float = Field(default=0.0, ge=0.0, le=2.0, allow_inf_nan=False)
    top_p: float = Field(default=1.0, gt=0.0, le=1.0, allow_inf_nan=False)
    top_k: int = Field(default=0, ge=0)
    min_p: float = Field(default=0.0, ge=0.0, le=1.0, allow_inf_nan=False)
    seed: int | None = Field(default=None, ge=-(2**63), lt=2**63)
    presence_penalty: Penalty = 0.0
    frequency_penalty: Penalty = 0.0
    repetition_penalty: float = Field(default=1.0, gt=0.0, allow_inf_nan=False)
    logit_bias: tuple[tuple[TokenId, Annotated[float, Field(ge=-100.0, le=100.0, allow_inf_nan=False)]], ...] = Field(
        default=(), max_length=1024
    )
    logprobs: Likeliest | None = None
    prompt_logprobs: Likeliest | None = None
    stop: tuple[Annotated[str, Field(min_length=1, max_length=256)], ...] = Field(default=(), max_length=16)
    stop_token_ids: tuple[TokenId, ...] = Field(default=(), max_length=1024)
    ignore_eos: bool = False
    first_line: bool = False
    n_indent: int = Field(default=0, ge=0)
    deadline_ms: Milliseconds | None = None
    max_predict_ms: Milliseconds | None = None


class CompletionRequest(Message):
    """What is before and after the cursor, or token ids as they are.

    Exactly one of `prefix` and `prompt_token_ids` is set. `suffix` None: plain continuation (`<s>` + prefix); "" or
    more: fill in the middle. Token ids are run untouched, no bos is added, and they exclude `suffix`.

    `post_process`: the text is fit to go in at the cursor as it is. Where an editor closed brackets or quotes behind
    it, the model is left to write the rest of the cursor's line, and that is taken off. Without it, prompt and text are
    the reference's own.

    `draft_token_ids`: what the completion probably begins with, such as what is left of the editor's last one; a right
    guess is fast, a wrong one changes nothing. Only requests with the same `cache_salt` share what is computed of a
    common beginning.
    """

    version: int = PROTOCOL_VERSION
    id: str = Field(min_length=1, max_length=128)
    prefix: str | None = None
    suffix: str | None = None
    prompt_token_ids: tuple[TokenId, ...] | None = None
    path: str | None = Field(default=None, max_length=4096)
    language: str | None = Field(default=None, max_length=64)
    order: Literal["spm", "psm"] = "spm"
    post_process: bool = False
    sampling: Sampling = Sampling()
    draft_token_ids: tuple[TokenId, ...] = ()
    cache_salt: str = Field(default="", max_length=256)

    @model_validator(mode="after")
    def _one_prompt(self) -> CompletionRequest:
        if (self.prefix is None) == (self.prompt_token_ids is None):
            raise ValueError("exactly one of prefix and prompt_token_ids must be given")
        if self.prompt_token_ids is not None and self.suffix is not None:
            raise ValueError("suffix goes with a text prompt: token ids are run as they are")
        return self


FinishReason = Literal["stop", "length"]


class Started(Message):
    """The prompt was accepted and has `prompt_tokens` tokens; `truncated` where context was cut to fit."""

    type: Literal["started"] = "started"
    version: int = PROTOCOL_VERSION
    prompt_tokens: int = Field(ge=0)
    truncated: bool = False


class LikelyToken(Message):
    """A token, what it adds to the text, and the natural logarithm of its probability.

    What are no whole characters of the text, bytes of a longer one, is U+FFFD; special tokens add nothing.
    """

    token_id: int
    text: str
    logprob: float


class TokenLogprobs(LikelyToken):
    """A token of the prompt or the completion, with the likeliest ones in its place, the likeliest first."""

    top: tuple[LikelyToken, ...] = ()


class Delta(Message):
    """Newly generated tokens and the text they add; text may lag behind while bytes of a character are missing.

    `logprobs` has one entry for each token where they were asked for; `prompt_logprobs` come before the first token.
    """

    type: Literal["delta"] = "delta"
    text: str
    token_ids: tuple[int, ...]
    logprobs: tuple[TokenLogprobs, ...] = ()
    prompt_logprobs: tuple[TokenLogprobs, ...] = ()


class Finished(Message):
    """The completion ended as it should. `completion_tokens` counts the stop token, where one ended it."""

    type: Literal["finished"] = "finished"
    finish_reason: FinishReason
    prompt_tokens: int = Field(ge=0)
    completion_tokens: int = Field(ge=0)
    cached_tokens: int = Field(default=0, ge=0)


class Failed(Message):
    """The completion failed after it had started; `status` is the HTTP status it would have had."""

    type: Literal["failed"] = "failed"
    status: int = Field(ge=400, le=599)
    message: str


StreamMessage = Annotated[Started | Delta | Finished | Failed, Field(discriminator="type")]
STREAM_MESSAGE: TypeAdapter[Started | Delta | Finished | Failed] = TypeAdapter(StreamMessage)


class Refused(Message):
    """Body of a 4xx or 5xx answer of a replica: what was wrong, where, and what to do."""

    message: str
    param: str | None = None


Phase = Literal["starting", "loading", "ready", "draining", "failed"]
FailureReason = Literal["ModelNotFound", "ModelInvalid", "OutOfMemory", "DeviceNotFound", "EngineFailed"]


class Readiness(Message):
    """Body of `GET /ready`: 200 where phase is `ready`, else 503."""

    phase: Phase
    percent: int = Field(default=0, ge=0, le=100)
    message: str = ""
    reason: FailureReason | None = None


class ReplicaStats(Message):
    """Body of `GET /stats`, field by field the engine's `EngineStats`: gauges now, counters since it started."""

    load_percent: int = Field(default=0, ge=0, le=100)
    running: int = Field(default=0, ge=0)
    waiting: int = Field(default=0, ge=0)
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

    `threads` None: on cpu, the cores less one. `cache_tokens` None: what fits.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    model_path: str
    device: Literal["cuda", "cpu"] = "cuda"
    dtype: Literal["auto", "bfloat16", "float16", "float32"] = "bfloat16"
    tensor_parallel_size: Literal[1, 2, 4, 8] = 1
    max_model_length: int = Field(default=32768, ge=16)
    max_concurrent_sequences: int = Field(default=64, ge=1)
    threads: int | None = Field(default=None, ge=1)
    cache_tokens: int | None = Field(default=None, ge=16)
    step_budget_ms: float = Field(default=50.0, gt=0, allow_inf_nan=False)
    prefix_caching: bool = True
    drafting: bool = True
    port: int = Field(default=REPLICA_PORT, ge=0, le=65535)
    shutdown_grace_seconds: float = Field(default=60.0, ge=0)


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


class _SpecView(ResourceView):
    model: _ModelView = _ModelView()
    engine: _EngineView = _EngineView()
    completion: CompletionDefaults = CompletionDefaults()


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


class Route(Message):
    """What one gateway does for one deployment."""

    namespace: str
    name: str
    uid: str
    served_name: str
    traffic_version: int
    endpoints: dict[str, tuple[str, ...]]
    """Unit → ready endpoints as `ip:port`."""


class Routes(Message):
    """Body of a gateway's `GET /routes` on its internal port: what it acts on now."""

    routes: tuple[Route, ...] = ()
