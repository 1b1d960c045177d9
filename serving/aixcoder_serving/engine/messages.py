"""Between the replica's process and the engine's, over one socket: both run the same version of this file."""

from __future__ import annotations

from dataclasses import dataclass

from aixcoder_serving.engine.interface import EngineSettings, EngineStats, Finish, LoadFailure, Sampling, TokenLogprobs


@dataclass(frozen=True, slots=True)
class Start:
    """The first message to an engine process. `token_bytes`: what each id stands for."""

    settings: EngineSettings
    token_bytes: tuple[bytes, ...]
    threads: int


@dataclass(frozen=True, slots=True)
class Submit:
    """Queue a request, which is valid. Ids are the client's, never used twice."""

    request_id: int
    prompt: tuple[int, ...]
    sampling: Sampling
    draft: tuple[int, ...]
    cache_salt: str


@dataclass(frozen=True, slots=True)
class Cancel:
    """End a request, which may have ended by itself."""

    request_id: int


@dataclass(frozen=True, slots=True)
class Close:
    """End the process."""


@dataclass(frozen=True, slots=True)
class Loading:
    """How far loading is."""

    percent: int


@dataclass(frozen=True, slots=True)
class Loaded:
    """The engine takes requests."""

    vocabulary_size: int
    cache_tokens: int
    dtype: str
    stats: EngineStats


@dataclass(frozen=True, slots=True)
class NotLoaded:
    """Loading failed; the process ends."""

    reason: LoadFailure
    message: str


@dataclass(frozen=True, slots=True)
class Output:
    """What one request got in one step. `finish` or `error` is its last; `cached_tokens` is told with tokens.

    `waited_ms`, from its arrival to its first step, is told with that one, which has an output in any case.
    """

    request_id: int
    token_ids: tuple[int, ...] = ()
    held_bytes: int = 0
    logprobs: tuple[TokenLogprobs, ...] = ()
    prompt_logprobs: tuple[TokenLogprobs, ...] = ()
    finish: Finish | None = None
    error: str | None = None
    cached_tokens: int = 0
    waited_ms: float | None = None


@dataclass(frozen=True, slots=True)
class Stepped:
    """What came of a step, or of a submission or cancellation. `failure`: no request can succeed any more."""

    outputs: tuple[Output, ...]
    stats: EngineStats
    failure: str | None = None


ToEngine = Start | Submit | Cancel | Close
FromEngine = Loading | Loaded | NotLoaded | Stepped
