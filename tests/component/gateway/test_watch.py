"""The gateway's view of a real API server, also while that is away."""

import asyncio
import json
import os
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import openai
import pytest
import yaml

from aixcoder_serving.gateway import kubeapi, routing
from aixcoder_serving.gateway.routing import View
from aixcoder_serving.gateway.watch import DEPLOYMENTS, SLICES, KubernetesRoutes, Mirror
from e2e.cluster.controlplane import ControlPlane
from tests.component.gateway.conftest import ROOT, StartReplica, eventually

CRD = ROOT / "crds/serving.aixcoder.io_aixcoderdeployments.yaml"
ONE, TWO, THREE = "10.1.0.1", "10.1.0.2", "10.1.0.3"


@dataclass
class Cluster:
    """What the operator and the controller manager would write, in one namespace."""

    plane: ControlPlane
    namespace: str

    async def deployment(self, name: str, *, version: int, weights: dict[str, int], **spec: Any) -> None:
        """Write an AixcoderDeployment and its traffic."""
        model = {"source": {"image": {"reference": "registry.example/m:1"}}, **spec.pop("model", {})}
        body = {
            "apiVersion": "serving.aixcoder.io/v1alpha1",
            "kind": "AixcoderDeployment",
            "metadata": {"name": name, "namespace": self.namespace},
            "spec": {"model": model, "resources": {"gpu": {}}, **spec},
        }
        path = self.path(DEPLOYMENTS, name)
        await asyncio.to_thread(self.plane.api.apply, path, body)
        # In a merge patch a null takes a key out: the weights are replaced as a whole.
        for traffic in ({"weights": None}, {"version": version, "weights": weights}):
            await asyncio.to_thread(self.plane.api.merge, f"{path}/status", {"status": {"traffic": traffic}})

    async def slice(
        self, unit: str, ready: list[str], *, terminating: list[str] | None = None, port: int = 30000
    ) -> None:
        """Write a unit's EndpointSlice."""
        endpoints = [{"addresses": [ip], "conditions": {"ready": True}} for ip in ready]
        endpoints += [
            {"addresses": [ip], "conditions": {"ready": False, "serving": True, "terminating": True}}
            for ip in terminating or []
        ]
        labels = {"kubernetes.io/service-name": unit, "serving.aixcoder.io/unit": unit}
        body = {
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {"name": f"{unit}-s", "namespace": self.namespace, "labels": labels},
            "addressType": "IPv4",
            "ports": [{"name": "http", "port": port, "protocol": "TCP"}],
            "endpoints": endpoints,
        }
        await asyncio.to_thread(self.plane.api.apply, self.path(SLICES, f"{unit}-s"), body)

    async def delete(self, resource: tuple[str, str], name: str) -> None:
        """Delete an object."""
        await asyncio.to_thread(self.plane.api.delete, self.path(resource, name))

    def path(self, resource: tuple[str, str], name: str) -> str:
        """An object's path in the API."""
        return f"/{resource[0]}/namespaces/{self.namespace}/{resource[1]}/{name}"


@pytest.fixture(scope="session")
def plane(control_plane: ControlPlane) -> ControlPlane:
    """The control plane, with the CRD established."""
    control_plane.kubectl("apply", "-f", str(CRD))
    name = "crd/aixcoderdeployments.serving.aixcoder.io"
    control_plane.kubectl("wait", "--for=condition=Established", "--timeout=30s", name)
    return control_plane


@pytest.fixture
def cluster(plane: ControlPlane, namespace: str) -> Cluster:
    """A fresh namespace."""
    return Cluster(plane, namespace)


