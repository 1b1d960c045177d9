"""Our gateway before one replica: `python -m benchmarks.gateway.ours PORT REPLICA_PORT`."""

from __future__ import annotations

import asyncio
import signal
import sys

import uvloop

from aixcoder_serving.gateway import logs
from aixcoder_serving.gateway.main import GatewaySettings, run
from aixcoder_serving.gateway.static import StaticRoutes


async def serve(port: int, replica: int) -> None:
    """Serve until a signal."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    settings = GatewaySettings(host="127.0.0.1", port=port, internal_port=None, drain_seconds=0.0, grace_seconds=1.0)
    await run(settings, StaticRoutes.one("mock", f"127.0.0.1:{replica}"), stop)


if __name__ == "__main__":
    logs.configure("info")
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(int(sys.argv[1]), int(sys.argv[2])))
