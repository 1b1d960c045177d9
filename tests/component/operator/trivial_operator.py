"""An operator process whose reconcile only tells that it was called: `python -m … SETTINGS`.

Prints `port N` once and `reconcile KEY` at each call; where the deployment has the annotation `write-status`, it writes
a status that differs each time, as the real one does while something is in progress.
"""

import asyncio
import signal
import sys
import time
from pathlib import Path

from aixcoder_operator import logs
from aixcoder_operator.api import objects
from aixcoder_operator.cluster.observe import observe
from aixcoder_operator.context import Context
from aixcoder_operator.process import run
from aixcoder_operator.settings import read_settings


async def reconcile(key: str, *, context: Context) -> float | None:
    print(f"reconcile {key}", flush=True)
    seen = await observe(context.client, *key.split("/"))
    if seen is not None and "write-status" in objects.annotations_of(seen.parent):
        status = {"observedGeneration": objects.generation(seen.parent), "endpoint": str(time.monotonic())}
        await context.client.apply_status(seen.parent, status)
        context.events.record(seen.parent, "Told", "a status was written")
    return None


async def main() -> int:
    settings = read_settings(Path(sys.argv[1]))
    logs.configure(settings.log_level)
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    return await run(
        settings, bytes(32), bytes(32), reconcile, stop, started=lambda port: print(f"port {port}", flush=True)
    )


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
