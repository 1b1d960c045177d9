"""Scaling of many deployments by a whole operator: a real API server and its controllers, pods that KWOK simulates.

A request holds a place for a second at replicas with eight places: one replica does eight a second.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import Any

import pytest
from kubernetes.aio.client.configuration import Configuration

from aixcoder_operator.api.names import DEPLOYMENT_LABEL
from aixcoder_operator.api.objects import Object, name
from aixcoder_operator.cluster import kinds
from aixcoder_operator.cluster.client import Client
from aixcoder_operator.plan import names
from e2e.cluster.controlplane import ControlPlane
from tests.component.operator.apiproxy import ApiProxy
from tests.component.operator.conftest import AuditLog, serve_deployments
from tests.component.operator.fake_gateway import FakeGateway, Gateways, gateways, until
from tests.component.operator.fake_ray import FakeRay, own_address
from tests.component.operator.kwok import simulated
from tests.component.operator.operating import Operating, operating

HANG_SECONDS = 200.0
RESYNC_SECONDS = 370
"""At the earliest."""

APPLY_SECONDS = 60
"""After which a GitOps tool applies what is there already."""

# What kopf leaves behind, see `operating`, may be found earlier.
pytestmark = pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")

RATE = 44
"""Requests a second."""
REPLICAS = 6
"""Five and a half can do them."""


@pytest.fixture(scope="module")
def control_plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """With a scheduler, and nodes that KWOK simulates."""
    with (
        ControlPlane(controllers=True, scheduler=True, audit="Metadata") as plane,
        simulated(plane, tmp_path_factory.mktemp("kwok"), own_address(), start_seconds=1),
    ):
        yield serve_deployments(plane)


@pytest.fixture(scope="module")
def plane(control_plane: ControlPlane) -> ControlPlane:
    """The same."""
    return control_plane


@pytest.fixture
async def fleet() -> AsyncIterator[Gateways]:
    """Two gateways."""
    async with gateways(2) as found:
        yield found


@pytest.fixture
async def ray() -> AsyncIterator[FakeRay]:
    """Every pod's other side."""
    async with FakeRay().listening() as found:
        yield found


class Deployments:
    """Those of the test's namespace."""

    def __init__(self, client: Client, namespace: str, fleet: Gateways) -> None:
        self._client = client
        self._namespace = namespace
        self._fleet = fleet

    def manifest(self, called: str, **autoscaling: Any) -> Object:
        """One as a user writes it."""
        return {
            "apiVersion": kinds.DEPLOYMENT.api_version,
            "kind": kinds.DEPLOYMENT.kind,
            "metadata": {"name": called, "namespace": self._namespace},
            "spec": {
                "model": {"source": {"image": {"reference": "example/model:1"}}},
                "engine": {"device": "cpu"},
                "autoscaling": {"maxReplicas": 20} | autoscaling,
            },
        }

    async def create(self, *called: str, **autoscaling: Any) -> None:
        """Store them."""
        for one in called:
            await self._client.create(self.manifest(one, **autoscaling))

    async def all(self) -> dict[str, Object]:
        """By their names."""
        return {name(one): one for one in await self._client.list(kinds.DEPLOYMENT, self._namespace)}

    async def desired(self, called: str) -> int:
        """As status tells it; 0 where it does not."""
        status = (await self.all())[called].get("status") or {}
        return int((status.get("autoscaling") or {}).get("desired", 0))

    async def workers(self, called: str) -> list[Object]:
        """Pods that are not on their way out."""
        labels = {DEPLOYMENT_LABEL: called, names.COMPONENT_LABEL: names.WORKER}
        pods = await self._client.list(kinds.POD, self._namespace, labels=labels)
        return [pod for pod in pods if not pod["metadata"].get("deletionTimestamp")]

    async def are_ready(self, *called: str, replicas: int, or_more: bool = False) -> bool:
        """Whether each has so many replicas, all ready, and says so."""
        found = await self.all()
        return all(
            status.get("readyReplicas") == (there := status.get("replicas", 0))
            and (there == replicas or (or_more and there > replicas))
            and any(one["type"] == "Ready" and one["reason"] == "AllReplicasReady" for one in status["conditions"])
            for status in (found[one].get("status") or {} for one in called)
        )

    async def lacks_nothing(self, *called: str, replicas: int, or_more: bool = False) -> None:
        """Return once each has so many replicas that are ready, and says so."""
        what = f"{replicas} replicas of {len(called)}"
        await eventually(
            lambda: self.are_ready(*called, replicas=replicas, or_more=or_more), what, every=0.2 + len(called) / 100
        )

    @asynccontextmanager
    async def traffic(self, *called: str, rate: int) -> AsyncIterator[None]:
        """So many requests a second for each, over all gateways."""

        async def send() -> None:
            while True:
                for one in called:
                    for number, gateway in enumerate(self._fleet.each):
                        share = rate // len(self._fleet.each) + (number < rate % len(self._fleet.each))
                        gateway.arrive(self._namespace, one, share, slot_s=1.0)
                await asyncio.sleep(1 - time.time() % 1)

        task = asyncio.create_task(send())
        try:
            yield
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task


