"""What answers at the address of all simulated pods: any deployment's Ray head, by its token, and any replica."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from typing import Any

from aiohttp import web

from aixcoder_operator.plan import names
from aixcoder_serving.protocol import Readiness, ReplicaStats


def own_address() -> str:
    """An address of this machine that is not its loopback: EndpointSlices take no other."""
    with closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as probe:
        probe.connect(("192.0.2.1", 9))  # nothing is sent
        return str(probe.getsockname()[0])


class FakeRay:
    """`serve_port` and `replica_port` are set while it listens."""

    def __init__(self) -> None:
        self.serve_port = self.replica_port = 0
        self.stats = ReplicaStats(prefill_ms_per_token=0.1, decode_ms_per_request=1.0, slots=8)
        self._applications: dict[str, dict[str, Any]] = {}
        self._targets: dict[str, int] = {}

    async def _details(self, request: web.Request) -> web.Response:
        token = request.headers["Authorization"]
        application = self._applications.get(token)
        if application is None:
            return web.json_response({"applications": {}})
        deployment = {
            "name": names.SERVE_DEPLOYMENT,
            "status": "HEALTHY",
            "target_num_replicas": self._targets[token],
        }
        told = {
            "name": names.APPLICATION,
            "status": "RUNNING",
            "deployed_app_config": application,
            "deployments": {names.SERVE_DEPLOYMENT: deployment},
        }
        return web.json_response({"applications": {names.APPLICATION: told}})

    async def _put(self, request: web.Request) -> web.Response:
        token = request.headers["Authorization"]
        (self._applications[token],) = (await request.json())["applications"]
        self._targets[token] = self._applications[token]["deployments"][0]["num_replicas"]
        return web.json_response({})

    async def _scale(self, request: web.Request) -> web.Response:
        self._targets[request.headers["Authorization"]] = (await request.json())["target_num_replicas"]
        return web.json_response({})

    async def _ready(self, _: web.Request) -> web.Response:
        return web.Response(text=Readiness(phase="ready").model_dump_json(), content_type="application/json")

    async def _stats(self, _: web.Request) -> web.Response:
        return web.Response(text=self.stats.model_dump_json(), content_type="application/json")

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[FakeRay]:
        """While it can be asked."""
        head, replica = web.Application(), web.Application()
        head.add_routes(
            [
                web.get("/api/serve/applications/", self._details),
                web.put("/api/serve/applications/", self._put),
                web.post("/api/v1/applications/{application}/deployments/{deployment}/scale", self._scale),
            ]
        )
        replica.add_routes([web.get("/ready", self._ready), web.get("/stats", self._stats)])
        runners = [web.AppRunner(one, access_log=None, shutdown_timeout=0.1) for one in (head, replica)]
        try:
            for runner in runners:
                await runner.setup()
                await web.TCPSite(runner, own_address(), 0).start()
            self.serve_port, self.replica_port = (int(runner.addresses[0][1]) for runner in runners)
            yield self
        finally:
            for runner in runners:
                await runner.cleanup()
