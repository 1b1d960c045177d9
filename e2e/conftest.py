"""One cluster with the demo on it for all end-to-end tests; each test gets its service whole and leaves it whole."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from e2e.cluster.local import LocalCluster
from e2e.demo import local
from e2e.demo.kubernetes import built
from e2e.demo.release import NAMESPACE, install
from e2e.deployment import Deployment
from e2e.service import Service

CLUSTER = "e2e"


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--keep-cluster`: for work on the tests; the next run finds everything up."""
    parser.addoption("--keep-cluster", action="store_true", help=f"leave the cluster {CLUSTER} up afterwards")


@pytest.fixture(scope="session")
def installed(request: pytest.FixtureRequest) -> Iterator[Service]:
    """The demo's release and resource on a cluster of the tests' own."""
    cluster = LocalCluster(CLUSTER)
    try:
        installation = local.prepare_node_local(cluster)
        kubernetes = built(cluster.kubeconfig)
        name = install(kubernetes, installation)
        deployment = Deployment(kubernetes, NAMESPACE, name)
        yield Service(cluster, kubernetes, deployment, local.forward(cluster), dict(installation.values))
    finally:
        if not request.config.getoption("--keep-cluster"):
            cluster.down()


@pytest.fixture
def service(installed: Service) -> Service:
    """The service with one replica, wholly ready."""
    return _with_replicas(installed, 1)


@pytest.fixture
def pair(installed: Service) -> Service:
    """The service with two replicas, so that one is left when one is hurt."""
    return _with_replicas(installed, 2)


def _with_replicas(service: Service, count: int) -> Service:
    if service.deployment.get()["spec"]["replicas"] != count:
        service.deployment.scale(count)
    service.deployment.wait_ready()
    return service
