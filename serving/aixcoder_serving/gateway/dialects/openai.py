"""OpenAI's `/v1/completions`, with the `suffix` that makes it fill in the middle, and `/v1/models`."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from aixcoder_serving.gateway.dialects import Ask, Identity, Model, Writer
from aixcoder_serving.gateway.problems import Problem, invalid
from aixcoder_serving.protocol import Finished

_TOKEN_ID_END = 2**31


class _StreamOptions(BaseModel):
    model_config = ConfigDict(extra="ignore")

    include_usage: bool | None = None


class _Body(BaseModel):
    """The fields that mean something here. null is as good as absent; unknown fields are tolerated."""

    model_config = ConfigDict(extra="ignore")

    model: Annotated[str, Field(max_length=1024)] | None = None
    prompt: Any = None
    suffix: str | None = None
    max_tokens: Annotated[int, Field(ge=0, lt=2**31)] | None = None
    temperature: Annotated[float, Field(ge=0, le=2, allow_inf_nan=False)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)] | None = None
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] | None = None
    stop: str | list[str] | None = None
    ignore_eos: bool | None = None  # vLLM's: for measuring
    stream: bool | None = None
    stream_options: _StreamOptions | None = None
    n: int | None = None
    best_of: int | None = None
    echo: bool | None = None
    logprobs: Any = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    logit_bias: dict[str, float] | None = None


_EXPECTED = {
    "model": "a string of at most 1024 characters",
    "suffix": "a string",
    "max_tokens": "an integer from 0 up",
    "temperature": "a number from 0 to 2",
    "top_p": "a number above 0, at most 1",
    "seed": "a 64-bit integer",
    "stop": "a string or a list of at most 16 strings, each of 1 to 256 characters",
    "ignore_eos": "true or false",
    "stream": "true or false",
    "stream_options": 'an object such as {"include_usage": true}',
    "n": "an integer",
    "best_of": "an integer",
    "echo": "true or false",
    "presence_penalty": "a number",
    "frequency_penalty": "a number",
    "logit_bias": "an object of token id to number",
}


class OpenAI:
    """The dialect of OpenAI's legacy completions, which most plug-ins speak."""

    name = "openai"

    def parse(self, body: bytes) -> Ask:
        """Read the body of `POST /v1/completions`; see `Dialect.parse`."""
        try:
            fields = _Body.model_validate_json(body)
        except ValidationError as error:
            raise _sentence(error) from None
        _refuse_what_is_not_built(fields)
        prefix, token_ids = _prompt(fields.prompt)
        if token_ids is not None and fields.suffix is not None:
            raise invalid("`suffix` goes with a text `prompt`: token ids are run as they are.", "suffix")
        return Ask(
            model=fields.model,
            stream=bool(fields.stream),
            include_usage=bool(fields.stream_options and fields.stream_options.include_usage),
            prefix=prefix,
            suffix=fields.suffix,
            prompt_token_ids=token_ids,
            max_tokens=fields.max_tokens,
            temperature=fields.temperature,
            top_p=fields.top_p,
            seed=fields.seed,
            stop=_stop(fields.stop),
            ignore_eos=fields.ignore_eos,
        )

    def writer(self, ask: Ask, identity: Identity) -> Writer:
        """The writer of one completion."""
        return _Writer(identity, include_usage=ask.include_usage)

    def error(self, problem: Problem) -> bytes:
        """OpenAI's error object."""
        kind = "invalid_request_error" if problem.status < 500 else "server_error"
        error = {"message": problem.message, "type": kind, "param": problem.param, "code": problem.code}
        return _json({"error": error})

    def models(self, models: Iterable[Model]) -> bytes:
        """The body of `GET /v1/models`."""
        return _json({"object": "list", "data": [_model(model) for model in models]})


