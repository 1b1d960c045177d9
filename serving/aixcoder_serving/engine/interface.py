"""What an engine is: `Engine` and the values that go in and come out. Implementations are chosen by their users."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol


@dataclass(frozen=True)
class EngineSettings:
    """How to run a model. Lengths are in tokens, prompt and completion together.

    dtype `auto` is the checkpoint's own, unless the processor is slow at it. `step_budget_ms` bounds one step, and with
    it the time between two tokens and the time until a cancelled request is gone. `cache_tokens` None: what fits.
    `threads` None (cpu only): the cores less one, which is for HTTP and tokenising; shared between the ranks.
    """

    model_path: str
    device: Literal["cuda", "cpu"] = "cuda"
    dtype: Literal["auto", "bfloat16", "float16", "float32"] = "bfloat16"
    tensor_parallel_size: int = 1
    max_model_length: int = 32768
    max_concurrent_sequences: int = 64
    step_budget_ms: float = 50.0
    block_size: Literal[16, 32] = 16
    cache_tokens: int | None = None
    prefix_caching: bool = True
    drafting: bool = True
    threads: int | None = None


@dataclass(frozen=True)
class Sampling:
    """How one request chooses tokens and stops. Temperature 0 is greedy; seed None is a new one for each request.

    A stop id ends the completion and is its last token (`ignore_eos`: it does not end). A stop string ends it too,
    across tokens as within one. Penalties, bias and filters act in the order of vLLM: bias and `min_tokens`, penalties,
    temperature, min-p, top-k, top-p. `logprobs` n: of the chosen token and the n likeliest, of the model's own
    distribution. `prompt_logprobs` n: the same for each prompt token but the first; reads nothing from the cache.

    `first_line`: end at the first line that has more than white space. `n_indent`: end at the first later line that is
    indented by fewer white space characters. `deadline_ms` counts from submission, queueing included;
    `max_predict_ms` from the first token, and ends nothing before a line end was generated.

    `resumed`: the last tokens of the prompt that are the completion's first ones, generated elsewhere. What ends a
    completion by its text reads them too; lengths, penalties and seeds begin behind them.
    """

    max_tokens: int = 256
    min_tokens: int = 0
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    seed: int | None = None
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repetition_penalty: float = 1.0
    logit_bias: tuple[tuple[int, float], ...] = ()
    logprobs: int | None = None
    prompt_logprobs: int | None = None
    stop_ids: frozenset[int] = frozenset()
    ignore_eos: bool = False
    stop: tuple[str, ...] = ()
    first_line: bool = False
    n_indent: int = 0
    deadline_ms: float | None = None
    max_predict_ms: float | None = None
    resumed: int = 0


@dataclass(frozen=True)
class TokenLogprobs:
    """Natural logarithms of probabilities: of the token itself and of the likeliest ones, highest first."""

    token_id: int
    logprob: float
    top: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True)
class Delta:
    """New tokens. The last `held_bytes` bytes of all that was generated may be the start of a stop string.

    `logprobs` has one entry a token where they were asked for; `prompt_logprobs` come before the first token.
    `cached_tokens` of the prompt were found in the cache: with each the same.

    The first one comes with the first step of a request, with tokens or not; it alone tells `waited_ms`, the time from
    its submission to the beginning of that step.
    """

    token_ids: tuple[int, ...]
    held_bytes: int = 0
    logprobs: tuple[TokenLogprobs, ...] = ()
    prompt_logprobs: tuple[TokenLogprobs, ...] = ()
    cached_tokens: int = 0
    waited_ms: float | None = None


@dataclass(frozen=True)
class Finish:
    """How a generation ended. The last `trim_bytes` bytes begin with a stop string and are no part of the answer.

    `length` is also the end by a deadline: the answer is not complete.
    """

    reason: Literal["stop", "length", "cancelled"]
    completion_tokens: int
    trim_bytes: int = 0
    cached_tokens: int = 0


STEP_SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0)
"""Upper bounds of the step time histogram's buckets, in seconds; a last one has no bound."""


