from pathlib import Path
from typing import Any

import pytest

from e2e.cluster.errors import ClusterError
from e2e.demo import completion, existing, local
from e2e.demo.__main__ import chosen, instructions
from e2e.demo.readiness import is_ready, sentence
from e2e.demo.release import EXAMPLE, MADE_BY_DEMO, NAMESPACE, SYSTEM_NAMESPACE, namespaces, resource, strangers
from e2e.images import oci
from e2e.images.dependencies import claim_name

Json = dict[str, Any]


def told(*conditions: tuple[str, str, str, str], generation: int = 1, observed: int = 1) -> Json:
    """A resource with conditions of (type, status, reason, message)."""
    listed = [
        {"type": kind, "status": status, "reason": reason, "message": message, "observedGeneration": observed}
        for kind, status, reason, message in conditions
    ]
    return {"metadata": {"generation": generation}, "status": {"conditions": listed}}


READY = ("Ready", "True", "AllReplicasReady", "1 of 1 ready")
LOADING = ("Ready", "False", "ModelLoading", "0 of 1 ready: 40 %")
STALLED = ("Stalled", "True", "ImagePullFailed", "no such image")
NOT_STALLED = ("Stalled", "False", "", "")


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        ({}, "waiting for the operator"),
        (told(), "waiting for the operator"),
        (told(LOADING), "ModelLoading: 0 of 1 ready: 40 %"),
        (told(LOADING, NOT_STALLED), "ModelLoading: 0 of 1 ready: 40 %"),
        (told(STALLED, LOADING), "Stalled: ImagePullFailed: no such image; ModelLoading: 0 of 1 ready: 40 %"),
        (told(READY), "AllReplicasReady: 1 of 1 ready"),
    ],
)
def test_what_the_operator_says(found: Json, expected: str) -> None:
    assert sentence(found) == expected


@pytest.mark.parametrize(
    ("found", "expected"),
    [(told(READY), True), (told(LOADING), False), (told(), False), (told(READY, generation=2), False)],
)
def test_ready_is_of_what_is_wished_for_now(found: Json, expected: bool) -> None:
    assert is_ready(found) is expected


def test_the_example_runs_as_it_is_where_gpus_are() -> None:
    found = resource(EXAMPLE.read_text(), model_image=None, gpus=True)
    assert found["spec"]["model"]["source"]["image"]["reference"] == local.tiny_model().reference
    assert found["spec"]["resources"]["gpu"]


def test_the_example_is_fitted_to_a_cluster_without_gpus() -> None:
    found = resource(EXAMPLE.read_text(), model_image="registry.example/model:1", gpus=False)
    assert found["spec"]["model"]["source"]["image"]["reference"] == "registry.example/model:1"
    assert "gpu" not in found["spec"]["resources"]
    assert found["spec"]["engine"]["device"] == "cpu"


def test_a_namespace_of_someone_else_is_left_alone() -> None:
    theirs: list[Json] = [
        {"metadata": {"name": "unlabelled"}},
        {"metadata": {"name": "labelled", "labels": {"app.kubernetes.io/managed-by": "Helm"}}},
    ]
    assert strangers([*namespaces(), *theirs]) == ["unlabelled", "labelled"]
    assert all(MADE_BY_DEMO.items() <= item["metadata"]["labels"].items() for item in namespaces())


def test_a_changed_image_has_another_tag() -> None:
    images = [oci.Image("aixcoder/control:dev", [], environment={"VERSION": version}) for version in ("1", "2", "1")]
    tags = [local.tag(local.by_content(image)) for image in images]
    assert tags[0] == tags[2] != tags[1]
    assert local.by_content(images[0]).reference == f"aixcoder/control:{tags[0]}"


def test_node_local_mode_mounts_the_packages_read_only_everywhere(tmp_path: Path) -> None:
    image = oci.Image("aixcoder/control:abc", [])
    packages = tmp_path / "0123-py3.12"
    installation, claim = local.node_local(local.NodeLocal(image, image, packages)), claim_name(packages)
    for program in ("operator", "gateway", "serving"):
        assert installation.values[program]["volumes"][0]["persistentVolumeClaim"]["claimName"] == claim
        assert installation.values[program]["volumeMounts"][0]["readOnly"] is True
    claims = [item for item in installation.objects if item["kind"] == "PersistentVolumeClaim"]
    assert {item["metadata"]["namespace"] for item in claims} == {SYSTEM_NAMESPACE, NAMESPACE}


@pytest.mark.parametrize(("colour", "marked"), [(False, "⟦return 1⟧"), (True, "\x1b[1;32mreturn 1\x1b[0m")])
def test_the_completion_stands_out_where_it_was_put(*, colour: bool, marked: str) -> None:
    lines = completion.shown("return 1", colour=colour).splitlines()
    assert f"        {marked}" in lines
    assert lines[0] == f"    {completion.PROMPT.splitlines()[0]}"


@pytest.mark.parametrize(
    ("value", "expected"), [(None, "local"), ("", "local"), ("existing", "existing"), ("remote", None)]
)
def test_a_variable_is_one_of_its_values(
    monkeypatch: pytest.MonkeyPatch, value: str | None, expected: str | None
) -> None:
    if value is None:
        monkeypatch.delenv("CLUSTER", raising=False)
    else:
        monkeypatch.setenv("CLUSTER", value)
    if expected is None:
        with pytest.raises(ClusterError, match=r"CLUSTER is one of local, existing, not 'remote'\."):
            chosen("CLUSTER", ("local", "existing"))
    else:
        assert chosen("CLUSTER", ("local", "existing")) == expected


def test_an_existing_cluster_asks_for_what_it_needs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "missing"))
    with pytest.raises(ClusterError, match="needs KUBECONFIG to name one file"):
        existing.kubeconfig()
    monkeypatch.delenv("IMAGE_REGISTRY", raising=False)
    with pytest.raises(ClusterError, match="needs IMAGE_REGISTRY"):
        existing.registry()
    monkeypatch.setenv("IMAGE_REGISTRY", "registry.example/team/")
    assert existing.registry() == "registry.example/team"


def test_the_instructions_name_the_url_and_the_way_out() -> None:
    shown = instructions("http://127.0.0.1:1", "first\nsecond")
    assert "http://127.0.0.1:1" in shown
    assert "\n  first\n  second\n" in shown
    assert "make demo-down" in shown
