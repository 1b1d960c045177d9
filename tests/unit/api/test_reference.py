from aixcoder_operator.api.reference import page
from aixcoder_operator.api.schema import Schema

FIELDS: dict[str, Schema] = {
    "text": {"type": "string", "maxLength": 8, "description": "One | two."},
    "choice": {"type": "string", "enum": ["a", "b"], "description": "Pick."},
    "count": {"type": "integer", "minimum": 0, "maximum": 9, "description": "How many."},
    "least": {"type": "integer", "minimum": -1, "description": "No fewer."},
    "memory": {"x-kubernetes-int-or-string": True, "description": "How much."},
    "at": {"type": "string", "format": "date-time", "description": "When."},
    "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": True, "description": "Anything."},
    "labels": {
        "type": "object",
        "maxProperties": 4,
        "additionalProperties": {"type": "string", "maxLength": 63},
        "x-kubernetes-validations": [{"rule": "true", "message": "choose well"}],
        "description": "Labels.",
    },
    "parts": {
        "type": "array",
        "maxItems": 3,
        "description": "Parts.",
        "items": {
            "type": "object",
            "description": "One part.",
            "required": ["name"],
            "properties": {"name": {"type": "string", "maxLength": 5, "description": "Its name."}},
            "x-kubernetes-validations": [{"rule": "true", "message": "name it well"}],
        },
    },
}
SCHEMA: Schema = {
    "description": "A toy.",
    "properties": {
        "spec": {"type": "object", "description": "Wishes.", "properties": FIELDS},
        "status": {"type": "object", "description": "Facts.", "properties": {}},
    },
}


def test_a_row_for_each_field() -> None:
    lines = page(SCHEMA).splitlines()
    start = lines.index("## spec")
    assert lines[start : start + 14] == [
        "## spec",
        "",
        "Wishes.",
        "",
        "| field | type | what it is |",
        "|---|---|---|",
        "| `text` | text, at most 8 | One \\| two. |",
        "| `choice` | `a` or `b` | Pick. |",
        "| `count` | integer, 0 to 9 | How many. |",
        "| `least` | integer, at least -1 | No fewer. |",
        "| `memory` | quantity | How much. |",
        "| `at` | time | When. |",
        "| `free` | free object | Anything. |",
        "| `labels` | map of at most 4 | Labels. Rule: choose well. |",
    ]


def test_a_section_for_each_block() -> None:
    lines = page(SCHEMA).splitlines()
    start = lines.index("## spec.parts[]")
    assert lines[start : start + 9] == [
        "## spec.parts[]",
        "",
        "One part.",
        "",
        "- name it well",
        "",
        "| field | type | what it is |",
        "|---|---|---|",
        "| `name` * | text, at most 5 | Its name. |",
    ]