@pytest.fixture
def deployments(client: Client, namespace: str, fleet: Gateways) -> Deployments:
    return Deployments(client, namespace, fleet)


async def eventually(condition: Callable[[], Awaitable[bool]], what: str, every: float = 0.2) -> float:
    """Wait for it; returns the seconds that it took."""
    began = time.monotonic()
    while not await condition():
        assert time.monotonic() - began < HANG_SECONDS, f"never: {what}"
        await asyncio.sleep(every)
    return time.monotonic() - began


async def calm(running: Operating, seconds: float = 1.2) -> None:
    """Nothing is reconciled for so long."""
    while True:
        before = len(running.calls)
        await asyncio.sleep(seconds)
        if len(running.calls) == before:
            return


def writes(audit: AuditLog, namespace: str) -> list[str]:
    """The operator's, "verb resource/name", but for its Lease."""
    return [line for line in audit.ours(namespace) if "leases" not in line]


def by_kind(lines: list[str]) -> dict[str, int]:
    """ "verb resource" → how many."""
    return dict(Counter(line.split("/")[0] for line in lines))


async def test_a_burst_becomes_a_wish_and_the_wish_pods(
    configuration: Configuration,
    namespace: str,
    fleet: Gateways,
    ray: FakeRay,
    deployments: Deployments,
    plane: ControlPlane,
    audit: AuditLog,
) -> None:
    """And who applies the same manifest again and again, as a GitOps tool does, changes nothing."""
    each = ("early", "middle", "late")
    async with operating(configuration, namespace, fleet, ray) as running, AsyncExitStack() as stack:
        await deployments.create(*each)
        await deployments.lacks_nothing(*each, replicas=1)
        await calm(running)
        for called, phase in zip(each, (0.3, 0.6, 0.95), strict=True):
            await asyncio.sleep((phase - time.time()) % 1)
            began = time.monotonic()
            await stack.enter_async_context(deployments.traffic(called, rate=RATE))
            await until(lambda: (running.value("autoscaling_desired", name=called) or 0) > 1, "the wish")  # noqa: B023
            wished = time.monotonic()

            async def made() -> bool:
                return len(await deployments.workers(called)) > 1  # noqa: B023

            await eventually(made, "a pod", every=0.02)
            print(f"burst to wish {wished - began:.2f} s, wish to pod {time.monotonic() - wished:.2f} s")
        await deployments.lacks_nothing(*each, replicas=REPLICAS)
        await calm(running)
        assert running.value("autoscaling_burst_to_ready_seconds_count", name="early") == 1
        print(f"burst to replica {running.value('autoscaling_burst_to_ready_seconds_sum', name='early'):.2f} s")
        status = (await deployments.all())["early"]["status"]["autoscaling"]
        assert status["desired"] == REPLICAS
        assert "arriving" in status["lastDecision"]["reason"]
        assert status["coldStartSeconds"] < 30
        assert (running.value("autoscaling_ready_replicas"), running.value("autoscaling_max_replicas")) == (
            REPLICAS,
            20,
        )

        audit.mark()
        manifest = json.dumps(deployments.manifest("early"))
        for _ in range(3):
            await asyncio.to_thread(plane.kubectl, "apply", "-f", "-", stdin=manifest)
            await asyncio.sleep(1)
        assert writes(audit, namespace) == []
        assert len(await deployments.workers("early")) == REPLICAS


