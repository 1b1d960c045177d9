"""OpenAI's `/v1/completions`, with the `suffix` that makes it fill in the middle, and `/v1/models`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, WithJsonSchema

from aixcoder_serving.gateway.dialects import Answer, Ask, Identity, Model, Prompt, Usage, Writer
from aixcoder_serving.gateway.dialects.wire import compact, event, read
from aixcoder_serving.gateway.problems import Problem, invalid
from aixcoder_serving.gateway.transcript import Piece
from aixcoder_serving.protocol import Finished, TokenLogprobs

MOST_COMPLETIONS = 64
"""Of one request."""

_TOKEN_ID_END = 2**31


class _StreamOptions(BaseModel):
    model_config = ConfigDict(extra="ignore")

    include_usage: bool | None = None


_TokenId = Annotated[str, Field(pattern=r"^[0-9]{1,9}$")]
_Bias = Annotated[float, Field(ge=-100, le=100, allow_inf_nan=False)]
_Stop = Annotated[str, Field(min_length=1, max_length=256)]
_IDS = {"type": "array", "minItems": 1, "items": {"type": "integer", "minimum": 0, "exclusiveMaximum": _TOKEN_ID_END}}
_SEVERAL = {"type": "array", "minItems": 1, "maxItems": MOST_COMPLETIONS}
_PROMPT = {"anyOf": [{"type": "string"}, _IDS, _SEVERAL | {"items": {"type": "string"}}, _SEVERAL | {"items": _IDS}]}


class CompletionBody(BaseModel):
    """The fields of `POST /v1/completions` that mean something here.

    null is as good as absent; unknown fields are tolerated.
    """

    model_config = ConfigDict(extra="ignore", json_schema_extra={"required": ["prompt"]})

    model: Annotated[str, Field(max_length=1024)] | None = None
    prompt: Annotated[Any, WithJsonSchema(_PROMPT)] = None
    suffix: str | None = None
    max_tokens: Annotated[int, Field(ge=0, lt=2**31)] | None = None
    temperature: Annotated[float, Field(ge=0, le=2, allow_inf_nan=False)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)] | None = None
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] | None = None
    stop: _Stop | Annotated[list[_Stop], Field(max_length=16)] | None = None
    ignore_eos: bool | None = None  # vLLM's: for measuring
    stream: bool | None = None
    stream_options: _StreamOptions | None = None
    n: Annotated[int, Field(ge=1, le=MOST_COMPLETIONS)] | None = None
    best_of: Annotated[int, Field(ge=1, le=MOST_COMPLETIONS)] | None = None
    echo: bool | None = None
    logprobs: Annotated[int, Field(ge=0, le=20, strict=True)] | Literal[False] | None = None
    presence_penalty: Annotated[float, Field(ge=-2, le=2, allow_inf_nan=False)] | None = None
    frequency_penalty: Annotated[float, Field(ge=-2, le=2, allow_inf_nan=False)] | None = None
    logit_bias: Annotated[dict[_TokenId, _Bias], Field(max_length=1024)] | None = None
    user: Annotated[str, Field(max_length=1024)] | None = None


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
    "n": f"an integer from 1 to {MOST_COMPLETIONS}",
    "best_of": f"an integer from 1 to {MOST_COMPLETIONS}, no less than `n`",
    "echo": "true or false",
    "logprobs": "an integer from 0 to 20",
    "presence_penalty": "a number from -2 to 2",
    "frequency_penalty": "a number from -2 to 2",
    "logit_bias": "an object of at most 1024 token ids, each with a number from -100 to 100",
    "user": "a string of at most 1024 characters",
}


class OpenAI:
    """The dialect of OpenAI's legacy completions, which most plug-ins speak."""

    name = "openai"
    patience_seconds = 30.0

    def parse(self, body: bytes) -> Ask:
        """Read the body of `POST /v1/completions`; see `Dialect.parse`."""
        fields = read(CompletionBody, body, _EXPECTED, '{"prompt": "def add("}')
        prompts = _prompts(fields.prompt)
        n, best_of = fields.n or 1, fields.best_of or fields.n or 1
        _check(fields, prompts, n, best_of)
        return Ask(
            model=fields.model,
            stream=bool(fields.stream),
            include_usage=bool(fields.stream_options and fields.stream_options.include_usage),
            prompts=prompts,
            n=n,
            best_of=best_of,
            echo=bool(fields.echo),
            user=fields.user,
            suffix=fields.suffix,
            max_tokens=fields.max_tokens,
            temperature=fields.temperature,
            top_p=fields.top_p,
            seed=fields.seed,
            presence_penalty=fields.presence_penalty,
            frequency_penalty=fields.frequency_penalty,
            logit_bias=tuple((int(name), bias) for name, bias in (fields.logit_bias or {}).items()),
            logprobs=None if fields.logprobs is None or fields.logprobs is False else fields.logprobs,
            stop=(fields.stop,) if isinstance(fields.stop, str) else tuple(fields.stop or ()),
            ignore_eos=fields.ignore_eos,
        )

    def writer(self, ask: Ask, identity: Identity) -> Writer:
        """The writer of one completion."""
        return _Writer(ask, identity)

    def error(self, problem: Problem) -> bytes:
        """OpenAI's error object."""
        kind = {401: "authentication_error", 429: "rate_limit_error"}.get(
            problem.status, "invalid_request_error" if problem.status < 500 else "server_error"
        )
        error = {"message": problem.message, "type": kind, "param": problem.param, "code": problem.code}
        return compact({"error": error})

    def models(self, models: Iterable[Model]) -> bytes:
        """The body of `GET /v1/models`."""
        return compact({"object": "list", "data": [_model(model) for model in models]})


