from collections.abc import Iterator
from typing import Any

import yaml

from aixcoder_operator.api.definition import NAME, definition, digest, schema
from aixcoder_operator.api.names import SCHEMA_ANNOTATION


def _nodes(node: dict[str, Any], path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    yield path, node
    for word in ("items", "additionalProperties"):
        if word in node:
            yield from _nodes(node[word], f"{path}[]")
    for name, child in node.get("properties", {}).items():
        yield from _nodes(child, f"{path}.{name}".lstrip("."))


def test_it_is_small_enough_for_kubectl_apply() -> None:
    # kubectl keeps a copy in an annotation, which may have 256 KiB with all others.
    assert len(yaml.safe_dump(definition()).encode()) < 100 * 1024


def test_only_status_has_a_default() -> None:
    defaults = {path: node["default"] for path, node in _nodes(schema()) if "default" in node}
    assert defaults == {"status": {"observedGeneration": -1}}


def test_every_rule_says_what_to_do_and_none_is_cut() -> None:
    rules = [one for _, node in _nodes(schema()) for one in node.get("x-kubernetes-validations", [])]
    assert len(rules) > 30
    assert [one for one in rules if not 20 <= len(one["message"]) <= 200] == []


def test_required_are_the_fields_that_have_no_sensible_default() -> None:
    required = {path: node["required"] for path, node in _nodes(schema()["properties"]["spec"]) if "required" in node}
    assert required == {
        "": ["model"],
        "autoscaling": ["maxReplicas"],
        "autoscaling.scaleDown": ["replicas", "periodSeconds"],
        "autoscaling.scaleUp": ["replicas", "periodSeconds"],
        "autoscaling.schedule[]": ["start", "end", "minReplicas"],
        "model": ["source"],
        "model.source.persistentVolumeClaim": ["claimName"],
        "model.source.image": ["reference"],
        "scheduling.topologySpreadConstraints[]": ["maxSkew", "topologyKey", "whenUnsatisfiable"],
        "worker.env[]": ["name"],
        "worker.volumes[]": ["name"],
        "worker.volumeMounts[]": ["name", "mountPath"],
        "worker.imagePullSecrets[]": ["name"],
    }


def test_map_keys_are_required_fields() -> None:
    for path, node in _nodes(schema()):
        if keys := node.get("x-kubernetes-list-map-keys"):
            assert set(keys) <= set(node["items"]["required"]), path


def test_the_digest_tells_one_schema_from_another() -> None:
    made = definition()
    assert made["metadata"] == {"name": NAME, "annotations": {SCHEMA_ANNOTATION: digest(made["spec"])}}
    other = made["spec"] | {"scope": "Cluster"}
    assert digest(other) != digest(made["spec"])
    assert digest(dict(reversed(made["spec"].items()))) == digest(made["spec"])
