"""One file a client family: its body becomes an `Ask`, the answer gets its shape. Nothing else knows the dialect."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from aixcoder_serving.gateway.problems import Problem
from aixcoder_serving.gateway.transcript import Piece
from aixcoder_serving.protocol import CompletionDefaults, CompletionRequest, ContextFile, Finished, Sampling

GREEDY = 0.02
"""Up to this temperature a completion is as good as greedy: Continue sends 0.01."""

Prompt = str | tuple[int, ...]
"""A text, or token ids that are run as they are."""


@dataclass(frozen=True, slots=True)
class Ask:
    """What a client asked for, in no dialect. None: the client did not say.

    `n` completions of each prompt, the likeliest of `best_of`. `echo`: the prompt stands before its completion.
    """

    prompts: tuple[Prompt, ...] = ()
    model: str | None = None
    stream: bool = False
    include_usage: bool = False
    n: int = 1
    best_of: int = 1
    echo: bool = False
    user: str | None = None
    suffix: str | None = None
    path: str | None = None
    context: tuple[ContextFile, ...] = ()
    post_process: bool = False
    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    seed: int | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    repetition_penalty: float | None = None
    logit_bias: tuple[tuple[int, float], ...] = ()
    logprobs: int | None = None
    stop: tuple[str, ...] = ()
    ignore_eos: bool | None = None
    n_indent: int | None = None
    max_predict_ms: float | None = None

    @property
    def samples(self) -> int:
        """Completions to compute of each prompt."""
        return max(self.n, self.best_of)


_SAMPLING = (
    "top_p",
    "top_k",
    "min_p",
    "presence_penalty",
    "frequency_penalty",
    "repetition_penalty",
    "logit_bias",
    "logprobs",
    "stop",
    "ignore_eos",
    "n_indent",
    "max_predict_ms",
)
"""Fields of an `Ask` that are `Sampling`'s too."""


def to_requests(ask: Ask, defaults: CompletionDefaults, request_id: str, cache_salt: str) -> list[CompletionRequest]:
    """The messages to replicas, all samples of a prompt together: what the client said, else the deployment's default.

    Samples of one prompt have seeds that follow each other, where the client gave one. A temperature that is as good as
    greedy is made greedy: such an answer is the same every time, and another replica can go on with it.
    """
    said = {name: value for name in _SAMPLING if (value := getattr(ask, name)) is not None}
    said["max_tokens"] = ask.max_tokens if ask.max_tokens is not None else defaults.max_tokens
    temperature = ask.temperature if ask.temperature is not None else defaults.temperature
    said["temperature"] = 0.0 if temperature is not None and temperature <= GREEDY else temperature
    if ask.echo and ask.logprobs is not None:
        said["prompt_logprobs"] = ask.logprobs
    if ask.best_of > ask.n and ask.logprobs is None:
        said["logprobs"] = 0  # what they are compared by
    sampling = Sampling.model_validate({name: value for name, value in said.items() if value is not None})
    single = len(ask.prompts) * ask.samples == 1
    requests: list[CompletionRequest] = []
    for prompt in ask.prompts:
        for sample in range(ask.samples):
            seed = None if ask.seed is None else _following(ask.seed, sample)
            requests.append(
                CompletionRequest(
                    id=request_id if single else f"{request_id}-{len(requests)}",
                    prefix=prompt if isinstance(prompt, str) else None,
                    prompt_token_ids=None if isinstance(prompt, str) else prompt,
                    suffix=ask.suffix,
                    path=ask.path,
                    context=ask.context,
                    post_process=ask.post_process,
                    sampling=sampling.model_copy(update={"seed": seed}),
                    cache_salt=cache_salt,
                )
            )
    return requests


def _following(seed: int, by: int) -> int:
    """64 bits, with a sign."""
    return (seed + by + 2**63) % 2**64 - 2**63


@dataclass(frozen=True, slots=True)
class Identity:
    """What every part of one answer repeats. `created` is in seconds since 1970."""

    id: str
    model: str
    created: int


@dataclass(frozen=True, slots=True)
class Model:
    """One line of a list of models. `max_length` is in tokens, prompt and completion together."""

    name: str
    created: int
    max_length: int | None


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of all completions of a request; a prompt counts once."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Answer:
    """One completion in one piece. `prompt` is the text that it completes, where it is to be echoed."""

    index: int
    piece: Piece
    finished: Finished
    prompt: str = ""


class Writer(Protocol):
    """Writes one answer. A stream has `stream_type`: any number of `delta`, and `finish` for each completion's end.

    Then comes `end`, or `broken` at any time.
    """

    stream_type: str

    def whole(self, answers: Sequence[Answer], usage: Usage) -> bytes:
        """The answer in one piece, as JSON."""

    def delta(self, index: int, piece: Piece) -> bytes:
        """A piece of a stream, of one of its completions."""

    def finish(self, index: int, finished: Finished) -> bytes:
        """The end of one of its completions."""

    def end(self, usage: Usage) -> bytes:
        """The end of a stream that is complete."""

    def broken(self, problem: Problem) -> bytes:
        """The end of a stream that is not complete: no client may take it for one that is."""


class Dialect(Protocol):
    """A client family. `patience_seconds`: how long its clients wait for an answer to begin."""

    name: str
    patience_seconds: float

    def parse(self, body: bytes) -> Ask:
        """Read a request's body.

        Raises:
            Problem: it cannot be served; the message says which field and what to send instead.

        """

    def writer(self, ask: Ask, identity: Identity) -> Writer:
        """The writer of this request's answer."""

    def error(self, problem: Problem) -> bytes:
        """The JSON body of an answer that is an error."""
