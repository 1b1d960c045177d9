"""A gateway in a process of its own before one replica: `python -m … ADDRESS` prints its port, until SIGTERM."""

import asyncio
import signal
import sys

import uvloop

from aixcoder_serving.gateway.main import GatewaySettings, run
from aixcoder_serving.gateway.static import StaticRoutes


async def serve(address: str) -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    settings = GatewaySettings(host="127.0.0.1", port=0, internal_port=None, drain_seconds=0.0, grace_seconds=1.0)
    await run(settings, StaticRoutes.one("tiny", address), stop, started=lambda port, _: print(port, flush=True))


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(sys.argv[1]))
