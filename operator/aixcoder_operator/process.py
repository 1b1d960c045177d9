"""One operator process from start to end: watches → queue → reconcile, behind the Lease, with health beside.

A standby connects, watches and collects keys as the leader does, and works on none of them. Who loses the Lease exits
at once; who is told to stop finishes what it does, gives the Lease up and leaves.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
import secrets
import socket
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from typing import NoReturn

import aiohttp
from kubernetes.aio.client.configuration import Configuration

from aixcoder_operator.api import objects
from aixcoder_operator.api.objects import Object
from aixcoder_operator.cluster import kinds
from aixcoder_operator.cluster.client import ClusterError, Conflict, NotLeading
from aixcoder_operator.cluster.connection import connect, load_configuration
from aixcoder_operator.cluster.definition import read_definition, strangeness
from aixcoder_operator.cluster.events import EventRecorder
from aixcoder_operator.cluster.lease import Lease
from aixcoder_operator.cluster.observe import gateway_endpoints
from aixcoder_operator.cluster.probe import Prober
from aixcoder_operator.context import Context, Reconcile
from aixcoder_operator.health import serve_health
from aixcoder_operator.metrics import Metrics
from aixcoder_operator.queue import WorkQueue
from aixcoder_operator.ray.serve import ServeClient, ServeError
from aixcoder_operator.scaling.collector import Collector
from aixcoder_operator.scaling.loop import Autoscaler
from aixcoder_operator.served_names import ServedNames
from aixcoder_operator.settings import OperatorSettings
from aixcoder_operator.watches import Known, Watches, key_of

RECONCILE_SECONDS = 120.0
"""Every request has a time-out of its own; this bounds their sum."""
STUCK_SECONDS = 300.0
CHECK_SECONDS = 60.0
"""How often a list checks that the watch has missed nothing."""
LEASE_REQUEST_SECONDS = 4.0
DEFINITION_SECONDS = 5.0
GRACE_SECONDS = 20.0
"""How long a reconcile may go on after SIGTERM; the pod's grace is longer."""

logger = logging.getLogger(__name__)


async def run(
    settings: OperatorSettings,
    key: bytes,
    data_key: bytes,
    reconcile: Reconcile,
    stop: asyncio.Event,
    *,
    started: Callable[[int], None] = lambda port: None,
) -> int:
    """Work until `stop` is set; returns the exit status. `started` is told the port of health and metrics.

    Raises NoCluster where there is no way to an API server, OSError where the port is taken.
    """
    configuration = await load_configuration()
    host = socket.gethostname()
    metrics = Metrics()
    async with AsyncExitStack() as stack:
        client = await stack.enter_async_context(connect(configuration, observer=metrics.requested))
        lease_client = await stack.enter_async_context(
            connect(configuration, observer=metrics.requested, request_seconds=LEASE_REQUEST_SECONDS)
        )
        session = await stack.enter_async_context(aiohttp.ClientSession())
        # Of its own: a gateway is not kept waiting for a connection by many replicas that are asked.
        gateways = await stack.enter_async_context(aiohttp.ClientSession())
        lease = Lease(
            lease_client,
            settings.lease.namespace,
            settings.lease.name,
            f"{host}_{secrets.token_hex(4)}",
            on_change=metrics.leading,
        )
        guarded = client.guarded(lease.guard)
        context = Context(
            settings=settings,
            client=guarded,
            serve=lambda address, token: ServeClient(session, address, token, guard=lease.guard),
            prober=Prober(session),
            events=EventRecorder(guarded, host),
            key=key,
            data_key=data_key,
            served_names=ServedNames(),
            autoscaler=Autoscaler(
                Collector(gateways, lambda: gateway_endpoints(guarded, settings.gateway)), metrics.scaling
            ),
            now=lambda: datetime.now(UTC),
        )
        operator = Operator(configuration, context, reconcile, lease, metrics)
        port = await stack.enter_async_context(
            serve_health(settings.port, alive=[operator.problem], ready=[operator.unready], metrics=metrics.page)
        )
        started(port)
        return await operator.run(stop)


