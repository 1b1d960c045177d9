"""Scaling on what is asked: up under a burst, down without a cut, to zero and back, and faults in the middle of it."""

from __future__ import annotations

import json
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest

from e2e import faults
from e2e.autoscaled import GUARD_SECONDS, autoscaled, cold_start, desired
from e2e.cluster import processes
from e2e.demo.kubernetes import Json
from e2e.demo.readiness import condition
from e2e.demo.release import SYSTEM_NAMESPACE
from e2e.deployment import Deployment
from e2e.load import PROMPTS, Load
from e2e.meanwhile import meanwhile
from e2e.service import Service, record

BURST_CLIENTS = 16
"""Half of them write long texts: more than three replicas with two places each have room for."""
PATIENCE_SECONDS = 240.0


def ask(url: str, model: str) -> tuple[int, float]:
    """The status of a stream by a patient client, and the seconds until its first token."""
    body = {"model": model, "prompt": PROMPTS[0], "max_tokens": 8, "stream": True}
    headers = {"content-type": "application/json", "x-patience-ms": str(PATIENCE_SECONDS * 1000)}
    request = urllib.request.Request(f"{url}/v1/completions", json.dumps(body).encode(), headers)
    start = time.monotonic()
    with urllib.request.urlopen(request, timeout=PATIENCE_SECONDS) as response:
        response.read(1)
        return response.status, time.monotonic() - start


@contextmanager
def wishes(deployment: Deployment) -> Iterator[list[int]]:
    """What was decided, one entry a change, from the first one that is seen."""
    seen: list[int] = []

    def look() -> None:
        found = desired(deployment.get())
        if found is not None and seen[-1:] != [found]:
            seen.append(found)

    with meanwhile(look, every_s=0.5):
        yield seen


@pytest.mark.long
@pytest.mark.timeout(5 * GUARD_SECONDS)
def test_a_burst_and_a_lull(service: Service) -> None:
    """1 → 3 → 1 under streams; the operator is killed at the peak."""
    with service.deployments("scaled") as (scaled,):
        scaled.apply(autoscaled(service, minReplicas=1, maxReplicas=3))
        scaled.wait("had a measured start", lambda found: cold_start(found) is not None)
        # No more than one replica is for: long texts would take a place each for seconds.
        lull = Load(service.url, model="scaled", clients=2, pause_s=8.0, patience_s=PATIENCE_SECONDS)
        with lull as load, wishes(scaled) as seen:
            with Load(service.url, model="scaled", clients=BURST_CLIENTS, patience_s=PATIENCE_SECONDS) as burst:
                wish = scaled.wait("wished for three", lambda found: desired(found) == 3)
                pods = scaled.wait("had three workers", lambda _: len(scaled.pods("worker")) == 3)
            service.kill_operators()
            up = scaled.wait("had three ready", lambda found: _ready(found) == 3, seconds=GUARD_SECONDS)
            assert seen[seen.index(3) :] == [3]
            record("burst", burst.tally, wish_s=wish, pods_s=pods, up_s=wish + pods + up)
            down = scaled.wait(
                "had one worker left", lambda _: len(scaled.all_pods("worker")) == 1, seconds=GUARD_SECONDS
            )
            load.wait_for(10)
        record("lull", load.tally, down_s=down, cold_start_s=cold_start(scaled.get()) or 0)
        for tally in (burst.tally, load.tally):
            assert (tally.failed, tally.cut) == (0, 0), tally.reasons
        assert seen == sorted(seen[: seen.index(3) + 1]) + sorted(seen[seen.index(3) + 1 :], reverse=True)
        assert not condition(scaled.get(), "Reconciling")


@pytest.mark.timeout(5 * GUARD_SECONDS)
@pytest.mark.parametrize("restart", [True, pytest.param(False, marks=pytest.mark.long)])
def test_zero_and_wake(service: Service, restart: bool) -> None:
    """All pods go, the head's too; one request wakes the cluster, and is answered. `restart`: of the operator, then."""
    with service.deployments("sleeper") as (sleeper,):
        sleeper.apply(autoscaled(service, minReplicas=0, maxReplicas=2, scaleToZeroAfterSeconds=1))
        zero = sleeper.wait(
            "had no pods", lambda found: desired(found) == 0 and not sleeper.all_pods(), seconds=GUARD_SECONDS
        )
        assert sleeper.condition("Ready")["reason"] == "ScaledToZero"
        with ThreadPoolExecutor(1) as pool:
            asked = pool.submit(ask, service.url, "sleeper")
            if restart:
                service.kill_operators()
            wish = sleeper.wait("was woken", lambda found: desired(found) == 1)
            pods = sleeper.wait("had a worker", lambda _: bool(sleeper.pods("worker")))
            ready = sleeper.wait("was ready again", lambda found: _ready(found) == 1)
            status, first_byte = asked.result()
        record("wake", to_zero_s=zero, wish_s=wish, pod_s=pods, ready_s=ready, first_byte_s=first_byte)
        assert status == 200
        assert not condition(sleeper.get(), "Reconciling")