@dataclass
class Forwarder:
    """The way to the API server, which can be cut."""

    target: tuple[str, int]
    port: int = 0
    server: asyncio.Server | None = None
    connections: set[asyncio.Task[None]] = field(default_factory=set)

    async def open(self) -> None:
        """Listen; again on the same port after `cut`."""
        self.server = await asyncio.start_server(self._accepted, "127.0.0.1", self.port)
        self.port = self.server.sockets[0].getsockname()[1]

    async def cut(self) -> None:
        """Nothing listens any more, and every connection is gone, one that is still being opened too."""
        if self.server is not None:
            self.server.close()
            for connection in self.connections:
                connection.cancel()
            await asyncio.gather(*self.connections, return_exceptions=True)

    def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # A task of our own: asyncio 3.11 says an error of each of its own that is cancelled.
        task = asyncio.ensure_future(self._forward(reader, writer))
        self.connections.add(task)
        task.add_done_callback(self.connections.discard)

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        ends = [writer]
        try:
            with suppress(OSError):
                above_reader, above = await asyncio.open_connection(*self.target)
                ends.append(above)
                await asyncio.gather(self._pump(reader, above), self._pump(above_reader, writer))
        finally:
            for end in ends:
                end.transport.abort()

    async def _pump(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await source.read(2**16):
                sink.write(data)
                await sink.drain()
        sink.close()


@asynccontextmanager
async def forwarder(plane: ControlPlane, tmp_path: Path) -> AsyncIterator[tuple[Forwarder, Path]]:
    """A way to the API server that can be cut, and a kubeconfig that takes it."""
    config = yaml.safe_load(plane.kubeconfig.read_text())
    host, port = config["clusters"][0]["cluster"]["server"].removeprefix("https://").split(":")
    way = Forwarder((host, int(port)))
    await way.open()
    config["clusters"][0]["cluster"]["server"] = f"https://127.0.0.1:{way.port}"
    path = tmp_path / "kubeconfig"
    path.write_text(yaml.safe_dump(config))
    try:
        yield way, path
    finally:
        await way.cut()


@asynccontextmanager
async def following(kubeconfig: Path, *namespaces: str) -> AsyncIterator[KubernetesRoutes]:
    """Routes that follow the API server."""
    routes = KubernetesRoutes(kubeapi.from_kubeconfig(kubeconfig), namespaces)
    task = asyncio.ensure_future(routes.run())
    try:
        yield routes
    finally:
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


Seen = Mapping[str, tuple[int, Mapping[str, tuple[str, ...]]]]


def seen(view: View | None) -> Seen:
    """Deployment → traffic version and endpoints."""
    shown = routing.routes(view).routes if view is not None else ()
    return {route.name: (route.traffic_version, route.endpoints) for route in shown}


async def until(routes: KubernetesRoutes, expected: Seen) -> None:
    async def equal() -> bool:
        return routes.view is not None and seen(routes.view) == expected

    try:
        await eventually(equal, 20)
    except TimeoutError:
        assert seen(routes.view) == expected


async def test_view_follows_the_cluster(cluster: Cluster) -> None:
    await cluster.deployment(
        "a", version=1, weights={"a-1": 100}, model={"servedName": "coder"}, completion={"maxTokens": 7}
    )
    await cluster.slice("a-1", [ONE], terminating=[TWO])
    async with following(cluster.plane.kubeconfig, cluster.namespace) as routes:
        await until(routes, {"a": (1, {"a-1": (f"{ONE}:30000",)})})
        assert routes.view is not None
        (found,) = routes.view.deployments
        assert (found.served_name, found.spec.completion.max_tokens) == ("coder", 7)

        await cluster.slice("a-1", [ONE, TWO])
        await until(routes, {"a": (1, {"a-1": (f"{ONE}:30000", f"{TWO}:30000")})})

        await cluster.slice("a-2", [THREE])
        await cluster.deployment("a", version=2, weights={"a-2": 100})
        await until(routes, {"a": (2, {"a-2": (f"{THREE}:30000",)})})

        await cluster.deployment("b", version=0, weights={})
        await until(routes, {"a": (2, {"a-2": (f"{THREE}:30000",)}), "b": (0, {})})

        await cluster.delete(SLICES, "a-2-s")
        await cluster.delete(DEPLOYMENTS, "b")
        await until(routes, {"a": (2, {"a-2": ()})})


async def test_slices_without_our_label_are_not_read(cluster: Cluster) -> None:
    labels = {"kubernetes.io/service-name": "a-1"}
    body = {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"name": "foreign", "namespace": cluster.namespace, "labels": labels},
        "addressType": "IPv4",
        "ports": [{"name": "http", "port": 1}],
        "endpoints": [{"addresses": [ONE]}],
    }
    await asyncio.to_thread(cluster.plane.api.apply, cluster.path(SLICES, "foreign"), body)
    await cluster.deployment("a", version=1, weights={"a-1": 100})
    async with following(cluster.plane.kubeconfig, cluster.namespace) as routes:
        await until(routes, {"a": (1, {"a-1": ()})})


async def test_all_namespaces(cluster: Cluster) -> None:
    await cluster.deployment("everywhere", version=4, weights={"e-1": 1})
    async with following(cluster.plane.kubeconfig) as routes:

        async def listed() -> bool:
            return seen(routes.view).get("everywhere") == (4, {"e-1": ()})

        await eventually(listed, 20)


