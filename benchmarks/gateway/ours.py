"""Our gateway before replicas of this machine: `python -m benchmarks.gateway.ours PORT REPLICA_PORT…` prints its port.

Port 0 is any free one. The tests of its memory run it too.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Sequence
from datetime import UTC, datetime

import uvloop

from aixcoder_serving.gateway import logs
from aixcoder_serving.gateway.main import GatewaySettings, run
from aixcoder_serving.gateway.routing import View
from aixcoder_serving.gateway.static import StaticRoutes
from aixcoder_serving.protocol import DeploymentView


def routes(replicas: Sequence[int]) -> StaticRoutes:
    """One deployment with a replica on each of these ports."""
    deployment = DeploymentView.model_validate(
        {
            "metadata": {"name": "mock", "namespace": "local", "uid": "local", "creationTimestamp": datetime.now(UTC)},
            "spec": {},
            "status": {"traffic": {"version": 1, "weights": {"unit": 100}}},
        }
    )
    addresses = tuple(f"127.0.0.1:{port}" for port in replicas)
    return StaticRoutes(View.of([deployment], {("local", "unit"): addresses}), lambda: True)


async def serve(port: int, replicas: Sequence[int]) -> None:
    """Serve until a signal."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    settings = GatewaySettings(host="127.0.0.1", port=port, internal_port=None, drain_seconds=0.0, grace_seconds=1.0)
    await run(settings, routes(replicas), stop, started=lambda public, _: print(public, flush=True))


if __name__ == "__main__":
    logs.configure("info")
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(int(sys.argv[1]), [int(argument) for argument in sys.argv[2:]]))
