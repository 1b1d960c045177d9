"""The operator's machinery against a real API server that has the CRD."""

import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from kubernetes.aio.client.configuration import Configuration

from aixcoder_operator.api.objects import Object
from aixcoder_operator.cluster.client import Client
from aixcoder_operator.cluster.connection import connect, load_configuration
from e2e.cluster.controlplane import ControlPlane
from tests.component.operator.apiproxy import ApiProxy

ROOT = Path(__file__).resolve().parents[3]
CRD = ROOT / "crds/serving.aixcoder.io_aixcoderdeployments.yaml"


def serve_deployments(plane: ControlPlane) -> ControlPlane:
    """Have it serve AixcoderDeployments."""
    plane.kubectl("apply", "--server-side", "-f", str(CRD))
    # `condition=` is an error while the definition has no status at all.
    established = "jsonpath={.status.conditions[?(@.type=='Established')].status}=True"
    plane.kubectl("wait", f"--for={established}", "crd/aixcoderdeployments.serving.aixcoder.io")
    return plane


@pytest.fixture(scope="session")
def plane(control_plane: ControlPlane) -> ControlPlane:
    """The control plane, serving AixcoderDeployments."""
    return serve_deployments(control_plane)


@pytest.fixture
async def configuration(plane: ControlPlane, monkeypatch: pytest.MonkeyPatch) -> Configuration:
    """An administrator's way to the API server."""
    monkeypatch.setenv("KUBECONFIG", str(plane.kubeconfig))
    return await load_configuration()


@pytest.fixture
async def client(configuration: Configuration) -> AsyncIterator[Client]:
    """An administrator's client."""
    async with connect(configuration) as connected:
        yield connected


@pytest.fixture
async def proxy(configuration: Configuration) -> AsyncIterator[ApiProxy]:
    """A proxy before the API server, forwarding."""
    async with ApiProxy(configuration).running() as running:
        yield running


@pytest.fixture
async def proxied(proxy: ApiProxy) -> AsyncIterator[Client]:
    """A client that goes through `proxy` and waits a second at most."""
    async with connect(proxy.configuration, request_seconds=1.0) as connected:
        yield connected


MakeParent = Callable[..., Object]


@pytest.fixture
def make_parent(plane: ControlPlane, namespace: str) -> MakeParent:
    """Creates an AixcoderDeployment in the test's namespace and returns it as stored."""

    def make(name: str = "demo", **spec: Any) -> Object:
        manifest = {
            "apiVersion": "serving.aixcoder.io/v1alpha1",
            "kind": "AixcoderDeployment",
            "metadata": {"name": name, "namespace": namespace},
            "spec": {
                "model": {"source": {"image": {"reference": "example/model:1"}}},
                "engine": {"device": "cpu"},
                **spec,
            },
        }
        stored: Object = json.loads(plane.kubectl("create", "-f", "-", "-o", "json", stdin=json.dumps(manifest)))
        return stored

    return make


class AuditLog:
    """What the API server was asked since `mark`."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = 0
        self.mark()

    def mark(self) -> None:
        """Forget what was before."""
        self._offset = self._path.stat().st_size

    def since(self, namespace: str, verbs: tuple[str, ...] = ("create", "update", "patch", "delete")) -> list[str]:
        """Requests for objects in `namespace`, by whomever, as "verb resource/name user-agent"."""
        with self._path.open("rb") as file:
            # A line that was only half written at the mark is of before it.
            file.seek(max(self._offset - 1, 0))
            if self._offset:
                file.readline()
            entries = [json.loads(line) for line in file if line.endswith(b"\n")]
        return [
            f"{entry['verb']} {reference['resource']}/{reference.get('name', '')} {entry.get('userAgent', '')}"
            for entry in entries
            if (reference := entry.get("objectRef")) and reference.get("namespace") == namespace
            if entry["verb"] in verbs
        ]

    def ours(self, namespace: str) -> list[str]:
        """Writes of the operator, "verb resource/name"."""
        return [line.rsplit(" ", 1)[0] for line in self.since(namespace) if line.endswith(" aixcoder-operator")]


@pytest.fixture
def audit(plane: ControlPlane) -> AuditLog:
    """The audit log from the test's beginning on."""
    return AuditLog(plane.audit_log)
