"""From pydantic types to the structural OpenAPI schema that a CustomResourceDefinition holds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

from aixcoder_operator.api.base import PRESERVE, RULES

Schema = dict[str, Any]

_INT_OR_STRING = "x-kubernetes-int-or-string"
# Defaults are applied when objects are rendered: one in the schema would be stored with every resource.
_DROPPED = frozenset(
    {"title", "default", "$defs", "anyOf", "const", "properties", "items", "additionalProperties", "$ref"}
)


class SchemaError(ValueError):
    """A type that has no bounded structural schema; the text names the field and what it lacks."""


def structural(model: type[BaseModel]) -> Schema:
    """The schema of `model`: references inlined, every field described, every string, list and map bounded.

    Raises SchemaError: recursion, a union other than with None, or a field without description or bound. Without bounds
    the API server cannot estimate what a CEL rule costs, and refuses it.
    """
    raw = model.model_json_schema(by_alias=True, mode="validation")
    schema = _inlined(raw, raw.get("$defs", {}), path=model.__name__, inside=())
    _check(schema, model.__name__)
    return schema


def _inlined(node: Mapping[str, Any], defs: Mapping[str, Any], path: str, inside: tuple[str, ...]) -> Schema:
    if "$ref" in node:
        name = node["$ref"].rpartition("/")[2]
        if name in inside:
            raise SchemaError(f"{path}: {name} contains itself; a structural schema cannot recurse")
        return _joined(_inlined(defs[name], defs, path, (*inside, name)), _words(node))
    if "anyOf" in node and not node.get(_INT_OR_STRING):
        choices = [choice for choice in node["anyOf"] if choice.get("type") != "null"]
        if len(choices) != 1:
            raise SchemaError(f"{path}: a union of {len(choices)} types; only one type or None can be stated")
        return _joined(_inlined(choices[0], defs, path, inside), _words(node))
    made = _words(node)
    if node.get(_INT_OR_STRING):
        made["anyOf"] = node["anyOf"]
    if "const" in node:
        made["enum"] = [node["const"]]
    if "properties" in node:
        made["properties"] = {
            name: _inlined(child, defs, f"{path}.{name}", inside) for name, child in node["properties"].items()
        }
    if "items" in node:
        made["items"] = _inlined(node["items"], defs, f"{path}[]", inside)
    values = node.get("additionalProperties")
    if isinstance(values, Mapping):
        made["additionalProperties"] = _inlined(values, defs, f"{path}{{}}", inside)
    elif values is True:
        made[PRESERVE] = True
    return made


def _words(node: Mapping[str, Any]) -> Schema:
    return {word: value for word, value in node.items() if word not in _DROPPED}


def _joined(inner: Schema, outer: Schema) -> Schema:
    # What a field says of itself (its description) wins over what its type says; rules of both hold.
    rules = [*inner.get(RULES, []), *outer.get(RULES, [])]
    return inner | outer | ({RULES: rules} if rules else {})


def _check(node: Schema, path: str) -> None:
    kind = node.get("type")
    bounded = {"string": "maxLength", "array": "maxItems"}.get(str(kind))
    if bounded and bounded not in node and "enum" not in node and node.get("format") != "date-time":
        raise SchemaError(f"{path}: type {kind} without {bounded}")
    if "additionalProperties" in node:
        if "maxProperties" not in node:
            raise SchemaError(f"{path}: a map without maxProperties")
        _check(node["additionalProperties"], f"{path}{{}}")
    if "items" in node:
        _check(node["items"], f"{path}[]")
    for name, child in node.get("properties", {}).items():
        if not child.get("description"):
            raise SchemaError(f"{path}.{name}: no description")
        _check(child, f"{path}.{name}")