@dataclass(frozen=True)
class EngineStats:
    """Gauges now and counters since the start; `load_percent` is 100 once it can generate.

    `blocks_used` hold running requests, `blocks_cached` are free but still matchable. `prefix_hit_tokens` of
    `prefix_query_tokens` prompt tokens were not computed; `recomputed_evicted` were computed again because evicted.
    `step_seconds` counts steps by `STEP_SECONDS`, not cumulated. `prefill_waiting_ms`: what is left to compute of all
    prompts, by the engine's own measure of what a token costs, `prefill_ms_per_token`.

    `slots`: requests that it can run at once. `decode_ms_per_request`: by how many milliseconds one more running
    request, at position 2,048 or so, lengthens a step and with it everybody's next token, where the step takes longer
    than the reading of the weights; before that it costs less, up to nothing. Drafts are not counted. All of these are
    0 where they are not known yet.
    """

    load_percent: int = 0
    slots: int = 0
    running: int = 0
    waiting: int = 0
    prefill_waiting_ms: float = 0.0
    prefill_ms_per_token: float = 0.0
    decode_ms_per_request: float = 0.0
    submitted: int = 0
    completed: int = 0
    cancelled: int = 0
    failed: int = 0
    tokens_prefilled: int = 0
    tokens_decoded: int = 0
    blocks_total: int = 0
    blocks_used: int = 0
    blocks_cached: int = 0
    prefix_query_tokens: int = 0
    prefix_hit_tokens: int = 0
    recomputed_evicted: int = 0
    evictions: int = 0
    draft_tokens: int = 0
    draft_tokens_accepted: int = 0
    steps: int = 0
    step_seconds_sum: float = 0.0
    step_seconds: tuple[int, ...] = field(default=(0,) * (len(STEP_SECONDS) + 1))


class RequestRefused(ValueError):
    """A request that can never run; `parameter` names what is wrong with it. Nothing was scheduled."""

    def __init__(self, message: str, parameter: Literal["prompt", "max_tokens", "sampling"]) -> None:
        super().__init__(message)
        self.parameter = parameter


class GenerationFailed(RuntimeError):
    """One generation ended by a fault; others go on."""


class EngineClosed(RuntimeError):
    """The engine is not loaded, closed, or has lost its device."""


LoadFailure = Literal["ModelNotFound", "ModelInvalid", "OutOfMemory", "DeviceNotFound", "EngineFailed"]


class LoadFailed(RuntimeError):
    """The model could not be loaded: a reason for programs and a sentence for people."""

    def __init__(self, reason: LoadFailure, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class Generation(Protocol):
    """One request in an engine. Iterate it once, in the event loop in which it was submitted."""

    def __aiter__(self) -> AsyncIterator[Delta]:
        """Deltas as they come; a slow reader gets several merged into one. Raises `GenerationFailed`."""
        ...

    @property
    def finish(self) -> Finish | None:
        """How it ended, once the iteration has."""
        ...

    def cancel(self) -> None:
        """End it, queued or running, within one step. Callable from any thread, any number of times."""
        ...


class Engine(Protocol):
    """A model that completes token ids; constructed by `(settings, token_bytes)`, the bytes that each id stands for."""

    def load(self) -> None:
        """Load the model, in the calling thread. Raises `LoadFailed`."""
        ...

    def submit(
        self, prompt: Sequence[int], sampling: Sampling, *, draft: Sequence[int] = (), cache_salt: str = ""
    ) -> Generation:
        """Queue a request, in an event loop. Raises `RequestRefused` or `EngineClosed`, having queued nothing.

        `draft`: ids that the completion probably begins with; the output is the same without. Requests share cached
        prompts only where `cache_salt` is equal. For n samples submit n times, with seeds that differ: the prompt is
        computed once.
        """
        ...

    def stats(self) -> EngineStats:
        """What it does now and did so far; callable at any time from any thread, during `load` too."""
        ...

    @property
    def failure(self) -> str | None:
        """Why no request can succeed any more (its device is lost), or None."""
        ...

    def close(self) -> None:
        """Cancel all generations and free the model; returns when no thread or process of it is left."""
        ...
