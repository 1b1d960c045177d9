"""Leaving without cutting anyone off."""

from __future__ import annotations

import asyncio
import logging
import time

from aixcoder_serving.replica.listener import Listener
from aixcoder_serving.replica.service import ReplicaService

logger = logging.getLogger(__name__)

LINGER_SECONDS = 2.0
"""How long requests are still taken: a gateway's list of replicas is a second old at times."""


async def drain(service: ReplicaService, listener: Listener, grace_seconds: float) -> None:
    """Turn unready, linger, refuse new requests, let running ones end within `grace_seconds`, then close everything."""
    deadline = time.monotonic() + grace_seconds
    if service.begin_drain():
        logger.info("draining: %d requests in flight", service.in_flight)
        await asyncio.sleep(min(LINGER_SECONDS, grace_seconds))
    service.refusing = True
    try:
        await asyncio.wait_for(service.idle.wait(), max(deadline - time.monotonic(), 0))
    except TimeoutError:
        logger.warning("the grace is over: %d requests are cut", service.in_flight)
    await service.close()
    # What was cut is told so in its stream.
    await listener.stop(patience=1)
    logger.info("drained")
