"""Ten minutes of requests on the cluster cost as many seconds of replicas as the simulator says."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest

from benchmarks.scaling.fleet import SERVICE
from benchmarks.scaling.predict import predict
from benchmarks.scaling.traces import Trace
from e2e.autoscaled import GUARD_SECONDS, SLOTS, autoscaled, cold_start
from e2e.deployment import Deployment
from e2e.meanwhile import meanwhile
from e2e.replay import replay
from e2e.service import Service, record

MOST = 2
"""Replicas: what two cores run beside everything else."""
TOKENS = 200
PROMPT_TOKENS = 12
END_S = 600.0
RATES = ((200.0, 0.4), (200.0, 2.0), (200.0, 0.4))
"""Seconds, and requests in each of them."""
PATIENCE_S = 60.0
ALIKE = 0.05


@pytest.mark.long
@pytest.mark.timeout(2400)
def test_live_costs_what_is_simulated(service: Service) -> None:
    """The simulator is told what the replicas were measured to do, and when which request came."""
    with service.deployments("live") as (live,):
        live.apply(autoscaled(service, minReplicas=1, maxReplicas=MOST))
        live.wait("had a measured start", lambda found: cold_start(found) is not None)
        alone = _request_s(service, 1)
        both = _request_s(service, SLOTS)
        at = _arrivals()
        # What it was measured with is forgotten.
        live.wait("had one worker again", lambda _: len(live.all_pods("worker")) == 1, seconds=GUARD_SECONDS)
        with _paid(live) as seconds:
            replayed = replay(service.url, "live", at, TOKENS, patience_s=PATIENCE_S)
            time.sleep(max(END_S - at[-1] - 1, 0.0))
        start_s = cold_start(live.get()) or 0
    each_s = max(both - alone, 0.0) / TOKENS / (SLOTS - 1)
    measured = replace(
        SERVICE,
        prefill_tokens_per_s=PROMPT_TOKENS / 0.01,
        token_s=alone / TOKENS - each_s,
        token_s_per_request=each_s,
        patience_s=PATIENCE_S,
        slots=SLOTS,
    )
    size = len(at)
    prompt, output = np.full(size, PROMPT_TOKENS, np.int32), np.full(size, TOKENS, np.int32)
    trace = Trace("live", None, np.array(at), prompt, output, np.full(size, np.inf))
    simulated = predict(trace, measured, float(start_s), 1, MOST, END_S)
    record(
        "live_and_simulated",
        live_s=sum(seconds),
        simulated_s=simulated.gpu_s,
        requests=size,
        cold_start_s=start_s,
        request_s=statistics.median(replayed.seconds),
        alone_s=alone,
        both_s=both,
        sent_late_s=replayed.latest_s,
    )
    assert not replayed.failures
    assert sum(seconds) == pytest.approx(simulated.gpu_s, rel=ALIKE)


def _arrivals() -> list[float]:
    """Poisson, the same each time."""
    chance = np.random.default_rng(7)
    at: list[float] = []
    begin = 0.0
    for length, rate in RATES:
        at += sorted(begin + chance.uniform(0, length, int(length * rate)))
        begin += length
    return at


def _request_s(service: Service, together: int) -> float:
    """The median time of a request where so many run at once at one replica."""
    found = replay(
        service.url, "live", [0.5 * (number // together) * 4 for number in range(6 * together)], TOKENS, patience_s=60
    )
    assert not found.failures
    return statistics.median(found.seconds)


@contextmanager
def _paid(deployment: Deployment) -> Iterator[list[float]]:
    """Pods that were there and not yet to go, times seconds: one entry a look."""
    seconds: list[float] = []
    looked = time.monotonic()

    def look() -> None:
        nonlocal looked
        pods = len(deployment.pods("worker"))
        now = time.monotonic()
        seconds.append(pods * (now - looked))
        looked = now

    with meanwhile(look, every_s=1.0):
        yield seconds