class _Writer:
    stream_type = "text/event-stream; charset=utf-8"

    def __init__(self, identity: Identity, *, include_usage: bool) -> None:
        self._identity = identity
        self._include_usage = include_usage

    def whole(self, text: str, finished: Finished) -> bytes:
        return _json(self._object([_choice(text, finished.finish_reason)], usage=_usage(finished)))

    def delta(self, text: str) -> bytes:
        return self._chunk(_choice(text, None))

    def end(self, finished: Finished) -> bytes:
        parts = [self._chunk(_choice("", finished.finish_reason))]
        if self._include_usage:
            parts.append(_event(self._object([], usage=_usage(finished))))
        return b"".join([*parts, b"data: [DONE]\n\n"])

    def broken(self, problem: Problem) -> bytes:
        return b"data: " + OpenAI().error(problem) + b"\n\n"

    def _chunk(self, choice: dict[str, Any]) -> bytes:
        # OpenAI sends a null usage in each chunk where usage was asked for, and no usage at all where it was not.
        return _event(self._object([choice], usage=None) if self._include_usage else self._object([choice]))

    def _object(self, choices: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
        head = {
            "id": self._identity.id,
            "object": "text_completion",
            "created": self._identity.created,
            "model": self._identity.model,
        }
        return {**head, "choices": choices, **more}


def _choice(text: str, finish_reason: str | None) -> dict[str, Any]:
    return {"index": 0, "text": text, "logprobs": None, "finish_reason": finish_reason}


def _usage(finished: Finished) -> dict[str, Any]:
    return {
        "prompt_tokens": finished.prompt_tokens,
        "completion_tokens": finished.completion_tokens,
        "total_tokens": finished.prompt_tokens + finished.completion_tokens,
        "prompt_tokens_details": {"cached_tokens": finished.cached_tokens},
    }


def _model(model: Model) -> dict[str, Any]:
    entry: dict[str, Any] = {"id": model.name, "object": "model", "created": model.created, "owned_by": "aixcoder"}
    if model.max_length is not None:
        entry["max_model_len"] = model.max_length
    return entry


def _json(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def _event(value: Any) -> bytes:
    return b"data: " + _json(value) + b"\n\n"


def _sentence(error: ValidationError) -> Problem:
    """The first thing that is wrong, without a value of the client's in it."""
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    if first["type"] == "json_invalid":
        return invalid("The body is not valid JSON, or is nested too deeply.")
    if not first["loc"]:
        return invalid('The body must be a JSON object such as {"prompt": "def add("}.')
    field = str(first["loc"][0])
    return invalid(f"`{field}` must be {_EXPECTED[field]}.", field)


def _refuse_what_is_not_built(fields: _Body) -> None:
    if fields.n not in (None, 1):
        raise invalid("`n` must be 1: send one request for each completion you want.", "n")
    if fields.best_of not in (None, 1):
        raise invalid("`best_of` must be 1: only one completion is made.", "best_of")
    if fields.echo:
        raise invalid("`echo` is not supported: the answer holds the completion alone.", "echo")
    if fields.logprobs is not None and fields.logprobs is not False:
        raise invalid("`logprobs` is not supported: leave it out.", "logprobs")
    if fields.presence_penalty:
        raise invalid("`presence_penalty` is not supported: leave it out or send 0.", "presence_penalty")
    if fields.frequency_penalty:
        raise invalid("`frequency_penalty` is not supported: leave it out or send 0.", "frequency_penalty")
    if fields.logit_bias:
        raise invalid("`logit_bias` is not supported: leave it out.", "logit_bias")


def _prompt(prompt: Any) -> tuple[str | None, tuple[int, ...] | None]:
    if isinstance(prompt, str):
        return prompt, None
    # type() and not isinstance(): true and false are ints to Python.
    if isinstance(prompt, list) and prompt and all(type(item) is int for item in prompt):
        if not all(0 <= item < _TOKEN_ID_END for item in prompt):
            raise invalid("`prompt` holds a number that is no token id: ids are from 0 up.", "prompt")
        return None, tuple(prompt)
    raise invalid("`prompt` must be one string or one list of token ids: send one request for each prompt.", "prompt")


def _stop(stop: str | list[str] | None) -> tuple[str, ...]:
    strings = (stop,) if isinstance(stop, str) else tuple(stop or ())
    if len(strings) > 16 or not all(1 <= len(string) <= 256 for string in strings):
        raise invalid(f"`stop` must be {_EXPECTED['stop']}.", "stop")
    return strings
