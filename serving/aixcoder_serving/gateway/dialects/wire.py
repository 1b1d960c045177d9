"""What dialects over JSON have in common: reading a body, and writing JSON and server-sent events."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from aixcoder_serving.gateway.problems import invalid

B = TypeVar("B", bound=BaseModel)


def read(model: type[B], body: bytes, expected: Mapping[str, str], example: str) -> B:
    """A client's body. `expected` says of each field what it must be, `example` what a body looks like.

    Raises:
        Problem: the first thing that is wrong with it, without a value of the client's in it.

    """
    try:
        return model.model_validate_json(body)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    if first["type"] == "json_invalid":
        raise invalid("The body is not valid JSON, or is nested too deeply.")
    if not first["loc"]:
        raise invalid(f"The body must be a JSON object such as {example}.")
    field = str(first["loc"][0])
    raise invalid(f"`{field}` must be {expected[field]}.", field)


def compact(value: Any) -> bytes:
    """JSON without white space."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def event(value: Any) -> bytes:
    """A server-sent event that holds JSON."""
    return b"data: " + compact(value) + b"\n\n"
