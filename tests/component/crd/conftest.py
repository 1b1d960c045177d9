"""The API server with the committed CRD in it."""

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from e2e.cluster import programs
from e2e.cluster.controlplane import ControlPlane

ROOT = Path(__file__).resolve().parents[3]
CRD = ROOT / "crds/serving.aixcoder.io_aixcoderdeployments.yaml"
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

    def refusal(self, obj: object) -> str:
        """What kubectl prints where creating `obj` is refused; "" where it is accepted. Stores nothing."""
        done = subprocess.run(
            [
                str(programs.kubernetes_programs() / "kubectl"),
                f"--kubeconfig={self.plane.kubeconfig}",
                f"--namespace={self.namespace}",
                *("create", "--dry-run=server", "-f", "-"),
            ],
            input=json.dumps(obj),
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert (done.returncode != 0) == bool(done.stderr), done.stderr
        return done.stderr


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
