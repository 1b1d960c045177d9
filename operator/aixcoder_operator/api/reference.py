"""docs/api-reference.md: the resource's fields as a page, from the same schema as the CRD."""

from __future__ import annotations

from collections.abc import Iterator

from aixcoder_operator.api.base import API_VERSION, KIND, PRESERVE, RULES
from aixcoder_operator.api.schema import Schema

_HEAD = f"""# API reference: {KIND}

`apiVersion: {API_VERSION}`, `kind: {KIND}`, short name `axd`. Made from the types in
`operator/aixcoder_operator/api` by `make generate`: change it there.

The same text is in the cluster: `kubectl explain axd.spec --recursive`, `kubectl explain axd.spec.engine`. A field left
out has the default its description names. A field marked * must be given where the block it stands in is given.
"""


def page(schema: Schema) -> str:
    """The whole page as Markdown; `schema` is the CRD's structural schema."""
    parts = [_HEAD, "## The resource\n", schema["description"] + "\n", *_rules(schema)]
    for name in ("spec", "status"):
        parts += [line for block in _blocks(schema["properties"][name], name) for line in block]
    return "\n".join(parts).rstrip() + "\n"


def _blocks(node: Schema, path: str) -> Iterator[list[str]]:
    """One block for `node`, then one for each object beneath it, in the order of the fields."""
    fields: dict[str, Schema] = node["properties"]
    required = node.get("required", [])
    yield [
        f"## {path}\n",
        node["description"] + "\n",
        *_rules(node),
        "| field | type | what it is |",
        "|---|---|---|",
        *(
            f"| `{name}`{' *' if name in required else ''} | {_kind(field)} | {_cell(field)} |"
            for name, field in fields.items()
        ),
        "",
    ]
    for name, field in fields.items():
        child, suffix = (field["items"], "[]") if "items" in field else (field, "")
        if "properties" in child:
            inner = child if "description" in child else child | {"description": field["description"]}
            yield from _blocks(inner, f"{path}.{name}{suffix}")


def _rules(node: Schema) -> list[str]:
    rules = [f"- {rule['message']}" for rule in node.get(RULES, [])]
    return [*rules, ""] if rules else []


def _kind(field: Schema) -> str:
    """Type and bounds in a few words: "integer, 0 to 256", "list of at most 32"."""
    if "enum" in field:
        return " or ".join(f"`{value}`" for value in field["enum"])
    if field.get("x-kubernetes-int-or-string"):
        return "quantity"
    kind = str(field["type"])
    if kind == "array":
        return f"list of at most {field['maxItems']}"
    if "additionalProperties" in field:
        return f"map of at most {field['maxProperties']}"
    if kind == "string":
        return "time" if field.get("format") == "date-time" else f"text, at most {field['maxLength']}"
    if kind in ("integer", "number"):
        return kind + _bounds(field)
    return "free object" if field.get(PRESERVE) and "properties" not in field else kind


def _bounds(field: Schema) -> str:
    low, high = field.get("minimum"), field.get("maximum")
    if low is None:
        return ""
    return f", at least {low}" if high is None else f", {low} to {high}"


def _cell(field: Schema) -> str:
    own = [] if "properties" in field else [rule["message"] for rule in field.get(RULES, [])]
    text = " ".join([field["description"], *(f"Rule: {message}." for message in own)])
    return text.replace("|", "\\|")
