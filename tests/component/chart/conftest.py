"""A real API server that enforces Pod Security `restricted` where the chart is installed."""

import json
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest

from e2e.cluster.controlplane import ControlPlane
from e2e.cluster.programs import kubernetes_programs, module_folder
from tests.unit.chart.render import CHART

T = TypeVar("T")


def until(look: Callable[[], T], wanted: Callable[[T], bool], seconds: float = 60) -> T:
    """What `look` sees once it is as wanted. AssertionError with the last of it where that does not come."""
    end = time.monotonic() + seconds
    while not wanted(seen := look()):
        assert time.monotonic() < end, seen
        time.sleep(0.1)
    return seen


class Release:
    """One release of the chart, in a namespace of its own that enforces Pod Security `restricted`."""

    def __init__(self, plane: ControlPlane, namespace: str, folder: Path) -> None:
        self.plane = plane
        self.namespace = namespace
        self._folder = folder

    def helm(self, *arguments: str, values: dict[str, Any] | None = None) -> str:
        """Run helm against the control plane. AssertionError with what it said where it fails."""
        file = self._folder / "values.json"
        file.write_text(json.dumps(values or {}))
        command = [str(kubernetes_programs() / "helm"), f"--kubeconfig={self.plane.kubeconfig}"]
        command += [f"--namespace={self.namespace}", *arguments]
        if arguments[0] in ("install", "upgrade"):
            command += [str(CHART), f"--values={file}"]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def get(self, *arguments: str) -> Any:
        """What `kubectl get … -o json` says in the release's namespace."""
        return json.loads(self.plane.kubectl("get", f"--namespace={self.namespace}", "-o", "json", *arguments))


# What the chart offers where a cluster has these kinds, as their projects publish them (Go modules carry them too).
_DEFINITIONS = (
    (
        "sigs.k8s.io/gateway-api@v1.6.3",
        "h1:lKpJa5bGlraC/QeACvCpsHLdmO6y0iKfzVl6gzaFEYc=",
        "config/crd/standard/gateway.networking.k8s.io_httproutes.yaml",
    ),
    *(
        (
            "github.com/prometheus-operator/prometheus-operator@v0.92.1",
            "h1:rHWuFo6SVya4FBSCNg2DCzyc4xAv54zk3eDTzp5mQZc=",
            f"example/prometheus-operator-crd/monitoring.coreos.com_{kind}.yaml",
        )
        for kind in ("podmonitors", "prometheusrules")
    ),
)


@pytest.fixture(scope="package")
def control_plane() -> Iterator[ControlPlane]:
    """A control plane of the chart's own: Helm takes over no definition that other tests brought, and removes none."""
    with ControlPlane(controllers=True) as plane:
        for module, digest, file in _DEFINITIONS:
            plane.kubectl("create", "-f", str(module_folder(module, digest) / file))
        plane.kubectl("wait", "--for=condition=Established", "--timeout=60s", "crd", "--all")
        yield plane


@pytest.fixture
def release(control_plane: ControlPlane, namespace: str, tmp_path: Path) -> Iterator[Release]:
    """Nothing installed yet; what was is uninstalled after the test, the definition too."""
    labels = {
        "pod-security.kubernetes.io/enforce": "restricted",
        "pod-security.kubernetes.io/enforce-version": "latest",
    }
    control_plane.api.merge(f"/api/v1/namespaces/{namespace}", {"metadata": {"labels": labels}})
    made = Release(control_plane, namespace, tmp_path)
    yield made
    if "aixcoder" in made.helm("list", "--short"):
        made.helm("uninstall", "aixcoder", "--no-hooks", "--ignore-not-found")
    control_plane.kubectl("delete", "crd", "--ignore-not-found", "aixcoderdeployments.serving.aixcoder.io")
