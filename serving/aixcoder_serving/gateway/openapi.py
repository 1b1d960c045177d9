"""The OpenAPI document of what clients reach, from the models that read their bodies: the page `/openapi.json`."""

from __future__ import annotations

import json
from typing import Any

from pydantic.json_schema import models_json_schema

from aixcoder_serving.gateway.dialects.llamacpp import InfillBody
from aixcoder_serving.gateway.dialects.openai import CompletionBody

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
}


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
                "post": _completion("Complete code; with `suffix`, fill in the middle.", "CompletionBody")
            },
            "/infill": {"post": _completion("Fill in the middle, as llama.cpp's server does.", "InfillBody")},
            "/v1/models": {"get": _page("The models that are served.", "application/json")},
            "/health": {"get": _page("Whether completions can be asked for.", "application/json")},
            "/healthz": {"get": _page("Whether the process lives.", "text/plain")},
            "/readyz": {"get": _page("Whether it should get requests.", "text/plain")},
        },
        "components": {
            "schemas": definitions["$defs"],
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer", "bearerFormat": "axk_<id>_<secret>"}},
        },
    }


def page() -> bytes:
    """The document as JSON."""
    return json.dumps(document(), indent=2, ensure_ascii=False).encode() + b"\n"


def _completion(summary: str, model: str) -> dict[str, Any]:
    schema = {"$ref": _REFERENCE.format(model=model)}
    stream: dict[str, Any] = {"application/json": {}, "text/event-stream": {}}
    responses: dict[str, Any] = {"200": {"description": "The completion, or a stream of it.", "content": stream}}
    for status, text in _PROBLEMS.items():
        responses[status] = {"description": text, "content": {"application/json": {}, "text/plain": {}}}
    return {
        "summary": summary,
        "requestBody": {"required": True, "content": {"application/json": {"schema": schema}}},
        "responses": responses,
    }


def _page(summary: str, kind: str) -> dict[str, Any]:
    responses = {"200": {"description": summary, "content": {kind: {}}}}
    for status in ("401", "503"):
        responses[status] = {
            "description": _PROBLEMS[status],
            "content": {"application/json": {}, "text/plain": {}},
        }
    return {"summary": summary, "responses": responses}