async def test_last_view_is_kept_while_the_api_server_is_away(
    cluster: Cluster, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    await cluster.deployment("a", version=1, weights={"a-1": 100})
    await cluster.slice("a-1", [ONE])
    before: Seen = {"a": (1, {"a-1": (f"{ONE}:30000",)})}
    async with (
        forwarder(cluster.plane, tmp_path) as (way, kubeconfig),
        following(kubeconfig, cluster.namespace) as routes,
    ):
        await until(routes, before)
        await way.cut()
        await cluster.slice("a-1", [TWO])

        async def noticed() -> bool:
            return caplog.text.count("the API server is away") >= 3

        await eventually(noticed, 30)
        assert seen(routes.view) == before
        await way.open()
        await until(routes, {"a": (1, {"a-1": (f"{TWO}:30000",)})})


async def test_start_without_an_api_server(cluster: Cluster, tmp_path: Path) -> None:
    await cluster.deployment("a", version=1, weights={"a-1": 100})
    async with forwarder(cluster.plane, tmp_path) as (way, kubeconfig):
        await way.cut()
        async with following(kubeconfig, cluster.namespace) as routes:
            await asyncio.sleep(0.5)
            assert routes.view is None
            await way.open()
            await until(routes, {"a": (1, {"a-1": ()})})


async def test_version_that_is_gone_is_listed_again(cluster: Cluster, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    await cluster.deployment("a", version=1, weights={"a-1": 100})
    access = kubeapi.from_kubeconfig(cluster.plane.kubeconfig)
    mirror = Mirror(f"{DEPLOYMENTS[0]}/namespaces/{cluster.namespace}/{DEPLOYMENTS[1]}", {}, dict, lambda: None)
    mirror._version = "1"  # as if it had slept since before there was such a resource
    async with access.session() as session:
        task = asyncio.ensure_future(mirror.run(access, session))

        async def listed() -> bool:
            return mirror.synced

        await eventually(listed, 20)
        task.cancel()
    assert set(mirror.items) == {(cluster.namespace, "a")}
    assert "listing again" in caplog.text


async def test_missing_rights_are_said(cluster: Cluster, caplog: pytest.LogCaptureFixture) -> None:
    nobody = cluster.plane.kubeconfig_for("nobody")
    async with following(nobody, cluster.namespace) as routes:

        async def said() -> bool:
            return "answered 403" in caplog.text

        await eventually(said, 20)
        assert routes.view is None


ROLE = """
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: test-gateway}
rules:
  - {apiGroups: [serving.aixcoder.io], resources: [aixcoderdeployments], verbs: [list, watch]}
  - {apiGroups: [discovery.k8s.io], resources: [endpointslices], verbs: [list, watch]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: test-gateway}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: test-gateway}
subjects: [{kind: User, name: test-gateway}]
"""


@pytest.fixture
def gateway_kubeconfig(plane: ControlPlane) -> Iterator[Path]:
    """The rights that a gateway needs, and no others."""
    plane.kubectl("apply", "-f", "-", stdin=ROLE)
    yield plane.kubeconfig_for("test-gateway")
    plane.kubectl("delete", "-f", "-", stdin=ROLE)


def own_address() -> str:
    """An address of this machine that is no loopback: an EndpointSlice may hold no other."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # sends nothing
        except OSError:
            pytest.skip("this machine has no address but loopback")
        return str(probe.getsockname()[0])


@asynccontextmanager
async def program(kubeconfig: Path, *flags: str) -> AsyncIterator[tuple[asyncio.subprocess.Process, list[Any]]]:
    """`aixcoder-gateway` as a process, and its log lines so far."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "aixcoder_serving.gateway.main", "--host=127.0.0.1", "--port=0", "--internal-port=0"),
        *flags,
        stderr=asyncio.subprocess.PIPE,
        env=os.environ | {"KUBECONFIG": str(kubeconfig), "PYTHONPATH": str(ROOT / "serving")},
    )
    lines: list[Any] = []

    async def read() -> None:
        assert process.stderr is not None
        while line := await process.stderr.readline():
            lines.append(json.loads(line))

    reading = asyncio.ensure_future(read())
    try:
        yield process, lines
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
        await reading


def resident_mib(pid: int) -> float:
    """Memory of a process in MiB."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) / 1024


async def test_program(cluster: Cluster, gateway_kubeconfig: Path, start_replica: StartReplica) -> None:
    replica = start_replica("a", own_address())
    ip, port = replica.address.split(":")
    await cluster.deployment("tiny", version=1, weights={"t-1": 100})
    await cluster.slice("t-1", [ip], port=int(port))
    began = time.monotonic()
    async with (
        program(gateway_kubeconfig, f"--namespaces={cluster.namespace}", "--drain-seconds=0.1") as (process, lines),
        aiohttp.ClientSession() as session,
    ):

        async def said(message: str) -> Any:
            return next((line for line in lines if line["message"] == message), None)

        url = f"http://127.0.0.1:{(await eventually(lambda: said('serving'), 60))['port']}"

        async def ready() -> bool:
            async with session.get(f"{url}/readyz") as response:
                return response.status == 200

        await eventually(ready, 60)
        print(f"start to ready: {time.monotonic() - began:.2f} s")
        async with openai.AsyncOpenAI(api_key="none", base_url=f"{url}/v1", max_retries=0) as client:
            assert (await client.completions.create(model="any", prompt="{}")).choices[0].text == "a0 a1 a2 "
        print(f"memory: {resident_mib(process.pid):.0f} MiB")
        request = await eventually(lambda: said("request"))
        assert (request["outcome"], request["model"], request["completion_tokens"]) == ("completed", "tiny", 3)
        process.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(process.wait(), 30) == 0
    assert lines[-1]["message"] == "ended"
    assert not [line for line in lines if line["level"] not in ("info", "debug")]


async def test_program_without_a_cluster_says_so(tmp_path: Path) -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "aixcoder_serving.gateway.main"),
        stderr=asyncio.subprocess.PIPE,
        env={"PYTHONPATH": str(ROOT / "serving"), "HOME": str(tmp_path), "PATH": os.environ["PATH"]},
    )
    _, error = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode == 1
    assert b"aixcoder-gateway: no API server: this is no pod, KUBECONFIG is not set" in error
