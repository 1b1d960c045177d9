"""The kinds of string and number that several parts of the resource use."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Field, PlainSerializer

from aixcoder_operator.api.base import Kube, rule


def _quantity_text(value: object) -> object:
    # `cpu: 4` and `cpu: "4"` are one wish and must hash alike.
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _to_second(value: datetime) -> datetime:
    utc = value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)
    return utc.replace(microsecond=0)


_QUANTITY = {
    "anyOf": [{"type": "integer"}, {"type": "string"}],
    "x-kubernetes-int-or-string": True,
    "maxLength": 32,
}

Quantity = Annotated[
    str,
    BeforeValidator(_quantity_text),
    Kube(
        replace=_QUANTITY,
        rules=(
            rule(
                "type(self) == int ? self > 0"
                " : (isQuantity(string(self)) && quantity(string(self)).isGreaterThan(quantity('0')))",
                "write a quantity greater than 0, like 500m or 4 for cpu and 512Mi or 24Gi for memory",
            ),
        ),
    ),
]
"""A Kubernetes quantity ("500m", "24Gi"); a bare integer is read as its text."""

Timestamp = Annotated[
    datetime,
    AfterValidator(_to_second),
    PlainSerializer(lambda at: at.strftime("%Y-%m-%dT%H:%M:%SZ"), return_type=str, when_used="json"),
    Kube(replace={"type": "string", "format": "date-time"}),
]
"""A moment in UTC, to the second, as Kubernetes writes it: what is read back equals what was written."""

ObjectName = Annotated[
    str,
    Field(min_length=1, max_length=253),
    Kube(
        rules=(
            rule(
                "!format.dns1123Subdomain().validate(self).hasValue()",
                "write the name of a Kubernetes object: lower-case letters, digits, '-' and '.', a letter or digit "
                "at both ends",
            ),
        )
    ),
]
"""The name of another Kubernetes object (claim, Secret, class)."""

QualifiedName = Annotated[
    str,
    Field(min_length=1, max_length=317),
    Kube(
        rules=(
            rule(
                "!format.qualifiedName().validate(self).hasValue()",
                "write a label key: an optional DNS prefix and '/', then at most 63 letters, digits, '-', '_' and '.'",
            ),
        )
    ),
]
"""A label key, "topology.kubernetes.io/zone"."""

RelativePath = Annotated[
    str,
    Field(min_length=1, max_length=512),
    Kube(
        rules=(
            rule(
                "!self.startsWith('/') && self.split('/').all(part, part != '..')",
                "write a path inside the volume: no '/' in front and no '..' in it",
            ),
        )
    ),
]
"""A path inside a volume."""
