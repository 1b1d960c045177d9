"""Why a unit has fewer ready replicas than wished: one reason and one sentence, the cause before its consequences."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from aixcoder_operator.api.objects import Object, condition, metadata, name, timestamp
from aixcoder_operator.plan.observed import UnitView, is_ready

_IMAGE_REASONS = frozenset(
    {
        "ErrImagePull",
        "ImagePullBackOff",
        "ErrImageNeverPull",
        "InvalidImageName",
        "ImageInspectError",
        "RegistryUnavailable",
    }
)
_CONFIG_REASONS = frozenset({"CreateContainerConfigError", "CreateContainerError", "RunContainerError"})
_HEAD_PATIENCE = timedelta(seconds=60)
"""A head starts in 15 to 20 s and its Serve some seconds later; silence for longer than this is a problem, no start."""
STARTING = "Starting"
"""The reason where none is known: nothing is wrong yet."""
UNDER_WAY = frozenset({STARTING, "ModelLoading"})
"""Reasons of a replica that is coming up as it should."""
_ERROR = re.compile(r"[\w.]*(Error|Exception|Killed|Exit|Interrupt)\b")
"""How the line of a Python traceback begins that names the error, with its module or without."""
_LONGEST_MESSAGE = 400
"""Characters of another program's message that go into a condition."""


@dataclass(frozen=True, slots=True)
class Reason:
    """A condition's reason (CamelCase) and message."""

    reason: str
    message: str

    def __str__(self) -> str:
        return f"{self.reason}: {self.message}"


@dataclass(frozen=True, slots=True)
class GpuRequest:
    """What each worker pod asks for; `resource` None where it asks for no GPU."""

    resource: str | None
    count: int


def why_not_ready(unit: UnitView, wish: int, gpu: GpuRequest, now: datetime) -> Reason:
    """The first cause that keeps `unit` from having `wish` ready replicas. Call it only where it has fewer."""
    return next(_causes(unit, wish, gpu, now))


def _causes(unit: UnitView, wish: int, gpu: GpuRequest, now: datetime) -> Iterator[Reason]:
    workers = [pod for pod in unit.workers if not is_ready(pod)]
    yield from _refused(unit)
    yield from _unschedulable(workers, wish, gpu)
    # How a head that is ready now ended once says nothing of today.
    pods = [*([unit.head] if unit.head and not is_ready(unit.head) else []), *workers]
    for cause in (_image, _out_of_memory, _configuration):
        for pod in pods:
            yield from cause(pod)
    if unit.head is not None:
        yield from _unscheduled_head(unit.head)
    for pod in workers:
        yield from _reported_failure(unit, pod)
    for pod in workers:
        # What a replica says of itself now is nearer the truth than how its last container ended.
        yield from _loading(unit, pod)
    for pod in pods:
        yield from _crash(pod)
    yield from _ray(unit, now)
    yield from _serve_failure(unit)
    yield _starting(unit, wish)


def refusal(unit: UnitView) -> Mapping[str, Any] | None:
    """The ReplicaSet's condition that pods could not be made, for a quota or an admission rule; else None."""
    found = condition(unit.replica_set, "ReplicaFailure") if unit.replica_set else None
    return found if found and found["status"] == "True" else None


def _refused(unit: UnitView) -> Iterator[Reason]:
    found = refusal(unit)
    if found is not None:
        yield Reason("PodsRefused", f"the API server refuses worker pods: {_short(found.get('message', ''))}")


def _unschedulable(workers: list[Object], wish: int, gpu: GpuRequest) -> Iterator[Reason]:
    stuck = [message for pod in workers if (message := _unschedulable_message(pod)) is not None]
    if not stuck:
        return
    # The resource's name alone could also be that of a taint.
    gpuless = [message for message in stuck if f"Insufficient {gpu.resource}" in message]
    if gpuless:
        wanted = f"{gpu.count} free {gpu.resource}"
        yield Reason(
            "InsufficientGPU", f"{len(stuck)} of {wish} replicas wait for a node with {wanted}; {_short(gpuless[0])}"
        )
    yield Reason("Unschedulable", f"{len(stuck)} of {wish} replicas have no node; {_short(stuck[0])}")


def _unschedulable_message(pod: Object) -> str | None:
    found = condition(pod, "PodScheduled")
    if found is None or found["status"] == "True":
        return None
    return str(found.get("message", "the scheduler gave no reason"))


def _unscheduled_head(head: Object) -> Iterator[Reason]:
    message = _unschedulable_message(head)
    if message is not None:
        yield Reason("Unschedulable", f"the Ray head has no node; {_short(message)}")


