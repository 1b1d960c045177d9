"""A whole operator in this process, with the real reconcile, over simulated pods and fake gateways."""

from __future__ import annotations

import asyncio
import gc
import secrets
import warnings
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime

import aiohttp
from kubernetes.aio.client.configuration import Configuration

from aixcoder_operator.cluster.connection import connect
from aixcoder_operator.cluster.events import EventRecorder
from aixcoder_operator.cluster.lease import Lease
from aixcoder_operator.cluster.probe import Prober
from aixcoder_operator.context import Context
from aixcoder_operator.metrics import Metrics
from aixcoder_operator.process import Operator
from aixcoder_operator.ray.serve import ServeClient
from aixcoder_operator.reconcile import reconcile
from aixcoder_operator.scaling.collector import Collector
from aixcoder_operator.scaling.loop import Autoscaler
from aixcoder_operator.served_names import ServedNames
from aixcoder_operator.settings import OperatorSettings
from tests.component.operator.fake_gateway import Gateways
from tests.component.operator.fake_ray import FakeRay


class Operating:
    """`calls`: the keys that were reconciled."""

    def __init__(self, metrics: Metrics, autoscaler: Autoscaler) -> None:
        self._metrics = metrics
        self.autoscaler = autoscaler
        self.calls: list[str] = []

    async def reconcile(self, key: str, *, context: Context) -> float | None:
        """The real one, counted."""
        self.calls.append(key)
        return await reconcile(key, context=context)

    def value(self, metric: str, **labels: str) -> float | None:
        """Of a metric, `aixcoder_operator_` left out; None where it has none with these labels."""
        name = f"aixcoder_operator_{metric}"
        for family in self._metrics._registry.restricted_registry([name]).collect():
            for sample in family.samples:
                if sample.name == name and labels.items() <= sample.labels.items():
                    return sample.value
        return None


@asynccontextmanager
async def operating(
    configuration: Configuration,
    namespace: str,
    gateways: Gateways,
    ray: FakeRay,
    *,
    way: Configuration | None = None,
) -> AsyncIterator[Operating]:
    """From its start until it was told to stop and has ended.

    `way`: another way to the API server for all that reconcile does. What the process could not live without, the
    Lease and the watches, goes by `configuration`.
    """
    settings = OperatorSettings.model_validate(
        {
            "servingImage": "example/serving:1",
            "namespaces": [namespace],
            "gateway": {"namespace": namespace},
            "lease": {"namespace": namespace},
            "port": 0,
        }
    )
    metrics, stop = Metrics(), asyncio.Event()
    async with AsyncExitStack() as stack:
        client = await stack.enter_async_context(connect(way or configuration, observer=metrics.requested))
        lease_client = await stack.enter_async_context(connect(configuration, request_seconds=4.0))
        session = await stack.enter_async_context(aiohttp.ClientSession())
        # Who loses it ends the process, and the tests with it: a busy machine is given time.
        lease = Lease(
            lease_client,
            namespace,
            "aixcoder-operator",
            secrets.token_hex(4),
            on_change=metrics.leading,
            lease_seconds=90,
            hold_seconds=60.0,
        )
        guarded = client.guarded(lease.guard)
        context = Context(
            settings=settings,
            client=guarded,
            serve=lambda host, token: ServeClient(session, host, token, guard=lease.guard, port=ray.serve_port),
            prober=Prober(session, replica_port=ray.replica_port),
            events=EventRecorder(guarded, "test"),
            key=bytes(32),
            data_key=bytes(32),
            served_names=ServedNames(),
            autoscaler=Autoscaler(Collector(session, gateways.find), metrics.scaling),
            now=lambda: datetime.now(UTC),
        )
        running = Operating(metrics, context.autoscaler)
        operator = Operator(configuration, context, running.reconcile, lease, metrics)
        task = asyncio.create_task(operator.run(stop))
        try:
            yield running
        finally:
            stop.set()
            assert await task == 0
            with warnings.catch_warnings():
                # Kopf's loop ends before its TLS connections do: in a process of its own nobody would see it.
                warnings.simplefilter("ignore", ResourceWarning)
                gc.collect()