class Operator:
    """The parts of one process and how they begin and end. What it remembers can be lost at any time."""

    def __init__(
        self, configuration: Configuration, context: Context, reconcile: Reconcile, lease: Lease, metrics: Metrics
    ) -> None:
        self._context = context
        self._settings = context.settings
        self._reconcile = reconcile
        self._lease = lease
        self._metrics = metrics
        self._queue = WorkQueue(self._work, workers=self._settings.workers, on_failure=self._on_failure)
        metrics.watch_queue(lambda: len(self._queue))
        self._known = Known()
        self._watches = Watches(
            configuration, self._settings.namespaces, on_parent=self._on_parent, on_child=self._queue.add
        )
        self._watching = False
        self._leading = asyncio.Event()
        self._missed: list[str] = []

    def problem(self) -> str | None:
        """For /healthz: what only a restart mends."""
        oldest = self._queue.oldest_running_seconds()
        if oldest > STUCK_SECONDS:
            return f"a reconcile has been running for {oldest:.0f} s"
        if self._missed:
            return f"the watch misses changes, such as those of {self._missed[0]}"
        return self._watches.problem() if self._watching else None

    def unready(self) -> str | None:
        """For /readyz: a standby is as ready as the leader."""
        return None if self._watching else "waiting for the CustomResourceDefinition"

    async def run(self, stop: asyncio.Event) -> int:
        """Work until `stop` is set or a part breaks; returns the exit status."""
        parts = (self._watch, self._lead, self._scale, self._check)
        work = [asyncio.create_task(part(), name=part.__name__) for part in parts]
        work.append(asyncio.create_task(self._context.events.run(), name="events"))
        stopping = asyncio.create_task(stop.wait(), name="stop")
        ended, _ = await asyncio.wait([stopping, *work], return_when=asyncio.FIRST_COMPLETED)
        broken = [task for task in ended if task is not stopping]
        for task in broken:
            logger.critical("%s has ended: the process ends", task.get_name(), exc_info=task.exception())
        if not broken:
            logger.info("told to stop: finishing what runs")
        # The Lease is still renewed while the last reconciles end.
        await self._queue.close(GRACE_SECONDS)
        await self._context.events.flush(2.0)
        for task in (stopping, *work):
            task.cancel()
        await asyncio.gather(stopping, *work, return_exceptions=True)
        await self._lease.release()
        await self._watches.stop()
        return 1 if broken else 0

    async def _watch(self) -> None:
        await self._await_definition()
        self._watches.start()
        self._watching = True
        await self._watches.ended()

    async def _await_definition(self) -> None:
        """Return once the kind is served, and say so where it is not our own."""
        waits = False
        while True:
            try:
                found = await read_definition(self._context.client)
            except ClusterError as error:
                logger.warning("the CustomResourceDefinition could not be read: %s", error)
            else:
                if found is not None:
                    strange = strangeness(found)
                    if strange is not None:
                        logger.error("%s", strange)
                    return
                if not waits:
                    logger.error("the CustomResourceDefinition is missing: apply the file in crds/, or the chart's")
                    waits = True
            await asyncio.sleep(DEFINITION_SECONDS)

    async def _lead(self) -> None:
        await self._lease.acquire()
        # All that the watches have shown so far waits in the queue.
        self._queue.start()
        self._leading.set()
        _die(await self._lease.hold())

    async def _scale(self) -> None:
        await self._leading.wait()
        await self._context.autoscaler.run(self._queue.add)

    async def _check(self) -> None:
        """Compare the watch with a list each minute, and look at every deployment once in `resyncSeconds`."""
        resync = self._next_resync()
        while True:
            await asyncio.sleep(CHECK_SECONDS)
            if not self._watching:
                continue
            try:
                listed = await self._list()
            except ClusterError as error:
                logger.warning("the deployments could not be listed: %s", error)
                continue
            self._missed = self._known.missed(listed)
            for key in self._known.gone(listed):
                self._look_again(key, *self._context.served_names.changed(key, None))
            self._look_again(*self._missed)
            if time.monotonic() >= resync:
                resync = self._next_resync()
                for key in listed:
                    self._queue.add_after(key, random.uniform(0, CHECK_SECONDS))  # noqa: S311

    def _next_resync(self) -> float:
        # Several processes, started at once, spread.
        return time.monotonic() + self._settings.resync_seconds * random.uniform(0.9, 1.1)  # noqa: S311

    async def _list(self) -> dict[str, str]:
        """The key and resourceVersion of each deployment in the namespaces worked in."""
        found: list[Object] = []
        for namespace in self._settings.namespaces or (None,):
            found += await self._context.client.list(kinds.DEPLOYMENT, namespace, metadata_only=True)
        return {key_of(obj): objects.resource_version(obj) for obj in found}

    def _on_parent(self, event_type: str | None, parent: Object) -> None:
        key = key_of(parent)
        self._look_again(*self._context.served_names.changed(key, None if event_type == "DELETED" else parent))
        if self._known.changed(event_type, parent):
            self._look_again(key)

    def _look_again(self, *keys: str) -> None:
        for key in keys:
            self._queue.add(key)

    async def _work(self, key: str) -> float | None:
        began = time.monotonic()
        result = "failed"
        try:
            async with asyncio.timeout(RECONCILE_SECONDS):
                again = await self._reconcile(key, context=self._context)
            result = "done" if again is None else "requeued"
            return again
        finally:
            self._metrics.reconciled(result, time.monotonic() - began)

    def _on_failure(self, key: str, error: Exception, delay: float) -> None:
        self._metrics.failed(error)
        if isinstance(error, Conflict):
            logger.info("%s changed while it was worked on, again in %.1f s: %s", key, delay, error)
        elif isinstance(error, (ClusterError, ServeError, NotLeading, TimeoutError)):
            logger.warning("%s failed, again in %.1f s: %s", key, delay, error or type(error).__name__)
        else:
            logger.error("%s failed, again in %.1f s", key, delay, exc_info=error)


def _die(reason: str) -> NoReturn:
    """End at once, without the courtesies of an orderly end: somebody else may lead already."""
    logger.critical("the Lease is lost, the process ends: %s", reason)
    logging.shutdown()
    os._exit(3)
