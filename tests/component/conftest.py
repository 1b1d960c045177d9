"""What component tests share: one control plane a session, one namespace a test."""

import json
from collections.abc import Iterator
from itertools import count

import pytest

from e2e.cluster.controlplane import ControlPlane

_namespaces = count(1)


@pytest.fixture(scope="session")
def control_plane() -> Iterator[ControlPlane]:
    """etcd, the API server and the controller manager; its audit log holds the bodies of requests."""
    with ControlPlane(controllers=True, audit="Request") as plane:
        yield plane


@pytest.fixture
def namespace(control_plane: ControlPlane) -> Iterator[str]:
    """The name of a fresh namespace, deleted after the test."""
    name = f"test-{next(_namespaces)}"
    manifest = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
    control_plane.kubectl("create", "-f", "-", stdin=json.dumps(manifest))
    yield name
    control_plane.api.delete(f"/api/v1/namespaces/{name}")
