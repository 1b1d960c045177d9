from typing import Annotated, Any, Literal

import pytest
from pydantic import Field, create_model

from aixcoder_operator.api.base import Kube, Part, rule, ruled
from aixcoder_operator.api.schema import SchemaError, structural
from aixcoder_operator.api.values import Quantity, Timestamp

Short = Annotated[str, Field(max_length=8)]


def _schema_of(type_: Any, default: Any = ...) -> dict[str, Any]:
    """Schema of the one field of a part that is of `type_`."""
    part = create_model("Toy", __base__=Part, some_field=(type_, Field(default=default, description="A field.")))
    made: dict[str, Any] = structural(part)["properties"]["someField"]
    return made


class Inner(Part):
    """A part in a part."""

    model_config = ruled(rule("has(self.text)", "give text"))

    text: Short | None = Field(default=None, description="Some text.")


class Other(Part):
    """Another part."""

    name: Short = Field(description="Its name.")


class Node(Part):
    """A part that contains itself."""

    child: "Node | None" = Field(default=None, description="Another one.")


INNER = {
    "type": "object",
    "properties": {"text": {"type": "string", "maxLength": 8, "description": "Some text."}},
    "x-kubernetes-validations": [{"rule": "has(self.text)", "message": "give text"}],
}


@pytest.mark.parametrize(
    ("type_", "default", "expected"),
    [
        (Short, ..., {"type": "string", "maxLength": 8}),
        (Short | None, None, {"type": "string", "maxLength": 8}),
        (Annotated[int, Field(ge=1, le=3)] | None, 2, {"type": "integer", "minimum": 1, "maximum": 3}),
        (Literal["a", "b"], "a", {"type": "string", "enum": ["a", "b"]}),
        (Literal["a"], "a", {"type": "string", "enum": ["a"]}),
        (Literal[1, 2], 1, {"type": "integer", "enum": [1, 2]}),
        (Inner, Inner(), INNER),
        (Inner | None, None, INNER),
        (
            Annotated[tuple[Inner, ...], Field(max_length=2), Kube(map_keys=("text",))],
            (),
            {
                "type": "array",
                "maxItems": 2,
                "x-kubernetes-list-type": "map",
                "x-kubernetes-list-map-keys": ["text"],
                "items": INNER | {"description": "A part in a part."},
            },
        ),
        (
            Annotated[dict[str, Short], Field(max_length=2)],
            {},
            {"type": "object", "maxProperties": 2, "additionalProperties": {"type": "string", "maxLength": 8}},
        ),
        (dict[str, Any] | None, None, {"type": "object", "x-kubernetes-preserve-unknown-fields": True}),
        (
            Other,
            ...,
            {
                "type": "object",
                "required": ["name"],
                "properties": {"name": {"type": "string", "maxLength": 8, "description": "Its name."}},
            },
        ),
        (Timestamp, ..., {"type": "string", "format": "date-time"}),
    ],
    ids=[
        "text",
        "text or none",
        "default dropped",
        "choice",
        "one choice",
        "choice of numbers",
        "part",
        "part or none",
        "list as a map",
        "map",
        "free map",
        "part with a required field",
        "time",
    ],
)
def test_what_a_type_becomes(type_: Any, default: Any, expected: dict[str, Any]) -> None:
    assert _schema_of(type_, default) == expected | {"description": "A field."}


def test_a_quantity_is_an_integer_or_text() -> None:
    made = _schema_of(Quantity | None, None)
    assert made["x-kubernetes-int-or-string"] is True
    assert made["anyOf"] == [{"type": "integer"}, {"type": "string"}]
    assert "type" not in made
    assert len(made["x-kubernetes-validations"]) == 1


def test_rules_of_the_field_and_of_its_type_both_hold() -> None:
    made = _schema_of(Annotated[Inner, Kube(rules=(rule("size(self.text) > 1", "write more"),))])
    assert [one["message"] for one in made["x-kubernetes-validations"]] == ["give text", "write more"]


@pytest.mark.parametrize(
    ("type_", "sentence"),
    [
        (Node, "Toy.someField.child: Node contains itself"),
        (Inner | Other, "Toy.someField: a union of 2 types"),
        (str, "Toy.someField: type string without maxLength"),
        (tuple[Short, ...], "Toy.someField: type array without maxItems"),
        (dict[str, Short], "Toy.someField: a map without maxProperties"),
        (Annotated[dict[str, str], Field(max_length=2)], "Toy.someField{}: type string without maxLength"),
        (Annotated[tuple[str, ...], Field(max_length=2)], "Toy.someField[]: type string without maxLength"),
    ],
)
def test_what_has_no_bounded_schema(type_: Any, sentence: str) -> None:
    with pytest.raises(SchemaError, match="^" + sentence.replace("[]", r"\[\]").replace("{}", r"\{\}")):
        _schema_of(type_)


def test_a_field_without_description() -> None:
    part = create_model("Toy", __base__=Part, some_field=(int, 1))
    with pytest.raises(SchemaError, match=r"^Toy\.someField: no description$"):
        structural(part)
