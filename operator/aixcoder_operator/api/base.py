"""What every part of the resource shares: naming, and the Kubernetes words that pydantic has no name for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel, ConfigDict, GetJsonSchemaHandler, JsonValue
from pydantic.alias_generators import to_camel
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

GROUP = "serving.aixcoder.io"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"
KIND = "AixcoderDeployment"
PLURAL = "aixcoderdeployments"

RULES = "x-kubernetes-validations"
PRESERVE = "x-kubernetes-preserve-unknown-fields"


class Part(BaseModel):
    """A part of the resource: camelCase in YAML, snake_case in Python, immutable.

    Unknown fields are ignored: an operator one version behind its CRD must still read what is stored. Misspelt ones are
    refused by the API server's strict field validation, which `kubectl apply` asks for by default.
    """

    model_config = ConfigDict(extra="ignore", frozen=True, alias_generator=to_camel, populate_by_name=True)


def ruled(*rules: dict[str, str]) -> ConfigDict:
    """Configuration of a `Part` whose values must hold `rules` as a whole."""
    return ConfigDict(json_schema_extra={RULES: [dict[str, JsonValue](one) for one in rules]})


def rule(expression: str, message: str, field_path: str | None = None) -> dict[str, str]:
    """One CEL rule of the API server: a value for which `expression` is false is refused with `message`.

    `field_path` (".gpu") names the child the message is about, where the rule stands on its parent.
    """
    made = {"rule": expression, "message": message}
    return made if field_path is None else made | {"fieldPath": field_path}


@dataclass(frozen=True, eq=False)
class Kube:
    """Marks a type (`Annotated[T, Kube(...)]`) with schema words that only Kubernetes has.

    `rules`: see `rule`. `map_keys`: the list is a map by these fields, so that server-side apply merges by entry.
    `replace`: words that take the place of what pydantic derives.
    """

    rules: tuple[dict[str, str], ...] = ()
    map_keys: tuple[str, ...] = ()
    replace: Mapping[str, Any] = field(default_factory=dict)

    def __get_pydantic_json_schema__(self, core: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        schema = dict(self.replace) if self.replace else handler(core)
        if self.rules:
            schema[RULES] = [*schema.get(RULES, []), *self.rules]
        if self.map_keys:
            schema |= {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": list(self.map_keys)}
        return schema
