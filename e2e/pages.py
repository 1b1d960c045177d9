"""What gateways and replicas tell of themselves: each is asked by its pod's address, without the API server."""

from __future__ import annotations

import json
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from e2e.service import Service

GUARD_SECONDS = 120.0
"""When a wait counts as hung: some ten times what the replacement of a replica takes."""
_INTERNAL_PORT = 9090
_REPLICA_PORT = 30000
_LOOK_SECONDS = 0.02
_WRITING_SECONDS = 0.5


class Pages:
    """The pages of the gateways (URLs) and of the replicas (name of the pod → URL) that there were at the start."""

    def __init__(self, gateways: Sequence[str], replicas: Mapping[str, str]) -> None:
        self._gateways = gateways
        self._replicas = replicas

    def wait_heard(self, replicas: int, *, seconds: float = GUARD_SECONDS) -> float:
        """Wait until each gateway hears so many replicas, and so sends to no other; returns the seconds it took."""
        start = time.monotonic()
        left = list(self._gateways)
        while left := [url for url in left if _total(url, "aixcoder_gateway_replicas_heard") != replicas]:
            if time.monotonic() - start > seconds:
                raise TimeoutError(f"{len(left)} gateways never heard {replicas} replicas within {seconds} s")
            time.sleep(_LOOK_SECONDS)
        return time.monotonic() - start

    def retries(self) -> float:
        """Requests that these gateways sent to another replica after they had been sent to one."""
        return sum(_total(url, "aixcoder_gateway_upstream_retries_total") for url in self._gateways)

    def refusals(self) -> float:
        """Requests for which a replica told these gateways that it had no room."""
        return sum(_total(url, "aixcoder_gateway_upstream_refusals_total") for url in self._gateways)

    def submitted(self) -> int:
        """Requests that came to the replicas' engines since those started."""
        return sum(self._stats(name)["submitted"] for name in self._replicas)

    def busiest(self) -> str:
        """The replica that writes the most just now."""
        before = {name: self._stats(name)["tokens_decoded"] for name in self._replicas}
        time.sleep(_WRITING_SECONDS)
        return max(self._replicas, key=lambda name: self._stats(name)["tokens_decoded"] - before[name])

    def wait_running(self, names: Sequence[str], *, seconds: float = GUARD_SECONDS) -> str:
        """Wait until one of these replicas runs a request; returns its name."""
        deadline = time.monotonic() + seconds
        while not (running := [name for name in names if self._stats(name)["running"]]):
            if time.monotonic() > deadline:
                raise TimeoutError(f"none of {names} ran a request within {seconds} s")
            time.sleep(_LOOK_SECONDS)
        return running[0]

    def _stats(self, name: str) -> dict[str, Any]:
        stats: dict[str, Any] = json.loads(_page(f"{self._replicas[name]}/stats"))
        return stats


@contextmanager
def opened(service: Service) -> Iterator[Pages]:
    """The pages of the gateways and replicas that there are now."""
    with ExitStack() as forwards:

        def reached(pod: dict[str, Any], port: int) -> str:
            return forwards.enter_context(service.reached(f"{pod['status']['podIP']}:{port}"))

        yield Pages(
            [reached(pod, _INTERNAL_PORT) for pod in service.gateways()],
            {pod["metadata"]["name"]: reached(pod, _REPLICA_PORT) for pod in service.deployment.pods("worker")},
        )


def _total(gateway: str, metric: str) -> float:
    """A metric of a gateway, summed over its labels; 0 where nothing was counted yet."""
    lines = [
        line for line in _page(f"{gateway}/metrics").splitlines() if line.startswith((f"{metric} ", f"{metric}{{"))
    ]
    return sum(float(line.rpartition(" ")[2]) for line in lines)


def _page(url: str) -> str:
    with urllib.request.urlopen(url, timeout=10) as response:
        text: str = response.read().decode()
    return text