@pytest.mark.parametrize(
    ("many", "seconds"), [(24, 6), pytest.param(200, 600, marks=pytest.mark.long)], ids=["short", "long"]
)
@pytest.mark.timeout(1500)
async def test_many_that_are_idle_write_nothing_and_half_of_them_scale_at_once(
    configuration: Configuration,
    namespace: str,
    fleet: Gateways,
    ray: FakeRay,
    deployments: Deployments,
    plane: ControlPlane,
    audit: AuditLog,
    many: int,
    seconds: int,
) -> None:
    """The operator restarts in the middle."""
    each = [f"demo-{number}" for number in range(many)]
    scaled, idle = each[: many // 2], each[many // 2 :]
    async with AsyncExitStack() as stack:
        async with operating(configuration, namespace, fleet, ray) as running:
            began = time.monotonic()
            await deployments.create(*each)
            await deployments.lacks_nothing(*each, replicas=1)
            print(f"{many} deployments had a replica after {time.monotonic() - began:.0f} s")
            await calm(running, 3.0)

            audit.mark()
            calls = len(running.calls)
            manifest = json.dumps(deployments.manifest(each[0]))
            for _ in range(seconds // APPLY_SECONDS):
                await asyncio.sleep(APPLY_SECONDS)
                await asyncio.to_thread(plane.kubectl, "apply", "-f", "-", stdin=manifest)
            await asyncio.sleep(seconds % APPLY_SECONDS)
            assert writes(audit, namespace) == []
            # Each is looked at again when the operator's own watch is checked, and who was created when first applied.
            assert len(running.calls) - calls <= many * (seconds // RESYNC_SECONDS) + seconds // APPLY_SECONDS
            reads = [line for line in audit.since(namespace, ("list", "get")) if line.endswith(" aixcoder-operator")]
            print(f"{many} idle for {seconds} s: 0 writes, reads {by_kind(reads)}")

            audit.mark()
            began = time.monotonic()
            await stack.enter_async_context(deployments.traffic(*scaled, rate=20))

            def wished() -> bool:
                return all((running.value("autoscaling_desired", name=name) or 0) > 1 for name in scaled)

            await until(wished, "each wish")
            print(f"{len(scaled)} wishes {time.monotonic() - began:.1f} s after the burst")
        async with operating(configuration, namespace, fleet, ray) as running:
            # More where the test's own clock was late: two seconds' requests in one.
            await deployments.lacks_nothing(*scaled, replicas=3, or_more=True)
            print(f"{len(scaled)} deployments had three replicas after {time.monotonic() - began:.0f} s")
            await calm(running)
            done = by_kind(writes(audit, namespace))
            print(f"writes for {len(scaled)} that scaled: {done}")
            looks, took = (running.value(f"autoscaling_loop_seconds_{of}") or 0 for of in ("count", "sum"))
            print(f"a look took {took / looks:.3f} s on average")
            # From 1 to 3, in two steps mostly; each time the ReplicaSet, and the annotation of what Serve was told.
            assert len(scaled) <= done["patch replicasets"] <= 4 * len(scaled)
            assert await deployments.are_ready(*idle, replicas=1)


async def test_the_wish_never_falls_when_the_operator_restarts_with_a_gateway_that_cannot_be_reached(
    configuration: Configuration, namespace: str, fleet: Gateways, ray: FakeRay, deployments: Deployments
) -> None:
    """Two operators: the second stands by and asks nothing, until the first one has ended."""
    desired = []
    ours, others = Gateways(fleet.each), Gateways(fleet.each)
    async with deployments.traffic("demo", rate=RATE), AsyncExitStack() as stack:
        async with operating(configuration, namespace, ours, ray):
            await deployments.create("demo")
            await deployments.lacks_nothing("demo", replicas=REPLICAS)
            second = await stack.enter_async_context(operating(configuration, namespace, others, ray))
            await asyncio.sleep(2.5)
            assert (others.listed, second.calls) == (0, [])
            fleet.each[1].answers = False
        ours.listed = 0
        # More than twice as long as nothing would be scaled down for anyway.
        for _ in range(20):
            await asyncio.sleep(0.5)
            desired.append(await deployments.desired("demo"))
        assert second.value("autoscaling_gateways_unheard") == 1
        fleet.each[1].answers = True
        for _ in range(6):
            await asyncio.sleep(0.5)
            desired.append(await deployments.desired("demo"))
        assert second.value("autoscaling_gateways_unheard") == 0
        assert second.value("autoscaling_cold_start_seconds") == pytest.approx(2, abs=1.5)
        assert second.value("autoscaling_decisions_total", direction="down") == 0
        assert ours.listed == 0
        assert others.listed > 0
    assert set(desired) == {REPLICAS}


FAULTS = ("409", "429", "500", "slow", "unreachable")


def fail(proxy: ApiProxy, fault: str | None) -> None:
    """From now on; None: no more."""
    proxy.late, proxy.failures = 0.0, []
    proxy.open.set()
    match fault:
        case None:
            pass
        case "slow":
            proxy.late = 2.0
        case "unreachable":
            proxy.open.clear()
        case _:
            headers = {"Retry-After": "2"} if fault == "429" else {}
            proxy.failures = [(int(fault), headers)] * 1000


@pytest.mark.parametrize("seconds", [1, pytest.param(60, marks=pytest.mark.long)])
@pytest.mark.timeout(900)
async def test_nothing_is_lost_and_nothing_runs_hot_when_the_api_server_fails(
    configuration: Configuration,
    namespace: str,
    fleet: Gateways,
    ray: FakeRay,
    deployments: Deployments,
    proxy: ApiProxy,
    seconds: int,
) -> None:
    """One after the other; under each of them another deployment is to grow."""
    each = [f"fault-{fault}" for fault in FAULTS]
    operator = operating(configuration, namespace, fleet, ray, way=proxy.configuration)
    async with operator as running, AsyncExitStack() as stack:
        await deployments.create(*each)
        await deployments.lacks_nothing(*each, replicas=1)
        await calm(running)
        for fault, called in zip(FAULTS, each, strict=True):
            before = len(proxy.seen)
            fail(proxy, fault)
            await stack.enter_async_context(deployments.traffic(called, rate=RATE))
            await until(lambda: running.value("autoscaling_desired", name=called) == REPLICAS, "the wish")  # noqa: B023
            await asyncio.sleep(seconds)
            asked = len(proxy.seen) - before
            # A look asks ten things at most, and looks that fail are further and further apart.
            assert asked < 100 + 2 * seconds
            fail(proxy, None)
            began = time.monotonic()
            await deployments.lacks_nothing(called, replicas=REPLICAS)
            print(
                f"{fault}: {asked} requests in {seconds} s; {REPLICAS} replicas {time.monotonic() - began:.1f} s later"
            )
        await calm(running)
        await deployments.lacks_nothing(*each, replicas=REPLICAS)


async def test_zero_is_left_with_as_many_as_the_queue_needs(
    configuration: Configuration, namespace: str, fleet: Gateways, ray: FakeRay, deployments: Deployments
) -> None:
    async with operating(configuration, namespace, fleet, ray) as running:
        await deployments.create("demo", minReplicas=0, scaleToZeroAfterSeconds=1)
        await deployments.lacks_nothing("demo", replicas=1)
        for gateway in fleet.each:
            gateway.arrive(namespace, "demo", 2, slot_s=1.0)

        async def is_at_zero() -> bool:
            return await deployments.desired("demo") == 0 and not await deployments.workers("demo")

        print(f"at zero after {await eventually(is_at_zero, 'zero'):.0f} s")
        await calm(running)
        began = time.monotonic()
        hold(fleet.each[0], namespace, 6)

        async def woken() -> bool:
            # Each takes an eighth of a second, and may wait 0.2 s.
            return len(await deployments.workers("demo")) == 4

        await eventually(woken, "four pods", every=0.02)
        print(f"pods {time.monotonic() - began:.2f} s after the requests")
        assert await deployments.desired("demo") == 4


def hold(gateway: FakeGateway, namespace: str, requests: int) -> None:
    """So many wait at a gateway."""
    gateway.ledger.of(namespace, "demo").count("arrivals", requests)
    gateway.ledger.of(namespace, "demo").waiting = requests