class _Writer:
    stream_type = "text/event-stream; charset=utf-8"

    def __init__(self, ask: Ask, identity: Identity) -> None:
        self._ask = ask
        self._identity = identity
        self._lengths: dict[int, int] = {}  # characters of each completion so far

    def whole(self, answers: Sequence[Answer], usage: Usage) -> bytes:
        choices = [
            self._choice(answer.index, answer.piece, answer.prompt, answer.finished.finish_reason) for answer in answers
        ]
        return compact(self._object(choices, usage=_usage(usage)))

    def delta(self, index: int, piece: Piece) -> bytes:
        return self._chunk(self._choice(index, piece, self._echo(index), None))

    def finish(self, index: int, finished: Finished) -> bytes:
        last = {"index": index, "text": self._echo(index), "logprobs": None, "finish_reason": finished.finish_reason}
        return self._chunk(last)

    def end(self, usage: Usage) -> bytes:
        told = event(self._object([], usage=_usage(usage))) if self._ask.include_usage else b""
        return told + b"data: [DONE]\n\n"

    def broken(self, problem: Problem) -> bytes:
        return b"data: " + OpenAI().error(problem) + b"\n\n"

    def _echo(self, index: int) -> str:
        """The prompt, before the first text of its completion."""
        prompt = self._ask.prompts[index // self._ask.samples]
        return prompt if self._ask.echo and index not in self._lengths and isinstance(prompt, str) else ""

    def _choice(self, index: int, piece: Piece, prompt: str, finish_reason: str | None) -> dict[str, Any]:
        before = self._lengths.get(index, 0)
        logprobs = None
        if self._ask.logprobs is not None:
            shown = (*piece.prompt_logprobs, *piece.logprobs) if self._ask.echo else piece.logprobs
            logprobs = _logprobs(shown, before if piece.prompt_logprobs else before + len(prompt))
        text = prompt + piece.text
        self._lengths[index] = before + len(text)
        return {"index": index, "text": text, "logprobs": logprobs, "finish_reason": finish_reason}

    def _chunk(self, choice: dict[str, Any]) -> bytes:
        # OpenAI sends a null usage in each chunk where usage was asked for, and no usage at all where it was not.
        return event(self._object([choice], usage=None) if self._ask.include_usage else self._object([choice]))

    def _object(self, choices: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
        head = {
            "id": self._identity.id,
            "object": "text_completion",
            "created": self._identity.created,
            "model": self._identity.model,
        }
        return {**head, "choices": choices, **more}


def _logprobs(entries: Sequence[TokenLogprobs], offset: int) -> dict[str, Any]:
    """OpenAI's legacy shape. `offset`: characters before the first of the tokens."""
    offsets = []
    for entry in entries:
        offsets.append(offset)
        offset += len(entry.text)
    return {
        "tokens": [entry.text for entry in entries],
        "token_logprobs": [entry.logprob for entry in entries],
        "top_logprobs": [{likely.text: likely.logprob for likely in entry.top} for entry in entries],
        "text_offset": offsets,
    }


def _usage(usage: Usage) -> dict[str, Any]:
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_tokens},
    }


def _model(model: Model) -> dict[str, Any]:
    entry: dict[str, Any] = {"id": model.name, "object": "model", "created": model.created, "owned_by": "aixcoder"}
    if model.max_length is not None:
        entry["max_model_len"] = model.max_length
    return entry


def _check(fields: CompletionBody, prompts: tuple[Prompt, ...], n: int, best_of: int) -> None:
    """What fields say together."""
    if fields.suffix is not None and not all(isinstance(prompt, str) for prompt in prompts):
        raise invalid("`suffix` goes with a text `prompt`: token ids are run as they are.", "suffix")
    if fields.echo and not all(isinstance(prompt, str) for prompt in prompts):
        raise invalid("`echo` goes with a text `prompt`.", "echo")
    if best_of < n:
        raise invalid(f"`best_of` must be {_EXPECTED['best_of']}.", "best_of")
    if best_of > n and fields.stream:
        raise invalid(
            "`best_of` can not be streamed: which is best is known at the end. Leave out `stream`.", "best_of"
        )
    if len(prompts) * best_of > MOST_COMPLETIONS:
        raise invalid(
            f"`prompt` and `n` ask for more than {MOST_COMPLETIONS} completions: send several requests.", "prompt"
        )


def _prompts(prompt: Any) -> tuple[Prompt, ...]:
    if isinstance(prompt, str):
        return (prompt,)
    if isinstance(prompt, list) and prompt:
        if all(isinstance(item, str) for item in prompt):
            return tuple(prompt)
        if all(_is_ids(item) for item in prompt):
            return tuple(tuple(item) for item in prompt)
        if _is_ids(prompt):
            return (tuple(prompt),)
    raise invalid(
        "`prompt` must be a string, a list of strings, a list of token ids from 0 up, or a list of such lists.",
        "prompt",
    )


def _is_ids(value: Any) -> bool:
    # type() and not isinstance(): true and false are ints to Python.
    return isinstance(value, list) and bool(value) and all(type(i) is int and 0 <= i < _TOKEN_ID_END for i in value)