@pytest.mark.long
@pytest.mark.timeout(5 * GUARD_SECONDS)
def test_the_wish_never_falls_at_the_peak(service: Service) -> None:
    """The operator is killed, and one gateway can not be reached by the next one."""
    with service.deployments("peak") as (peak,):
        peak.apply(autoscaled(service, minReplicas=1, maxReplicas=3))
        peak.wait("was ready", lambda found: _ready(found) == 1)
        with Load(service.url, model="peak", patience_s=PATIENCE_SECONDS) as load:
            with Load(service.url, model="peak", clients=BURST_CLIENTS, patience_s=PATIENCE_SECONDS) as burst:
                peak.wait("wished for three", lambda found: desired(found) == 3)
            [gateway, _] = service.gateways()
            with wishes(peak) as seen, faults.unheard(service, gateway):
                service.kill_operators()
                load.wait_for(40, seconds=GUARD_SECONDS)
                namespace = f"--namespace={SYSTEM_NAMESPACE}"
                service.kubernetes.kubectl(
                    "rollout", "status", "deployment/aixcoder-operator", namespace, "--timeout=2m"
                )
                # Beyond what keeps any new leader from scaling down: it is the silent gateway that does.
                time.sleep(2 * (cold_start(peak.get()) or 0) + 30)
        record("peak", load.tally)
        assert seen == [3]
        for tally in (burst.tally, load.tally):
            assert (tally.failed, tally.cut) == (0, 0), tally.reasons


@pytest.mark.long
@pytest.mark.timeout(5 * GUARD_SECONDS)
def test_four_to_three_takes_the_one_that_is_not_ready(service: Service) -> None:
    """The controller manager stands still for five seconds meanwhile: it chooses late, by what was marked."""
    with service.deployments("four") as (four,):
        four.apply(service.spec | {"replicas": 4})
        four.wait("had four ready", lambda found: _ready(found) == 4, seconds=GUARD_SECONDS)
        victim, *rest = four.pods("worker")
        names = {pod["metadata"]["name"] for pod in rest}
        with Load(service.url, model="four") as load:
            load.wait_for(10)
            with faults.pod_stopped(service, victim):
                four.wait("had three ready", lambda found: _ready(found) == 3)
                with processes.stopped(faults.program(service.cluster, "kube-controller-manager").pid):
                    four.scale(3)
                    time.sleep(5)
                four.wait("let the fourth go", lambda _: len(four.pods("worker")) == 3)
            load.wait_for(10)
            four.wait("had three workers", lambda _: len(four.all_pods("worker")) == 3, seconds=GUARD_SECONDS)
        record("four_to_three", load.tally)
        assert {pod["metadata"]["name"] for pod in four.pods("worker")} == names
        assert (load.tally.failed, load.tally.cut) == (0, 0), load.tally.reasons


@pytest.mark.long
@pytest.mark.timeout(5 * GUARD_SECONDS)
def test_a_victim_that_hangs_in_shutdown_holds_nobody_up(service: Service) -> None:
    """Its processes stand still: kubelet ends them after the grace, and meanwhile nothing is sent there."""
    with service.deployments("hanging") as (hanging,):
        hanging.apply(service.spec | {"replicas": 2})
        hanging.wait("had two ready", lambda found: _ready(found) == 2, seconds=GUARD_SECONDS)
        with Load(service.url, model="hanging") as load:
            load.wait_for(10)
            hanging.scale(1)
            hanging.wait("let one go", lambda _: len(hanging.pods("worker")) == 1)
            [victim] = [pod for pod in hanging.all_pods("worker") if pod["metadata"].get("deletionTimestamp")]
            with faults.pod_stopped(service, victim):
                load.wait_for(20)
                gone = hanging.wait(
                    "was rid of it", lambda _: len(hanging.all_pods("worker")) == 1, seconds=GUARD_SECONDS
                )
        record("hanging_victim", load.tally, gone_s=gone)
        assert load.tally.failed == 0, load.tally.reasons
        assert not condition(hanging.get(), "Stalled")


def _ready(resource: Json) -> int:
    found: int = resource.get("status", {}).get("readyReplicas", 0)
    return found
