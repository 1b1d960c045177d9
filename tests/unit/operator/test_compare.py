from typing import Any

import pytest

from aixcoder_operator.api.names import APPLIED_ANNOTATION
from aixcoder_operator.api.objects import Object
from aixcoder_operator.cluster.compare import digest, first_difference, stamped


def obj(spec: Any, **metadata: Any) -> Object:
    return {"apiVersion": "v1", "kind": "Thing", "metadata": {"name": "a", **metadata}, "spec": spec}


def observed(desired: Object, spec: Any, **metadata: Any) -> Object:
    """What the API server holds after `desired` was applied and `spec` has become what it is."""
    made = stamped(desired)
    return {**made, "metadata": {**made["metadata"], "uid": "u", **metadata}, "spec": spec}


SAME: list[tuple[str, Any, Any]] = [
    ("equal", {"a": 1, "b": ["x", {"c": True}]}, {"a": 1, "b": ["x", {"c": True}]}),
    ("defaults filled in", {"a": 1}, {"a": 1, "restartPolicy": "Always"}),
    ("defaults inside a list item", {"ports": [{"port": 1}]}, {"ports": [{"port": 1, "protocol": "TCP"}]}),
    ("empty values left out", {"a": None, "b": "", "c": {}, "d": [], "e": False, "f": 0}, {}),
    ("an empty object kept", {"emptyDir": {}}, {"emptyDir": {}}),
    ("cpu in canonical form", {"resources": {"limits": {"cpu": "1000m"}}}, {"resources": {"limits": {"cpu": "1"}}}),
    ("cpu as a number", {"requests": {"cpu": 2}}, {"requests": {"cpu": "2"}}),
    ("memory in canonical form", {"requests": {"memory": "1024Mi"}}, {"requests": {"memory": "1Gi"}}),
    ("memory with a fraction", {"requests": {"memory": "1.5Gi"}}, {"requests": {"memory": "1536Mi"}}),
    ("sizeLimit", {"emptyDir": {"sizeLimit": "2048Mi"}}, {"emptyDir": {"sizeLimit": "2Gi"}}),
    ("a volume injected", {"volumes": [{"name": "m"}]}, {"volumes": [{"name": "token"}, {"name": "m"}]}),
    (
        "a mount injected",
        {"containers": [{"name": "c", "volumeMounts": [{"mountPath": "/a", "name": "m"}]}]},
        {"containers": [{"name": "c", "volumeMounts": [{"mountPath": "/t"}, {"mountPath": "/a", "name": "m"}]}]},
    ),
    ("a sidecar injected", {"containers": [{"name": "c"}]}, {"containers": [{"name": "istio"}, {"name": "c"}]}),
    (
        "tolerations added, one key twice",
        {"tolerations": [{"key": "k", "effect": "NoExecute"}]},
        {"tolerations": [{"key": "k", "effect": "NoSchedule"}, {"key": "k", "effect": "NoExecute"}, {"key": "z"}]},
    ),
    ("a finalizer added", {"finalizers": ["a"]}, {"finalizers": ["b", "a"]}),
]

DIFFERENT: list[tuple[str, Any, Any, str]] = [
    ("a value", {"a": {"b": 1}}, {"a": {"b": 2}}, "spec.a.b"),
    ("a value missing", {"a": {"b": 1}}, {"a": {}}, "spec.a.b"),
    ("a type", {"a": {"b": 1}}, {"a": "x"}, "spec.a"),
    ("a list that is a string", {"a": ["x"]}, {"a": "x"}, "spec.a"),
    ("zero where it is not", {"replicas": 0}, {"replicas": 2}, "spec.replicas"),
    ("false where it is true", {"paused": False}, {"paused": True}, "spec.paused"),
    ("an argument added", {"args": ["a"]}, {"args": ["a", "b"]}, "spec.args"),
    ("arguments in another order", {"args": ["a", "b"]}, {"args": ["b", "a"]}, "spec.args[0]"),
    ("a rule let in", {"ingress": [{"from": ["x"]}]}, {"ingress": [{"from": ["x"]}, {}]}, "spec.ingress"),
    ("another quantity", {"limits": {"cpu": "1"}}, {"limits": {"cpu": "2"}}, "spec.limits.cpu"),
    ("a unit mistaken", {"limits": {"memory": "1G"}}, {"limits": {"memory": "1Gi"}}, "spec.limits.memory"),
    ("text outside of quantities", {"version": "1.0"}, {"version": "1"}, "spec.version"),
    ("a container gone", {"containers": [{"name": "c"}]}, {"containers": [{"name": "d"}]}, "spec.containers[0]"),
    (
        "an image changed",
        {"containers": [{"name": "a"}, {"name": "c", "image": "x"}]},
        {"containers": [{"name": "c", "image": "y"}, {"name": "a"}]},
        "spec.containers[1].image",
    ),
    ("a finalizer taken off", {"finalizers": ["a"]}, {"finalizers": ["b"]}, "spec.finalizers[0]"),
]


@pytest.mark.parametrize(("name", "desired", "stored"), SAME, ids=[case[0] for case in SAME])
def test_what_is_already_there_differs_in_nothing(name: str, desired: Any, stored: Any) -> None:
    assert first_difference(obj(desired), observed(obj(desired), stored)) is None


@pytest.mark.parametrize(("name", "desired", "stored", "path"), DIFFERENT, ids=[case[0] for case in DIFFERENT])
def test_the_first_difference_is_named(name: str, desired: Any, stored: Any, path: str) -> None:
    assert first_difference(obj(desired), observed(obj(desired), stored)) == path


def test_what_is_no_longer_desired_is_a_difference_though_all_that_is_desired_is_there() -> None:
    before, after = obj({"a": 1, "b": 2}), obj({"a": 1})
    assert first_difference(after, observed(before, {"a": 1, "b": 2})) == f"metadata.annotations.{APPLIED_ANNOTATION}"


def test_an_object_that_was_never_applied_differs() -> None:
    assert first_difference(obj({"a": 1}), obj({"a": 1})) is not None


def test_labels_and_annotations_of_others_are_left_alone() -> None:
    desired = obj({}, labels={"ours": "1"}, annotations={"note": "1"})
    stored = observed(desired, {})
    stored["metadata"]["labels"] = {"ours": "1", "theirs": "2"}
    stored["metadata"]["annotations"] = {**stored["metadata"]["annotations"], "theirs": "2"}
    assert first_difference(desired, stored) is None
    stored["metadata"]["labels"] = {"theirs": "2"}
    assert first_difference(desired, stored) == "metadata.labels.ours"


def test_the_stamp_changes_a_copy_and_keeps_other_annotations() -> None:
    desired = obj({"a": 1}, annotations={"note": "1"})
    made = stamped(desired)
    assert made["metadata"]["annotations"] == {"note": "1", APPLIED_ANNOTATION: digest(desired)}
    assert desired["metadata"]["annotations"] == {"note": "1"}


def test_the_digest_knows_content_and_no_order_of_keys() -> None:
    assert digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1})
    assert digest({"a": 1}) != digest({"a": 2})
    assert digest({"a": [1, 2]}) != digest({"a": [2, 1]})
