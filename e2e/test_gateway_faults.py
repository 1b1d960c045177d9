"""Faults that no connection's end tells of, and gateways that are replaced, under load: nothing is lost, little is sent
twice."""

from __future__ import annotations

import json
import os
import signal
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from typing import Any

import pytest

from e2e import faults, pages
from e2e.demo.kubernetes import Json
from e2e.demo.release import SYSTEM_NAMESPACE
from e2e.load import LONG, PROMPTS, Load
from e2e.pages import Pages
from e2e.service import GATEWAY, Service, record

SEEN_GUARD_SECONDS = 5 * 2.5
AWAY_SECONDS = 10.0
AMPLIFICATION = 1.1


@pytest.fixture
def told(pair: Service) -> Iterator[Pages]:
    """What gateways and replicas tell, both of each heard by both of the other."""
    with pages.opened(pair) as found:
        found.wait_heard(2)
        yield found


def _worker(service: Service, name: str) -> Json:
    [found] = [pod for pod in service.deployment.pods("worker") if pod["metadata"]["name"] == name]
    return found


@pytest.mark.parametrize(
    ("what", "fault"),
    [
        pytest.param("engine_stopped", faults.engine_stopped, id="its engine stands still"),
        pytest.param("pod_frozen", faults.pod_frozen, id="all of its pod stands still", marks=pytest.mark.long),
        pytest.param("packets_dropped", faults.cut_off, id="its packets are dropped"),
    ],
)
def test_a_replica_hangs(
    pair: Service, told: Pages, what: str, fault: Callable[[Service, Json], AbstractContextManager[None]]
) -> None:
    """Its connections stay open: only its silence tells."""
    pods = {pod["metadata"]["uid"] for pod in pair.deployment.pods()}
    retries, refusals, submitted = told.retries(), told.refusals(), told.submitted()
    with Load(pair.url, clients=4) as load:
        load.wait_for(10)
        with fault(pair, _worker(pair, told.busiest())):
            seen = told.wait_heard(1, seconds=SEEN_GUARD_SECONDS)
            load.wait_for(20)
        back = told.wait_heard(2)
        load.wait_for(20)
    pair.deployment.wait_ready()
    retries, refusals = told.retries() - retries, told.refusals() - refusals
    amplification = 1 + retries / load.tally.requests
    figures = {"seen_s": seen, "back_s": back, "retries": retries, "refusals": refusals}
    record(what, load.tally, **figures, amplification=amplification)
    assert (load.tally.failed, load.tally.cut) == (0, 0), load.tally.reasons
    assert retries >= 2, "a long stream and a long unary request were there when it hung"
    assert amplification <= AMPLIFICATION
    # The gateways counted all of it; an engine that was replaced has forgotten what it got.
    assert told.submitted() - submitted <= load.tally.requests + retries
    assert {pod["metadata"]["uid"] for pod in pair.deployment.pods()} == pods


def test_the_api_server_is_away(pair: Service, told: Pages) -> None:
    """The gateways go on with the replicas that they know."""
    address = pair.kubernetes.get("service", GATEWAY, f"--namespace={SYSTEM_NAMESPACE}")["spec"]["clusterIP"]
    submitted = told.submitted()
    with pair.reached(f"{address}:80") as url, Load(url) as load:
        load.wait_for(10)
        start = time.monotonic()
        with faults.api_server_away(pair.cluster):
            before = load.tally.completed
            time.sleep(AWAY_SECONDS)
            meanwhile = load.tally.completed - before
        seconds = time.monotonic() - start
        load.wait_for(20)
    amplification = (told.submitted() - submitted) / load.tally.requests
    record("api_server_away", load.tally, seconds=seconds, meanwhile=meanwhile, amplification=amplification)
    assert (load.tally.failed, load.tally.cut) == (0, 0), load.tally.reasons
    assert meanwhile >= 20
    assert amplification == 1
    for gateway in pair.gateways():
        name, since = gateway["metadata"]["name"], time.monotonic() - start + 1
        said = pair.kubernetes.kubectl("logs", name, f"--namespace={SYSTEM_NAMESPACE}", f"--since={since:.0f}s")
        assert "the API server is away, the last state is kept" in said
    pair.kubernetes.kubectl("rollout", "status", "deployment/aixcoder-operator", f"--namespace={SYSTEM_NAMESPACE}")
    pair.deployment.wait_ready()


def test_a_request_that_was_in_flight_at_two_deaths_is_refused(pair: Service, told: Pages) -> None:
    """No request of ours ends an engine: this one is made to look so, by a kill wherever it runs."""
    [gateway, _] = pair.gateways()
    suspect = LONG | {"seed": time.time_ns() % 2**31}
    names = [pod["metadata"]["name"] for pod in pair.deployment.pods("worker")]
    with pair.reached(f"{gateway['status']['podIP']}:8080") as url, ThreadPoolExecutor() as pool:
        asked = pool.submit(_ask, url, suspect)
        for _ in range(2):
            victim = told.wait_running(names)
            os.kill(faults.engine(pair, _worker(pair, victim)), signal.SIGKILL)
            names.remove(victim)
        assert asked.result() == (502, "replica_lost")
        start = time.monotonic()
        assert _ask(url, suspect) == (422, "suspected_poison")
        refused = time.monotonic() - start
        assert _ask(url, {"prompt": PROMPTS[0]}) == (200, None), "it waits for a replica, and gets one"
        seconds = time.monotonic() - start
    told.wait_heard(2)
    pair.deployment.wait_ready()
    record("poison", refused_s=refused, served_again_s=seconds)


def _ask(url: str, body: dict[str, Any]) -> tuple[int, str | None]:
    """The status of a completion, and the code of its error where it is one."""
    headers = {"content-type": "application/json"}
    request = urllib.request.Request(f"{url}/v1/completions", json.dumps(body).encode(), headers)
    try:
        with urllib.request.urlopen(request, timeout=60) as response:
            response.read()
            return response.status, None
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)["error"]["code"]


def test_the_gateways_are_replaced(pair: Service, told: Pages) -> None:
    namespace = f"--namespace={SYSTEM_NAMESPACE}"
    before = [pod["metadata"]["name"] for pod in pair.gateways()]
    submitted = told.submitted()
    with Load(pair.url) as load:
        load.wait_for(10)
        start = time.monotonic()
        pair.kubernetes.kubectl("rollout", "restart", f"deployment/{GATEWAY}", namespace)
        pair.kubernetes.kubectl("rollout", "status", f"deployment/{GATEWAY}", namespace, "--timeout=3m")
        pair.kubernetes.kubectl("wait", "--for=delete", "pods", *before, namespace, "--timeout=2m")
        seconds = time.monotonic() - start
        load.wait_for(20)
    amplification = (told.submitted() - submitted) / load.tally.requests
    record("gateways_replaced", load.tally, seconds=seconds, amplification=amplification)
    assert (load.tally.failed, load.tally.cut) == (0, 0), load.tally.reasons
    assert amplification == 1
    assert len(pair.gateways()) == len(before)
