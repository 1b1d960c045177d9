"""What component tests share: one control plane a session, one namespace a test."""

import json
from collections.abc import Iterator
from itertools import count
from pathlib import PurePath

import pytest
from xdist.scheduler import LoadScopeScheduling

from e2e.cluster.controlplane import ControlPlane

_namespaces = count(1)
_ALONE = frozenset({"gateway", "operator"})
_STARTS_RAY = "test_serve_rest.py"


class _Sides(LoadScopeScheduling):  # type: ignore[misc]
    def _split_scope(self, nodeid: str) -> str:
        return side(nodeid)


def side(nodeid: str) -> str:
    """Which tests run one after the other: what mostly waits in three groups of like length, the engine's by file.

    Of two heads of Ray that start at once on one machine, one may not come up: who starts one is in the same group.
    """
    parts = PurePath(nodeid.partition("::")[0]).parts
    if "engine" in parts:
        return parts[-1]
    return next((part for part in parts if part in _ALONE and parts[-1] != _STARTS_RAY), "others")


def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> _Sides:
    """For runs on several processes."""
    return _Sides(config, log)


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
