"""Nodes and pods that KWOK simulates: a pod gets a node, runs a little, becomes ready, and goes when it is deleted."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from e2e.cluster import programs
from e2e.cluster.controlplane import ControlPlane

START_SECONDS = 3
"""From a pod's node to its readiness."""

_NODE = """\
{{ $now := Now }}
allocatable: {cpu: 10k, memory: 100Ti, pods: 10k}
capacity: {cpu: 10k, memory: 100Ti, pods: 10k}
conditions:
- {type: Ready, status: 'True', reason: Simulated, message: up, lastTransitionTime: {{ $now | Quote }}}
"""
_GONE = {"key": ".metadata.deletionTimestamp", "operator": "Exists"}
_THERE = {"key": ".metadata.deletionTimestamp", "operator": "DoesNotExist"}


def _phase(phase: str) -> dict[str, Any]:
    return {"key": ".status.phase", "operator": "In", "values": [phase]}


def _status(ready: bool, ip: str) -> str:
    lines = [
        "{{ $now := Now }}",
        "phase: Running",
        "startTime: {{ or .status.startTime $now | Quote }}",
        f"podIP: {ip}",
        f"podIPs: [{{ip: {ip}}}]",
        "conditions:",
    ]
    for kind in ("Initialized", "Ready", "ContainersReady"):
        status = str(ready or kind == "Initialized")
        lines.append(f"- {{type: {kind}, status: '{status}', lastTransitionTime: {{{{ $now | Quote }}}}}}")
    return "\n".join(lines) + "\n"


def _stage(name: str, kind: str, expressions: list[dict[str, Any]], after: dict[str, Any], delay_ms: int = 0) -> Any:
    return {
        "apiVersion": "kwok.x-k8s.io/v1alpha1",
        "kind": "Stage",
        "metadata": {"name": name},
        "spec": {
            "resourceRef": {"apiGroup": "v1", "kind": kind},
            "selector": {"matchExpressions": expressions},
            "delay": {"durationMilliseconds": delay_ms},
            "next": after,
        },
    }


def _stages(start_seconds: float, ip: str) -> list[Any]:
    ready = {"key": '.status.conditions.[] | select( .type == "Ready" ) | .status', "operator": "In"}
    return [
        _stage("node-up", "Node", [ready | {"operator": "NotIn", "values": ["True"]}], {"statusTemplate": _NODE}),
        _stage(
            "pod-taken",
            "Pod",
            [_THERE, _phase("Pending")],
            {"statusTemplate": _status(ready=False, ip=ip)},
        ),
        _stage(
            "pod-ready",
            "Pod",
            [_THERE, _phase("Running"), ready | {"values": ["False"]}],
            {"statusTemplate": _status(ready=True, ip=ip)},
            delay_ms=round(start_seconds * 1000),
        ),
        _stage("pod-gone", "Pod", [_GONE], {"delete": True}, delay_ms=500),
    ]


@contextmanager
def simulated(plane: ControlPlane, folder: Path, ip: str, *, start_seconds: float = START_SECONDS) -> Iterator[None]:
    """Two nodes and their pods, which all have the address `ip`.

    `plane` has controllers and a scheduler; configuration and log lie in `folder`.
    """
    for name in ("kwok-0", "kwok-1"):
        node = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}}
        plane.kubectl("create", "-f", "-", stdin=json.dumps(node))
    configuration = folder / "kwok.yaml"
    configuration.write_text(yaml.safe_dump_all(_stages(start_seconds, ip)))
    command = [
        "setpriv", "--pdeathsig", "KILL", str(programs.kubernetes_programs() / "kwok"),
        f"--kubeconfig={plane.kubeconfig}", f"--config={configuration}", "--manage-all-nodes=true",
        "--node-lease-duration-seconds=40",
    ]  # fmt: skip
    with (folder / "kwok.log").open("wb") as log:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
    try:
        yield
    finally:
        process.kill()
        process.wait(10)
