"""values.yaml and its schema: every value documented and known, every mistake refused by its name."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from tests.unit.chart.render import CHART, Object, refusal

DEFAULTS: Object = yaml.safe_load((CHART / "values.yaml").read_text())
SCHEMA: Object = json.loads((CHART / "values.schema.json").read_text())


def resolve(schema: Object) -> Object:
    """The schema that a $ref names."""
    return SCHEMA["$defs"][schema["$ref"].rsplit("/", 1)[1]] if "$ref" in schema else schema


def paths(value: Any, schema: Object, path: str = "") -> Iterator[tuple[str, Object]]:
    """("operator.resources", schema) of every section with fixed fields, the top one as ""."""
    if not isinstance(value, dict) or "properties" not in schema:
        return
    yield path, schema
    for name, child in value.items():
        yield from paths(child, resolve(schema["properties"][name]), f"{path}.{name}".lstrip("."))


SECTIONS = dict(paths(DEFAULTS, SCHEMA))


def nested(path: str, value: Object) -> Object:
    """{"a": {"b": value}} of "a.b"."""
    for name in reversed(path.split(".") if path else []):
        value = {name: value}
    return value


@pytest.mark.parametrize("section", SECTIONS)
def test_a_misspelt_value_is_refused_with_its_name_and_place(section: str) -> None:
    said = refusal(nested(section, {"mispelt": 1}))
    assert "'mispelt' not allowed" in said
    assert "at '" + "".join(f"/{name}" for name in section.split(".") if name) + "'" in said


@pytest.mark.parametrize("section", SECTIONS)
def test_schema_and_defaults_name_the_same_values(section: str) -> None:
    value = DEFAULTS
    for name in section.split(".") if section else []:
        value = value[name]
    optional = {"global"} if section == "" else {"claims"} if section.endswith("resources") else set()
    assert set(SECTIONS[section]["properties"]) - optional == set(value)


@pytest.mark.parametrize(
    ("values", "place"),
    [
        ({"operator": {"replicas": "2"}}, "/operator/replicas"),
        ({"operator": {"logLevel": "loud"}}, "/operator/logLevel"),
        ({"operator": {"workers": 0}}, "/operator/workers"),
        ({"gateway": {"service": {"type": "ExternalName"}}}, "/gateway/service/type"),
        ({"gateway": {"service": {"port": 70000}}}, "/gateway/service/port"),
        ({"gateway": {"resources": {"limits": {"memory": "1XB"}}}}, "/gateway/resources/limits/memory"),
        ({"gateway": {"env": [{"name": "DEBUG", "value": 1}]}}, "/gateway/env/0/value"),
        ({"gateway": {"podAnnotations": {"example.com/on": True}}}, "/gateway/podAnnotations/example.com~1on"),
        ({"image": {"registry": "https://mirror.example"}}, "/image/registry"),
        ({"image": {"control": {"digest": "sha256:abc"}}}, "/image/control/digest"),
        ({"image": {"control": {"tag": "a b"}}}, "/image/control/tag"),
        ({"image": {"control": {"repository": ""}}}, "/image/control/repository"),
        ({"image": {"pullSecrets": ["mirror"]}}, "/image/pullSecrets/0"),
        ({"image": {"pullPolicy": "Sometimes"}}, "/image/pullPolicy"),
        ({"namespaces": "team-a"}, "/namespaces"),
        ({"namespaces": ["Team A"]}, "/namespaces/0"),
        ({"namespaces": ["a", "a"]}, "/namespaces"),
        ({"operatorKey": {"existingSecret": "Not A Name"}}, "/operatorKey/existingSecret"),
        ({"serving": {"volumes": [{"emptyDir": {}}]}}, "/serving/volumes/0"),
        ({"serving": {"volumeMounts": [{"name": "a", "mountPath": "relative"}]}}, "/serving/volumeMounts/0/mountPath"),
        ({"networkPolicy": {"clients": [{}]}}, "/networkPolicy/clients/0"),
        ({"podMonitor": {"interval": "15"}}, "/podMonitor/interval"),
        ({"prometheusRule": {"alertLabels": {"page": True}}}, "/prometheusRule/alertLabels/page"),
        ({"dashboard": {"labels": {"grafana_dashboard": 1}}}, "/dashboard/labels/grafana_dashboard"),
    ],
)
def test_a_wrong_value_is_refused_with_its_place(values: Object, place: str) -> None:
    assert place in refusal(values).replace("'", "")
