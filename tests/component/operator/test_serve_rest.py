"""The Serve client against a real Ray head with token authentication."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import aiohttp
import pytest

from aixcoder_operator.api.serve import Application, DeploymentOptions, RayActorOptions, ServeConfig, ServeDetails
from aixcoder_operator.cluster.client import NotLeading, unguarded
from aixcoder_operator.ray.serve import Rejected, ServeClient, Unauthorized, Unreachable
from aixcoder_operator.ray.token import ray_token
from tests.component.operator.conftest import ROOT

TOKEN = ray_token(bytes(range(32)), "a-uid")
HANG = 150.0


def free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [int(listener.getsockname()[1]) for listener in sockets]
    for listener in sockets:
        listener.close()
    return ports


@pytest.fixture(scope="module")
def head() -> Iterator[int]:
    """The dashboard's port of a one-node Ray, started as the head pod's is, with room for one replica."""
    gcs, dashboard, agent_http, agent_grpc, metrics = free_ports(5)
    with tempfile.TemporaryDirectory(prefix="ray-", dir="/tmp") as folder:  # socket paths must be short
        options = {
            "num-cpus": 0,
            "resources": '{"replica":1}',
            "node-ip-address": "127.0.0.1",
            "port": gcs,
            "dashboard-host": "127.0.0.1",
            "dashboard-port": dashboard,
            "dashboard-agent-listen-port": agent_http,
            "dashboard-agent-grpc-port": agent_grpc,
            "metrics-export-port": metrics,
            "object-store-memory": 100_000_000,
            "temp-dir": folder,
        }
        command = [str(Path(sys.executable).with_name("ray")), "start", "--head", "--block", "--disable-usage-stats"]
        command += [f"--{name}={value}" for name, value in options.items()]
        path = os.pathsep.join(str(ROOT / part) for part in ("serving", "."))
        environment = {
            **os.environ,
            "PYTHONPATH": path,
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": TOKEN,
            "OMP_NUM_THREADS": "1",
            "AIXCODER_TEST_RAY": folder,
        }
        with Path(folder, "start.log").open("wb") as log:
            process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
        try:
            yield dashboard
        finally:
            # Ray's own end drains for half a minute.
            for pid in _pids(folder):
                os.kill(pid, signal.SIGKILL)
            process.wait(60)


def _pids(folder: str) -> Iterator[int]:
    """All processes that were started by the one that got this folder."""
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            inherited = f"AIXCODER_TEST_RAY={folder}".encode() in (entry / "environ").read_bytes()
        except OSError:
            continue
        if inherited:
            yield int(entry.name)


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as opened:
        yield opened


@pytest.fixture
def serve(session: aiohttp.ClientSession, head: int) -> ServeClient:
    return ServeClient(session, "127.0.0.1", TOKEN, guard=lambda: 60.0, port=head)


def config(*, import_path: str = "tests.component.operator.serve_app:build", replicas: int = 1) -> ServeConfig:
    options = DeploymentOptions(
        name="Replica",
        num_replicas=replicas,
        graceful_shutdown_timeout_s=1,
        ray_actor_options=RayActorOptions(num_cpus=0, resources={"replica": 1}),
    )
    return ServeConfig(
        applications=(Application(name="completion", import_path=import_path, args={"a": 1}, deployments=(options,)),)
    )


async def until(
    serve: ServeClient, condition: Callable[[ServeDetails], bool], what: str, *, patient: bool = False
) -> ServeDetails:
    """The details once they are so; `patient`: the head need not answer yet."""
    began = time.monotonic()
    while True:
        try:
            details = await serve.details()
        except Unreachable:
            if not patient:
                raise
        else:
            if condition(details):
                print(f"{what}: {time.monotonic() - began:.1f} s")
                return details
        assert time.monotonic() - began < HANG, f"never: {what}"
        await asyncio.sleep(0.3)


async def test_an_application_is_put_scaled_to_zero_and_back(serve: ServeClient) -> None:
    details = await until(serve, lambda details: True, "the head answers", patient=True)
    assert details.applications == {}
    began = time.monotonic()
    await serve.put(config())
    print(f"PUT on a new head: {time.monotonic() - began:.1f} s")

    def runs(details: ServeDetails) -> bool:
        application = details.applications.get("completion")
        return application is not None and application.status == "RUNNING"

    application = (await until(serve, runs, "running")).applications["completion"]
    deployment = application.deployments["Replica"]
    assert deployment.target_num_replicas == 1
    assert [replica.state for replica in deployment.replicas] == ["RUNNING"]
    assert application.deployed_app_config is not None
    assert application.deployed_app_config["args"] == {"a": 1}

    await serve.scale("completion", "Replica", 0)
    await until(
        serve,
        lambda details: details.applications["completion"].deployments["Replica"].replicas == (),
        "scaled to zero",
    )
    await serve.scale("completion", "Replica", 1)
    await until(
        serve,
        lambda details: (
            [r.state for r in details.applications["completion"].deployments["Replica"].replicas] == ["RUNNING"]
        ),
        "scaled back to one",
    )


async def test_what_serve_refuses_is_rejected_with_its_reason(serve: ServeClient) -> None:
    with pytest.raises(Rejected, match=r"Application or Deployment not found \(404\)") as caught:
        await serve.scale("completion", "Nobody", 1)
    assert caught.value.status == 404
    with pytest.raises(Rejected, match=r"invalid import path \"a:b:c\".*\(400\)"):
        await serve.put(config(import_path="a:b:c"))


async def test_an_application_that_cannot_be_imported_says_why(serve: ServeClient) -> None:
    await serve.put(config(import_path="tests.component.operator.no_such:build"))
    details = await until(
        serve, lambda details: details.applications["completion"].status == "DEPLOY_FAILED", "the failure"
    )
    assert "no_such" in details.applications["completion"].message


async def test_another_token_or_none_is_unauthorized(session: aiohttp.ClientSession, head: int) -> None:
    for token in (ray_token(bytes(32), "a-uid"), ""):
        stranger = ServeClient(session, "127.0.0.1", token, guard=unguarded, port=head)
        with pytest.raises(Unauthorized, match="does not accept the operator's token"):
            await stranger.details()


async def test_writes_pass_the_guard_first(session: aiohttp.ClientSession, head: int) -> None:
    def not_leading() -> float:
        raise NotLeading("somebody else leads")

    standby = ServeClient(session, "127.0.0.1", TOKEN, guard=not_leading, port=head)
    with pytest.raises(NotLeading):
        await standby.put(config())
    with pytest.raises(NotLeading):
        await standby.scale("completion", "Replica", 2)
    await standby.details()


async def test_a_head_that_is_not_there_is_unreachable(session: aiohttp.ClientSession) -> None:
    with pytest.raises(Unreachable, match=r"GET http://127\.0\.0\.1:1/api/serve/applications/: Cannot connect"):
        await ServeClient(session, "127.0.0.1", TOKEN, guard=unguarded, port=1).details()


async def test_a_silent_head_costs_the_time_out_and_no_more(session: aiohttp.ClientSession) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        client = ServeClient(session, "127.0.0.1", TOKEN, guard=lambda: 0.3, port=silent.getsockname()[1])
        began = time.monotonic()
        with pytest.raises(Unreachable, match="no answer within"):
            await client.put(config())
        assert time.monotonic() - began < 2
