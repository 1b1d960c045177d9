"""llama.cpp's `/infill`, which llama.vscode and llama.vim speak, and its `/health`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from aixcoder_serving.gateway.dialects import Answer, Ask, Identity, Usage, Writer
from aixcoder_serving.gateway.dialects.wire import compact, event, read
from aixcoder_serving.gateway.problems import Problem
from aixcoder_serving.gateway.transcript import Piece
from aixcoder_serving.protocol import ContextFile, Finished


class InputExtra(BaseModel):
    """A part of another file."""

    model_config = ConfigDict(extra="ignore")

    text: str
    filename: Annotated[str, Field(max_length=4096)] | None = None


class InfillBody(BaseModel):
    """The fields of `POST /infill` that mean something here; unknown ones are tolerated."""

    model_config = ConfigDict(extra="ignore")

    input_prefix: str | None = None
    input_suffix: str | None = None
    input_extra: Annotated[list[InputExtra], Field(max_length=256)] | None = None
    prompt: str | None = None
    n_predict: Annotated[int, Field(ge=-1, lt=2**31)] | None = None
    n_indent: Annotated[int, Field(ge=0, le=10_000)] | None = None
    t_max_predict_ms: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    temperature: Annotated[float, Field(le=2, allow_inf_nan=False)] | None = None
    top_k: Annotated[int, Field(lt=2**31)] | None = None
    top_p: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] | None = None
    min_p: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] | None = None
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] | None = None
    presence_penalty: Annotated[float, Field(ge=-2, le=2, allow_inf_nan=False)] | None = None
    frequency_penalty: Annotated[float, Field(ge=-2, le=2, allow_inf_nan=False)] | None = None
    repeat_penalty: Annotated[float, Field(ge=0.01, le=100, allow_inf_nan=False)] | None = None
    stop: Annotated[list[Annotated[str, Field(min_length=1, max_length=256)]], Field(max_length=16)] | None = None
    ignore_eos: bool | None = None
    stream: bool | None = None


_EXPECTED = {
    "input_prefix": "a string",
    "input_suffix": "a string",
    "input_extra": 'a list of at most 256 objects such as {"filename": "a.py", "text": "…"}',
    "prompt": "a string",
    "n_predict": "an integer from -1 up",
    "n_indent": "an integer from 0 up",
    "t_max_predict_ms": "a number of milliseconds from 0 up",
    "temperature": "a number of at most 2",
    "top_k": "an integer",
    "top_p": "a number from 0 to 1",
    "min_p": "a number from 0 to 1",
    "seed": "a 64-bit integer",
    "presence_penalty": "a number from -2 to 2",
    "frequency_penalty": "a number from -2 to 2",
    "repeat_penalty": "a number from 0.01 to 100",
    "stop": "a list of at most 16 strings, each of 1 to 256 characters",
    "ignore_eos": "true or false",
    "stream": "true or false",
}


class LlamaCpp:
    """The dialect of llama.cpp's server."""

    name = "llama.cpp"
    patience_seconds = 5.0

    def parse(self, body: bytes) -> Ask:
        """Read the body of `POST /infill`; see `Dialect.parse`.

        Numbers below what means anything are llama.cpp's way to say nothing: n_predict -1, seed -1, top_k 0.
        """
        fields = read(InfillBody, body, _EXPECTED, '{"input_prefix": "def add(", "input_suffix": "\\n"}')
        prefix, suffix = (fields.input_prefix or "") + (fields.prompt or ""), fields.input_suffix or ""
        # A warm-up: with the suffix first there is nothing that the next request would find.
        nothing = fields.n_predict == 0 or not (prefix or suffix)
        return Ask(
            prompts=(prefix,),
            stream=bool(fields.stream),
            suffix=suffix,
            context=tuple(ContextFile(path=e.filename or "", text=e.text) for e in fields.input_extra or ()),
            post_process=True,
            max_tokens=0 if nothing else _from(0, fields.n_predict),
            temperature=None if fields.temperature is None else max(fields.temperature, 0.0),
            top_k=_from(0, fields.top_k),
            top_p=fields.top_p or None,
            min_p=fields.min_p,
            seed=_from(0, fields.seed),
            presence_penalty=fields.presence_penalty,
            frequency_penalty=fields.frequency_penalty,
            repetition_penalty=fields.repeat_penalty,
            stop=tuple(fields.stop or ()),
            ignore_eos=fields.ignore_eos,
            n_indent=fields.n_indent,
            max_predict_ms=fields.t_max_predict_ms or None,
        )

    def writer(self, ask: Ask, identity: Identity) -> Writer:
        """The writer of one completion."""
        return _Writer(ask, identity)

    def error(self, problem: Problem) -> bytes:
        """llama.cpp's error object."""
        kinds = {400: "invalid_request_error", 401: "authentication_error", 503: "unavailable_error"}
        kind = kinds.get(problem.status, "server_error" if problem.status >= 500 else "invalid_request_error")
        return compact({"error": {"code": problem.status, "message": problem.message, "type": kind}})


class _Writer:
    stream_type = "text/event-stream; charset=utf-8"

    def __init__(self, ask: Ask, identity: Identity) -> None:
        self._ask = ask
        self._identity = identity
        self._finished: Finished | None = None

    def whole(self, answers: Sequence[Answer], usage: Usage) -> bytes:
        return compact(self._last(answers[0].piece.text, answers[0].finished))

    def delta(self, index: int, piece: Piece) -> bytes:
        return event({"index": index, "content": piece.text, "stop": False, "model": self._identity.model})

    def finish(self, index: int, finished: Finished) -> bytes:
        return event(self._last("", finished))

    def end(self, usage: Usage) -> bytes:
        return b""

    def broken(self, problem: Problem) -> bytes:
        return b"error: " + LlamaCpp().error(problem) + b"\n\n"

    def _last(self, content: str, finished: Finished) -> dict[str, Any]:
        return {
            "index": 0,
            "content": content,
            "stop": True,
            "model": self._identity.model,
            "stop_type": "limit" if finished.finish_reason == "length" else "eos",
            "stopping_word": "",
            "tokens_predicted": finished.completion_tokens,
            "tokens_evaluated": finished.prompt_tokens,
            "tokens_cached": finished.cached_tokens,
            "truncated": False,
            "timings": {
                "cache_n": finished.cached_tokens,
                "prompt_n": finished.prompt_tokens - finished.cached_tokens,
                "predicted_n": finished.completion_tokens,
            },
            "generation_settings": {"n_predict": -1 if self._ask.max_tokens is None else self._ask.max_tokens},
        }


def _from(least: int, value: int | None) -> int | None:
    return None if value is None or value < least else value
