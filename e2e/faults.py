"""What breaks without a word: a process or a pod that stands still, packets that get lost, an API server that is away.

All of them end with their block, however it ends.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TypeVar

from e2e.cluster import cgroups, processes
from e2e.cluster.errors import ClusterError
from e2e.cluster.local import LocalCluster
from e2e.cluster.processes import Process
from e2e.demo.kubernetes import Json
from e2e.service import Service

T = TypeVar("T")

GUARD_SECONDS = 60.0
"""When a program that comes back counts as lost."""
_API_SERVER = "kube-apiserver"
_PROXY = "kube-proxy"
_PROBE = "kube-proxy-probe"
_NOBODY = "203.0.113.1"
"""Of those that RFC 5737 keeps for documentation: no host has it."""
_ENGINE = b"\0aixcoder_serving.engine\0"
_TABLE = "aixcoder_fault"


def engine(service: Service, pod: Json) -> int:
    """The id, on this machine, of the process of the engine with one rank that a worker's pod runs."""
    [found] = [pid for pid in _processes(service, pod) if _ENGINE in _command(pid)]
    return found


def engine_stopped(service: Service, pod: Json) -> AbstractContextManager[None]:
    """The engine of a worker's pod stands still; its replica's process, which speaks HTTP, goes on."""
    return processes.stopped(engine(service, pod))


def pod_frozen(service: Service, pod: Json) -> AbstractContextManager[None]:
    """Every process of a pod stands still. Its kernel goes on: connections are taken, and nobody answers."""
    return cgroups.frozen(service.cluster.layout.cgroup, _cgroup(pod))


@contextmanager
def pod_stopped(service: Service, pod: Json) -> Iterator[None]:
    """Every process of a pod stands still and can be killed, which one in a frozen cgroup of v1 cannot."""
    with ExitStack() as stack:
        for pid in _processes(service, pod):
            with suppress(ProcessLookupError):  # it has ended since
                stack.enter_context(processes.stopped(pid))
        yield


@contextmanager
def cut_off(service: Service, pod: Json) -> Iterator[None]:
    """Packets between a pod and the gateways are dropped, both ways; kubelet reaches it as before."""
    peers = ", ".join(gateway["status"]["podIP"] for gateway in service.gateways())
    with _dropped(service, pod, incoming=f"ip saddr {{ {peers} }}", outgoing=f"ip daddr {{ {peers} }}"):
        yield


@contextmanager
def unheard(service: Service, gateway: Json) -> Iterator[None]:
    """Nobody reaches the internal port of a gateway's pod any more; its clients do as before."""
    with _dropped(service, gateway, incoming="tcp dport 9090", outgoing="tcp sport 9090"):
        yield


@contextmanager
def _dropped(service: Service, pod: Json, *, incoming: str, outgoing: str) -> Iterator[None]:
    """In the network of a pod, packets that a condition of nft holds for are dropped."""
    network = os.open(f"/proc/{min(_processes(service, pod))}/ns/net", os.O_RDONLY)
    rules = f"""
    table ip {_TABLE} {{
        chain incoming {{ type filter hook input priority filter; {incoming} drop; }}
        chain outgoing {{ type filter hook output priority filter; {outgoing} drop; }}
    }}
    """
    try:
        _nft(network, "-f", "-", rules=rules)
        try:
            yield
        finally:
            _nft(network, "delete", "table", "ip", _TABLE)
    finally:
        os.close(network)


@contextmanager
def api_server_away(cluster: LocalCluster) -> Iterator[None]:
    """The API server is killed; the one that the supervisor starts in its place stands still before it listens.

    kube-proxy asks less often the longer nobody answers, up to a minute apart: it is started again at the end, or the
    next test would have a network of before.
    """
    killed = program(cluster, _API_SERVER)
    os.kill(killed.pid, signal.SIGKILL)

    def successor() -> Process | None:
        found = _program(cluster, _API_SERVER)
        return found if found is not None and found.pid != killed.pid else None

    with processes.stopped(_until(f"{_API_SERVER} was started again", successor).pid):
        yield
    _until(f"{_API_SERVER} was ready", lambda: _ready(cluster))
    _restart_proxy(cluster)


def _restart_proxy(cluster: LocalCluster) -> None:
    """Return when the new kube-proxy sends a new Service's connections to its endpoint: it follows both kinds."""
    killed = program(cluster, _PROXY)
    network = os.open(f"/proc/{killed.pid}/ns/net", os.O_RDONLY)  # its successor's too
    os.kill(killed.pid, signal.SIGKILL)
    service: Json = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": _PROBE, "namespace": "default"},
        "spec": {"ports": [{"port": 80}]},
    }
    endpoints: Json = {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": service["metadata"] | {"labels": {"kubernetes.io/service-name": _PROBE}},
        "addressType": "IPv4",
        "endpoints": [{"addresses": [_NOBODY]}],
        "ports": [{"port": 80, "name": ""}],
    }
    objects = json.dumps({"apiVersion": "v1", "kind": "List", "items": [service, endpoints]})
    try:
        cluster.kubectl("apply", "--filename=-", stdin=objects)
        _until(f"{_PROXY} followed the API server", lambda: _NOBODY in _nft(network, "list", "ruleset") or None)
    finally:
        os.close(network)
        cluster.kubectl("delete", "--filename=-", "--ignore-not-found", stdin=objects)


def _processes(service: Service, pod: Json) -> set[int]:
    return cgroups.processes(service.cluster.layout.cgroup, _cgroup(pod))


def _cgroup(pod: Json) -> str:
    return f"pod{pod['metadata']['uid']}"


def _command(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def _nft(network: int, *arguments: str, rules: str = "") -> str:
    command = ["nsenter", f"--net=/proc/self/fd/{network}", "nft", *arguments]
    done = subprocess.run(command, input=rules, text=True, check=True, pass_fds=[network], stdout=subprocess.PIPE)
    return done.stdout


def program(cluster: LocalCluster, name: str) -> Process:
    """One of the cluster's programs, once it runs."""
    return _until(f"{name} ran", lambda: _program(cluster, name))


def _program(cluster: LocalCluster, name: str) -> Process | None:
    kept = name[: processes.NAME_CHARACTERS]
    return next((found for found in processes.marked(cluster.layout.marker) if found.program == kept), None)


def _ready(cluster: LocalCluster) -> str | None:
    try:
        return cluster.kubectl("get", "--raw=/readyz")
    except ClusterError:
        return None


def _until(what: str, happened: Callable[[], T | None]) -> T:
    deadline = time.monotonic() + GUARD_SECONDS
    while (found := happened()) is None:
        if time.monotonic() > deadline:
            raise TimeoutError(f"Not after {GUARD_SECONDS:.0f} s: {what}.")
        time.sleep(0.02)
    return found
