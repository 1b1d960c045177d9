"""The manifests in docs/weights.md, as a namespace that enforces Pod Security `restricted` takes them."""

import re
from textwrap import dedent
from typing import Any

import pytest
import yaml

from .conftest import ROOT, Kubectl

WEIGHTS = (ROOT / "docs/weights.md").read_text(encoding="utf-8")
MANIFESTS: list[dict[str, Any]] = [
    document
    for block in re.findall(r"```yaml\n(.*?)\n *```", WEIGHTS, flags=re.DOTALL)
    for document in yaml.safe_load_all(dedent(block))
]


def test_there_is_one_claim_and_one_pod() -> None:
    assert [manifest["kind"] for manifest in MANIFESTS] == ["PersistentVolumeClaim", "Pod"]


@pytest.mark.parametrize("manifest", MANIFESTS, ids=[manifest["kind"] for manifest in MANIFESTS])
def test_the_server_takes_it(kubectl: Kubectl, manifest: dict[str, Any]) -> None:
    kubectl("label", "namespace", kubectl.namespace, "pod-security.kubernetes.io/enforce=restricted")
    plural = {"PersistentVolumeClaim": "persistentvolumeclaims", "Pod": "pods"}[manifest["kind"]]
    assert kubectl.refusal(manifest, "/api/v1/namespaces/{namespace}/" + plural) == ""


def test_the_example_uses_the_claim_that_is_filled() -> None:
    example = yaml.safe_load((ROOT / "examples/aixcoder-7b-pvc.yaml").read_text(encoding="utf-8"))
    source = example["spec"]["model"]["source"]["persistentVolumeClaim"]
    assert source["claimName"] == MANIFESTS[0]["metadata"]["name"]
    assert f"kubectl cp aixcoder-7b fill-weights:/weights/{source['path']}" in WEIGHTS
