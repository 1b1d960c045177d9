import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from aixcoder_operator.api.objects import Object
from aixcoder_operator.cluster import kinds
from aixcoder_operator.cluster.client import Client, NotLeading
from aixcoder_operator.cluster.lease import HOLD_SECONDS, LEASE_SECONDS, Lease
from e2e.cluster.controlplane import ControlPlane
from tests.component.operator.apiproxy import ApiProxy

LEASE, HOLD, RENEW, LOOK = 3, 2.0, 0.3, 0.1


class Candidate:
    def __init__(self, client: Client, namespace: str, name: str) -> None:
        self.changes: list[bool] = []
        self.reason = ""
        self.lease = Lease(
            client,
            namespace,
            "operator",
            name,
            on_change=self.changes.append,
            lease_seconds=LEASE,
            hold_seconds=HOLD,
            renew_seconds=RENEW,
            look_seconds=LOOK,
        )

    async def run(self) -> None:
        await self.lease.acquire()
        self.reason = await self.lease.hold()


@asynccontextmanager
async def running(*candidates: Candidate) -> AsyncIterator[list[asyncio.Task[None]]]:
    tasks = [asyncio.create_task(candidate.run()) for candidate in candidates]
    try:
        yield tasks
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def until(condition: Callable[[], bool], seconds: float = 30.0) -> float:
    """Seconds it took."""
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < seconds, "it never came to be"
        await asyncio.sleep(0.01)
    return time.monotonic() - began


async def stored(client: Client, namespace: str) -> Object:
    spec: Object = (await client.get(kinds.LEASE, namespace, "operator"))["spec"]
    return spec


def test_the_leader_stops_before_a_candidate_begins_and_a_crash_costs_15_seconds_at_most() -> None:
    assert HOLD_SECONDS < LEASE_SECONDS - 2
    # A candidate sees the last renewal up to one look late, and takes over at the first look after the span.
    assert LEASE_SECONDS + 2 * 1.0 <= 15


async def test_of_two_one_leads_and_renews_and_the_other_waits(client: Client, namespace: str) -> None:
    a, b = Candidate(client, namespace, "a"), Candidate(client, namespace, "b")
    async with running(a, b):
        await until(lambda: a.lease.holds() or b.lease.holds())
        await asyncio.sleep(LEASE + 1)
        assert [a.lease.holds(), b.lease.holds()].count(True) == 1
        leader, standby = (a, b) if a.lease.holds() else (b, a)
        assert (leader.changes, standby.changes) == ([True], [])
        assert 0 < leader.lease.guard() <= HOLD
        with pytest.raises(NotLeading):
            standby.lease.guard()
        assert (await stored(client, namespace))["holderIdentity"] == ("a" if leader is a else "b")


async def test_a_released_lease_is_taken_at_once(client: Client, namespace: str) -> None:
    a, b = Candidate(client, namespace, "a"), Candidate(client, namespace, "b")
    async with running(a) as first:
        await until(a.lease.holds)
        async with running(b):
            await asyncio.sleep(3 * LOOK)
            first[0].cancel()
            await asyncio.wait(first)
            await a.lease.release()
            assert not a.lease.holds()
            took = await until(b.lease.holds)
            print(f"taken {took:.2f} s after the release")
            assert took < LEASE / 2
            assert (await stored(client, namespace))["leaseTransitions"] == 1
            assert a.changes == [True, False]


async def test_a_release_works_though_a_renewal_was_cut_off(client: Client, namespace: str) -> None:
    a = Candidate(client, namespace, "a")
    async with running(a):
        await until(a.lease.holds)
    held = await client.get(kinds.LEASE, namespace, "operator")
    # As if the answer of our own last renewal had been lost.
    await client.replace({**held, "spec": {**held["spec"], "renewTime": "2026-01-01T00:00:00.000000Z"}})
    await a.lease.release()
    assert (await stored(client, namespace)).get("holderIdentity", "") == ""


async def test_a_frozen_leader_stops_before_the_other_begins_and_gives_up_when_it_thaws(
    client: Client, proxied: Client, proxy: ApiProxy, namespace: str
) -> None:
    a, b = Candidate(proxied, namespace, "a"), Candidate(client, namespace, "b")
    both = False

    async def watch() -> None:
        nonlocal both
        while True:
            both = both or (a.lease.holds() and b.lease.holds())
            await asyncio.sleep(0.005)

    async with running(a) as first:
        await until(a.lease.holds)
        async with running(b):
            watching = asyncio.create_task(watch())
            await asyncio.sleep(3 * LOOK)
            proxy.open.clear()  # none of its renewals arrives any more
            frozen = time.monotonic()
            await until(lambda: not a.lease.holds())
            stopped = time.monotonic() - frozen
            await until(b.lease.holds)
            print(f"stopped {stopped:.2f} s and taken over {time.monotonic() - frozen:.2f} s after the freeze")
            with pytest.raises(NotLeading):
                a.lease.guard()
            await asyncio.wait(first, timeout=10)
            assert "could not be renewed for 2 s" in a.reason
            proxy.open.set()
            await asyncio.sleep(1)
            assert b.lease.holds()
            assert (await stored(client, namespace))["holderIdentity"] == "b"
            watching.cancel()
    assert not both
    assert a.changes == [True, False]


async def test_a_lease_that_somebody_took_is_lost_at_the_next_renewal(client: Client, namespace: str) -> None:
    a = Candidate(client, namespace, "a")
    async with running(a) as tasks:
        await until(a.lease.holds)
        while True:  # against its renewals
            held = await client.get(kinds.LEASE, namespace, "operator")
            try:
                await client.replace({**held, "spec": {**held["spec"], "holderIdentity": "thief"}})
                break
            except Exception as error:
                print(f"once more: {error}")
        await asyncio.wait(tasks, timeout=10)
        assert a.reason == "thief holds the Lease"
        assert not a.lease.holds()


async def test_a_deleted_lease_is_lost(client: Client, namespace: str) -> None:
    a = Candidate(client, namespace, "a")
    async with running(a) as tasks:
        await until(a.lease.holds)
        await client.delete(await client.get(kinds.LEASE, namespace, "operator"))
        await asyncio.wait(tasks, timeout=10)
        assert a.reason == "the Lease was deleted"


async def test_somebodys_annotation_costs_nothing(client: Client, plane: ControlPlane, namespace: str) -> None:
    a = Candidate(client, namespace, "a")
    async with running(a) as tasks:
        await until(a.lease.holds)
        plane.kubectl("annotate", "-n", namespace, "lease/operator", "note=1")
        await asyncio.sleep(HOLD + 1)
        assert a.lease.holds()
        assert not tasks[0].done()
