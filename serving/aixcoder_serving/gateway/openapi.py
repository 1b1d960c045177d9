"""The OpenAPI document of what clients reach: the page `/openapi.json`.

The bodies are those of the models that read them; what is answered is written here as the dialects write it.
"""

from __future__ import annotations

import json
from typing import Any, get_args

from pydantic.json_schema import models_json_schema

from aixcoder_serving.gateway.dialects.llamacpp import InfillBody
from aixcoder_serving.gateway.dialects.openai import CompletionBody
from aixcoder_serving.gateway.handle import SESSION_HEADER
from aixcoder_serving.gateway.patience import OWN_HEADER
from aixcoder_serving.protocol import FinishReason

_REFERENCE = "#/components/schemas/{model}"
_PROBLEMS = {
    "400": "The body can not be served as it is; the error names the field.",
    "401": "The API key is missing or unknown.",
    "403": "The API key may not use the model.",
    "404": "No deployment serves the model.",
    "408": "The request took too long to arrive.",
    "413": "The body is too large.",
    "422": "Replicas failed while they answered this very request.",
    "429": "The API key is over its limit; Retry-After says for how long.",
    "431": "The headers are too large.",
    "502": "A replica went away or failed.",
    "503": "Nothing has room, or no replica is there; Retry-After says when to ask again.",
    "504": "A replica took the request and said nothing for too long.",
}


def _object(**properties: Any) -> dict[str, Any]:
    """An object that has all of these."""
    return {"type": "object", "properties": properties, "required": list(properties)}


def _list(of: Any) -> dict[str, Any]:
    return {"type": "array", "items": of}


_PLAIN: dict[str, Any] = {"text/plain": {}}
_TEXT, _COUNT, _FLAG = {"type": "string"}, {"type": "integer", "minimum": 0}, {"type": "boolean"}
_OPENAI_ERROR = _object(error=_object(message=_TEXT, type=_TEXT, param={"type": ["string", "null"]}, code=_TEXT))
_LLAMA_CPP_ERROR = _object(error=_object(code=_COUNT, message=_TEXT, type=_TEXT))
_COMPLETION = _object(
    id=_TEXT,
    object={"const": "text_completion"},
    created=_COUNT,
    model=_TEXT,
    choices=_list(
        _object(
            index=_COUNT,
            text=_TEXT,
            logprobs={"type": ["object", "null"]},
            finish_reason={"enum": list(get_args(FinishReason))},
        )
    ),
    usage=_object(
        prompt_tokens=_COUNT,
        completion_tokens=_COUNT,
        total_tokens=_COUNT,
        prompt_tokens_details=_object(cached_tokens=_COUNT),
    ),
)
_INFILL = _object(
    index=_COUNT,
    content=_TEXT,
    stop={"const": True},
    model=_TEXT,
    stop_type={"enum": ["eos", "limit"]},
    stopping_word=_TEXT,
    tokens_predicted=_COUNT,
    tokens_evaluated=_COUNT,
    tokens_cached=_COUNT,
    truncated=_FLAG,
    timings=_object(cache_n=_COUNT, prompt_n=_COUNT, predicted_n=_COUNT),
    generation_settings=_object(n_predict={"type": "integer"}),
)
_MODELS = _object(
    object={"const": "list"},
    data=_list(_object(id=_TEXT, object={"const": "model"}, created=_COUNT, owned_by=_TEXT)),
)
_HEALTH = _object(status={"const": "ok"})
_HEADERS = [
    {
        "name": SESSION_HEADER,
        "in": "header",
        "description": "Names the editor: its requests go to one replica, and a newer one supersedes those that wait.",
        "schema": _TEXT,
    },
    {
        "name": OWN_HEADER,
        "in": "header",
        "description": "For how many milliseconds the client waits for the answer to begin.",
        "schema": {"type": "number", "exclusiveMinimum": 0},
    },
]


def document() -> dict[str, Any]:
    """The document, as OpenAPI 3.1 has it."""
    bodies: list[tuple[type[CompletionBody] | type[InfillBody], Any]] = [
        (CompletionBody, "validation"),
        (InfillBody, "validation"),
    ]
    _, definitions = models_json_schema(bodies, ref_template=_REFERENCE)
    return {
        "openapi": "3.1.0",
        "info": {"title": "aiXcoder gateway", "version": "1"},
        "security": [{"key": []}, {}],
        "paths": {
            "/v1/completions": {
                "post": _completion(
                    "Complete code; with `suffix`, fill in the middle.", "CompletionBody", _COMPLETION, _OPENAI_ERROR
                )
            },
            "/infill": {
                "post": _completion(
                    "Fill in the middle, as llama.cpp's server does.", "InfillBody", _INFILL, _LLAMA_CPP_ERROR
                )
            },
            "/v1/models": {
                "get": _page(
                    "The models that are served.",
                    _json(_MODELS),
                    {"401": _json(_OPENAI_ERROR), "503": _json(_OPENAI_ERROR)},
                )
            },
            "/health": {
                "get": _page("Whether completions can be asked for.", _json(_HEALTH), {"503": _json(_LLAMA_CPP_ERROR)})
            },
            "/healthz": {"get": _page("Whether the process lives.", _PLAIN, {})},
            "/readyz": {"get": _page("Whether it should get requests.", _PLAIN, {"503": _PLAIN})},
        },
        "components": {
            "schemas": definitions["$defs"],
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer", "bearerFormat": "axk_<id>_<secret>"}},
        },
    }


def page() -> bytes:
    """The document as JSON."""
    return json.dumps(document(), indent=2, ensure_ascii=False).encode() + b"\n"


def _completion(summary: str, body: str, answer: dict[str, Any], error: dict[str, Any]) -> dict[str, Any]:
    stream: dict[str, Any] = {"text/event-stream": {}}
    answers = {"200": {"description": "The completion, or a stream of it.", "content": _json(answer) | stream}}
    for status, text in _PROBLEMS.items():
        answers[status] = {"description": text, "content": _json(error) | _PLAIN}
    return {
        "summary": summary,
        "parameters": _HEADERS,
        "requestBody": {"required": True, "content": _json({"$ref": _REFERENCE.format(model=body)})},
        "responses": answers,
    }


def _page(summary: str, content: dict[str, Any], problems: dict[str, Any]) -> dict[str, Any]:
    answers: dict[str, Any] = {"200": {"description": summary, "content": content}}
    for status, error in problems.items():
        answers[status] = {"description": _PROBLEMS[status], "content": error}
    return {"summary": summary, "responses": answers}


def _json(schema: Any) -> dict[str, Any]:
    return {"application/json": {"schema": schema}}
