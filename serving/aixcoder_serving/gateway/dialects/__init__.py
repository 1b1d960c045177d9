"""One file a client family: its body becomes an `Ask`, the answer gets its shape. Nothing else knows the dialect."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from aixcoder_serving.gateway.problems import Problem
from aixcoder_serving.protocol import CompletionDefaults, CompletionRequest, Finished, Sampling


@dataclass(frozen=True, slots=True)
class Ask:
    """What a client asked for, in no dialect. None: the client did not say."""

    model: str | None = None
    stream: bool = False
    include_usage: bool = False
    prefix: str | None = None
    suffix: str | None = None
    prompt_token_ids: tuple[int, ...] | None = None
    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    seed: int | None = None
    stop: tuple[str, ...] = ()
    ignore_eos: bool | None = None


def to_request(ask: Ask, defaults: CompletionDefaults, request_id: str) -> CompletionRequest:
    """The message to a replica: what the client said, else the deployment's default, else the protocol's."""
    said = {
        "max_tokens": ask.max_tokens if ask.max_tokens is not None else defaults.max_tokens,
        "temperature": ask.temperature if ask.temperature is not None else defaults.temperature,
        "top_p": ask.top_p,
        "seed": ask.seed,
        "stop": ask.stop,
        "ignore_eos": ask.ignore_eos,
    }
    return CompletionRequest(
        id=request_id,
        prefix=ask.prefix,
        suffix=ask.suffix,
        prompt_token_ids=ask.prompt_token_ids,
        sampling=Sampling.model_validate({name: value for name, value in said.items() if value is not None}),
    )


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


class Writer(Protocol):
    """Writes one answer. A stream is any number of `delta`, then `end` or `broken`, and has `stream_type`."""

    stream_type: str

    def whole(self, text: str, finished: Finished) -> bytes:
        """The answer in one piece, as JSON."""

    def delta(self, text: str) -> bytes:
        """A piece of a stream."""

    def end(self, finished: Finished) -> bytes:
        """The end of a stream that is complete."""

    def broken(self, problem: Problem) -> bytes:
        """The end of a stream that is not complete: no client may take it for one that is."""


class Dialect(Protocol):
    """A client family."""

    name: str

    def parse(self, body: bytes) -> Ask:
        """Read a request's body.

        Raises:
            Problem: it cannot be served; the message says which field and what to send instead.

        """

    def writer(self, ask: Ask, identity: Identity) -> Writer:
        """The writer of this request's answer."""

    def error(self, problem: Problem) -> bytes:
        """The JSON body of an answer that is an error."""
