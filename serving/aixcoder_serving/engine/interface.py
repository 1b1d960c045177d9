"""What an engine is: `Engine` and the values that go in and come out. Implementations are chosen by their users."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol


@dataclass(frozen=True)
class EngineSettings:
    """How to run a model. Lengths are in tokens, prompt and completion together.

    dtype `auto` is the checkpoint's own, unless the processor is slow at it.
    """

    model_path: str
    device: Literal["cuda", "cpu"] = "cuda"
    dtype: Literal["auto", "bfloat16", "float16", "float32"] = "bfloat16"
    tensor_parallel_size: int = 1
    max_model_length: int = 32768
    max_concurrent_sequences: int = 64


@dataclass(frozen=True)
class Sampling:
    """How one request chooses tokens and stops. Temperature 0 is greedy; seed None is a new one for each request.

    A stop id ends the completion and is its last token. A stop string ends it too, across tokens as within one.
    """

    max_tokens: int = 256
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int | None = None
    stop_ids: frozenset[int] = frozenset()
    stop: tuple[str, ...] = ()


@dataclass(frozen=True)
class Delta:
    """New tokens. The last `held_bytes` bytes of all that was generated may be the start of a stop string."""

    token_ids: tuple[int, ...]
    held_bytes: int = 0


@dataclass(frozen=True)
class Finish:
    """How a generation ended. The last `trim_bytes` bytes begin with a stop string and are no part of the answer."""

    reason: Literal["stop", "length", "cancelled"]
    completion_tokens: int
    trim_bytes: int = 0
    cached_tokens: int = 0


@dataclass(frozen=True)
class EngineStats:
    """Gauges now (`running`, `waiting`) and counters since the start; `load_percent` is 100 once it can generate."""

    load_percent: int = 0
    running: int = 0
    waiting: int = 0
    completed: int = 0
    cancelled: int = 0
    failed: int = 0
    tokens_prefilled: int = 0
    tokens_decoded: int = 0


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

    def submit(self, prompt: Sequence[int], sampling: Sampling) -> Generation:
        """Queue a request, in an event loop. Raises `RequestRefused` or `EngineClosed`, having queued nothing."""
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
