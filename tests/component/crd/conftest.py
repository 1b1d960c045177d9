"""The API server with the committed CRD in it."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from e2e.cluster.api import ApiError
from e2e.cluster.controlplane import ControlPlane

ROOT = Path(__file__).resolve().parents[3]
CRD = ROOT / "crds/serving.aixcoder.io_aixcoderdeployments.yaml"
COLLECTION = "/apis/serving.aixcoder.io/v1alpha1/namespaces/{namespace}/aixcoderdeployments"
NAME = "aixcoderdeployments.serving.aixcoder.io"


@dataclass(frozen=True)
class Kubectl:
    """kubectl as an administrator of one namespace."""

    plane: ControlPlane
    namespace: str

    def __call__(self, *arguments: str, stdin: object = None) -> str:
        """Its stdout; `stdin` goes as JSON. Raises ClusterError with its stderr."""
        text = "" if stdin is None else json.dumps(stdin)
        return self.plane.kubectl(f"--namespace={self.namespace}", *arguments, stdin=text)

    def get(self, name: str) -> dict[str, Any]:
        """The stored AixcoderDeployment."""
        found: dict[str, Any] = json.loads(self("get", "axd", name, "-o", "json"))
        return found

    def refusal(self, obj: dict[str, Any], collection: str = COLLECTION) -> str:
        """The sentence with which the server refuses to create `obj`, "" where it takes it. Stores nothing."""
        path = collection.format(namespace=self.namespace)
        try:
            self.plane.api.create(f"{path}?dryRun=All&fieldValidation=Strict", obj)
        except ApiError as error:
            status = json.loads(str(error).partition(": ")[2])
            return str(status["message"])
        return ""


@pytest.fixture(scope="session")
def crd_plane(control_plane: ControlPlane) -> ControlPlane:
    """The control plane, with the CRD established."""
    control_plane.kubectl("apply", "-f", str(CRD))
    control_plane.kubectl("wait", "--for=condition=Established", "--timeout=30s", f"crd/{NAME}")
    return control_plane


@pytest.fixture
def kubectl(crd_plane: ControlPlane, namespace: str) -> Kubectl:
    """kubectl in a fresh namespace."""
    return Kubectl(crd_plane, namespace)


@pytest.fixture(scope="session")
def kubectl_default(crd_plane: ControlPlane) -> Kubectl:
    """kubectl in the namespace default, for what stores nothing."""
    return Kubectl(crd_plane, "default")
