"""A real gateway: `python -m … REPLICA` prints its public and its internal port."""

import asyncio
import signal
import sys

from aixcoder_serving.gateway.main import GatewaySettings, run
from tests.component.gateway.conftest import Table

DRAIN_SECONDS = 3.0


async def main() -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    table = Table()
    table.serve(sys.argv[1], name="demo")
    settings = GatewaySettings(host="127.0.0.1", port=0, internal_port=0, drain_seconds=DRAIN_SECONDS)
    await run(settings, table, stop, started=lambda public, internal: print(public, internal, flush=True))


if __name__ == "__main__":
    asyncio.run(main())