def _image(pod: Object) -> Iterator[Reason]:
    for _, state in _waiting(pod):
        if state["reason"] in _IMAGE_REASONS:
            yield Reason("ImagePullFailed", f"pod {name(pod)}: {_short(state.get('message') or state['reason'])}")


def _configuration(pod: Object) -> Iterator[Reason]:
    for _, state in _waiting(pod):
        if state["reason"] in _CONFIG_REASONS:
            yield Reason("PodConfigInvalid", f"pod {name(pod)}: {_short(state.get('message') or state['reason'])}")


def _out_of_memory(pod: Object) -> Iterator[Reason]:
    for container in _containers(pod):
        for state in (container.get("state", {}), container.get("lastState", {})):
            if state.get("terminated", {}).get("reason") == "OOMKilled":
                yield Reason(
                    "OutOfMemory",
                    f"pod {name(pod)} was killed at its memory limit; raise spec.resources.memory "
                    "(or spec.head.resources.memory for a head)",
                )


def _reported_failure(unit: UnitView, pod: Object) -> Iterator[Reason]:
    view = unit.replicas.get(name(pod))
    if view and view.readiness and view.readiness.phase == "failed":
        reason = view.readiness.reason or "ReplicaCrashed"
        yield Reason("ReplicaCrashed" if reason == "EngineFailed" else reason, _short(view.readiness.message))


def _crash(pod: Object) -> Iterator[Reason]:
    for container in _containers(pod):
        ended = container.get("state", {}).get("terminated") or container.get("lastState", {}).get("terminated")
        if ended and ended.get("exitCode") != 0:
            last = last_error(ended.get("message", "")) or f"exit code {ended.get('exitCode')}"
            yield Reason("ReplicaCrashed", f"pod {name(pod)}, container {container['name']}: {_short(last)}")


def _ray(unit: UnitView, now: datetime) -> Iterator[Reason]:
    if unit.head is None:
        if unit.workers:
            yield Reason("RayUnavailable", f"unit {unit.name} has lost its Ray head; its workers go on serving")
        return
    since = timestamp(
        (condition(unit.head, "Ready") or {}).get("lastTransitionTime") or metadata(unit.head)["creationTimestamp"]
    )
    if now - since <= _HEAD_PATIENCE:
        return
    if not is_ready(unit.head):
        yield Reason("RayUnavailable", f"the Ray head {name(unit.head)} is not ready since {since.isoformat()}")
    elif unit.serve is not None and unit.serve.error:
        yield Reason("RayUnavailable", f"Ray Serve on {name(unit.head)} does not answer: {_short(unit.serve.error)}")


def _serve_failure(unit: UnitView) -> Iterator[Reason]:
    failure = unit.serve.failure if unit.serve else None
    if failure is not None:
        yield Reason("ReplicaCrashed", _short(last_error(failure) or "Ray Serve gives no message"))


def _loading(unit: UnitView, pod: Object) -> Iterator[Reason]:
    view = unit.replicas.get(name(pod))
    if view and view.readiness and view.readiness.phase == "loading":
        yield Reason("ModelLoading", f"{name(pod)} has loaded {view.readiness.percent} % of the model")


def _starting(unit: UnitView, wish: int) -> Reason:
    if unit.head is None:
        waits_for = "the Ray head's pod"
    elif not is_ready(unit.head):
        waits_for = "the Ray head to start"
    elif len(unit.workers) < wish:
        waits_for = "worker pods to be made"
    elif any(pod.get("status", {}).get("phase") != "Running" for pod in unit.workers):
        waits_for = "worker pods to start"
    else:
        waits_for = "replicas to start"
    return Reason(STARTING, f"waiting for {waits_for}")


def _containers(pod: Object) -> list[Object]:
    status = pod.get("status", {})
    return [*status.get("initContainerStatuses", ()), *status.get("containerStatuses", ())]


def _waiting(pod: Object) -> Iterator[tuple[str, Object]]:
    for container in _containers(pod):
        state = container.get("state", {}).get("waiting")
        if state and state.get("reason"):
            yield container["name"], state


def last_error(text: str) -> str:
    """The last line of `text` that names an error, as a Python traceback ends with; else the last that is not blank."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    errors = [line for line in lines if _ERROR.match(line)]
    return (errors or lines or [""])[-1]


def _short(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= _LONGEST_MESSAGE else f"{text[: _LONGEST_MESSAGE - 1]}…"
