"""Why a unit is not ready: one reason, the cause before its consequences."""

from __future__ import annotations

import pytest

from aixcoder_operator.plan.diagnosis import GpuRequest, Reason, last_error, why_not_ready
from aixcoder_operator.plan.observed import ServeView, UnitView
from tests.unit.plan.views import NOW, ended, pod, replica_set, says, serve, unit, waiting

HEAD = pod("head", ready=True, age=30)
GPU = GpuRequest("nvidia.com/gpu", 4)
NO_GPU = "0/5 nodes are available: 2 Insufficient memory, 3 Insufficient nvidia.com/gpu."
NO_CPU = "0/5 nodes are available: 5 Insufficient cpu."
TRACEBACK = "Traceback (most recent call last):\n  File x\nRuntimeError: no kernel image\n\n"

CASES: dict[str, tuple[UnitView, str, str]] = {
    "quota": (
        unit(head=HEAD, sets=replica_set(1, failure='pods "x" is forbidden: exceeded quota')),
        "PodsRefused",
        'the API server refuses worker pods: pods "x" is forbidden: exceeded quota',
    ),
    "no GPU": (
        unit(pod("w", node=False, unschedulable=NO_GPU), pod("v", node=False, unschedulable=NO_GPU), head=HEAD),
        "InsufficientGPU",
        f"2 of 2 replicas wait for a node with 4 free nvidia.com/gpu; {NO_GPU}",
    ),
    "no GPU for one, the other loads": (
        unit(pod("w"), pod("v", node=False, unschedulable=NO_GPU), head=HEAD, replicas={"w": says("loading")}),
        "InsufficientGPU",
        f"1 of 2 replicas wait for a node with 4 free nvidia.com/gpu; {NO_GPU}",
    ),
    "no cpu": (
        unit(pod("w", node=False, unschedulable=NO_CPU), head=HEAD),
        "Unschedulable",
        f"1 of 1 replicas have no node; {NO_CPU}",
    ),
    "a node for the worker, none for the head": (
        unit(pod("w"), head=pod("h", node=False, unschedulable=NO_CPU)),
        "Unschedulable",
        f"the Ray head has no node; {NO_CPU}",
    ),
    "image of the worker": (
        unit(pod("w", container=waiting("ImagePullBackOff", 'Back-off pulling image "x:1"')), head=HEAD),
        "ImagePullFailed",
        'pod w: Back-off pulling image "x:1"',
    ),
    "image of the head": (
        unit(pod("w"), head=pod("h", container=waiting("ErrImagePull"))),
        "ImagePullFailed",
        "pod h: ErrImagePull",
    ),
    "a Secret is missing": (
        unit(pod("w", container=waiting("CreateContainerConfigError", 'secret "tls" not found')), head=HEAD),
        "PodConfigInvalid",
        'pod w: secret "tls" not found',
    ),
    "a head that was killed once and is ready now": (
        unit(
            pod("w"),
            head=pod("h", ready=True, age=30, container=ended("OOMKilled", 137)),
            replicas={"w": says("loading", percent=40)},
        ),
        "ModelLoading",
        "w has loaded 40 % of the model",
    ),
    "a toleration is missing for a taint named as the GPU": (
        unit(pod("w", node=False, unschedulable="1 node(s) had untolerated taint {nvidia.com/gpu: }"), head=HEAD),
        "Unschedulable",
        "1 of 1 replicas have no node; 1 node(s) had untolerated taint {nvidia.com/gpu: }",
    ),
    "killed at its memory limit": (
        unit(pod("w", container=ended("OOMKilled", 137)), head=HEAD),
        "OutOfMemory",
        "pod w was killed at its memory limit; raise spec.resources.memory (or spec.head.resources.memory for a head)",
    ),
    "head killed at its memory limit": (
        unit(pod("w"), head=pod("h", container=ended("OOMKilled", 137))),
        "OutOfMemory",
        "pod h was killed at its memory limit; raise spec.resources.memory (or spec.head.resources.memory for a head)",
    ),
    "the replica found no weights": (
        unit(pod("w"), head=HEAD, replicas={"w": says("failed", message="/models: none", reason="ModelNotFound")}),
        "ModelNotFound",
        "/models: none",
    ),
    "the replica ran out of GPU memory": (
        unit(pod("w"), head=HEAD, replicas={"w": says("failed", message="need 16 GiB", reason="OutOfMemory")}),
        "OutOfMemory",
        "need 16 GiB",
    ),
    "the replica found no device": (
        unit(pod("w"), head=HEAD, replicas={"w": says("failed", message="no CUDA", reason="DeviceNotFound")}),
        "DeviceNotFound",
        "no CUDA",
    ),
    "the engine failed": (
        unit(pod("w"), head=HEAD, replicas={"w": says("failed", message="boom", reason="EngineFailed")}),
        "ReplicaCrashed",
        "boom",
    ),
    "the container crashes": (
        unit(pod("w", container=ended(message=TRACEBACK)), head=HEAD),
        "ReplicaCrashed",
        "pod w, container worker: RuntimeError: no kernel image",
    ),
    "the container crashes without a word": (
        unit(pod("w", container=ended(exit_code=139)), head=HEAD),
        "ReplicaCrashed",
        "pod w, container worker: exit code 139",
    ),
    "it crashed once and loads now": (
        unit(
            pod("w", container=ended(message=TRACEBACK) | {"state": {"running": {}}}),
            head=HEAD,
            replicas={"w": says("loading", percent=40)},
        ),
        "ModelLoading",
        "w has loaded 40 % of the model",
    ),
    "loading": (
        unit(pod("w"), head=HEAD, replicas={"w": says("loading", percent=7)}),
        "ModelLoading",
        "w has loaded 7 % of the model",
    ),
    "the head is silent for long": (
        unit(pod("w"), head=pod("h", ready=True, age=90), serve=ServeView(error="connection refused")),
        "RayUnavailable",
        "Ray Serve on h does not answer: connection refused",
    ),
    "the head has just started": (
        unit(pod("w"), head=pod("h", ready=True, age=50), serve=ServeView(error="connection refused")),
        "Starting",
        "waiting for replicas to start",
    ),
    "the head is not ready for long": (
        unit(pod("w"), head=pod("h", age=90)),
        "RayUnavailable",
        "the Ray head h is not ready since 2026-01-01T11:58:30+00:00",
    ),
    "the head is lost": (
        unit(pod("w")),
        "RayUnavailable",
        "unit demo-aaaaaa has lost its Ray head; its workers go on serving",
    ),
    "Serve cannot run it": (
        unit(pod("w"), head=HEAD, serve=serve("DEPLOY_FAILED", TRACEBACK)),
        "ReplicaCrashed",
        "RuntimeError: no kernel image",
    ),
    "nothing is there": (UnitView("demo-aaaaaa", "demo-aaaaaa"), "Starting", "waiting for the Ray head's pod"),
    "the head starts": (unit(pod("w"), head=pod("h")), "Starting", "waiting for the Ray head to start"),
    "a worker has not been looked at by the scheduler": (
        unit(pod("w"), pod("v", node=False), head=HEAD),
        "Starting",
        "waiting for worker pods to start",
    ),
    "replicas start": (unit(pod("w"), pod("v"), head=HEAD), "Starting", "waiting for replicas to start"),
}


@pytest.mark.parametrize("case", CASES)
def test_why_not_ready(case: str) -> None:
    seen, reason, message = CASES[case]
    assert why_not_ready(seen, max(1, len(seen.workers)), GPU, NOW) == Reason(reason, message)


def test_a_worker_that_is_not_made_yet() -> None:
    expected = Reason("Starting", "waiting for worker pods to be made")
    assert why_not_ready(unit(pod("w"), head=HEAD), 2, GPU, NOW) == expected


def test_a_ready_worker_is_nobodys_problem() -> None:
    ready = pod("w", ready=True, container=ended(message=TRACEBACK))
    assert why_not_ready(unit(ready, pod("v"), head=HEAD), 2, GPU, NOW).reason == "Starting"


def test_a_resource_of_another_name_is_told_by_its_name() -> None:
    stuck = pod("w", node=False, unschedulable="1 Insufficient amd.com/gpu")
    found = why_not_ready(unit(stuck, head=HEAD), 1, GpuRequest("amd.com/gpu", 1), NOW)
    assert found.message.startswith("1 of 1 replicas wait for a node with 1 free amd.com/gpu")


def test_a_pod_without_gpu_wants_none() -> None:
    stuck = pod("w", node=False, unschedulable=NO_GPU)
    assert why_not_ready(unit(stuck, head=HEAD), 1, GpuRequest(None, 0), NOW).reason == "Unschedulable"


def test_long_messages_of_others_are_cut() -> None:
    crashed = pod("w", container=ended(message="x" * 5000))
    message = why_not_ready(unit(crashed, head=HEAD), 1, GPU, NOW).message
    assert len(message) < 500
    assert message.endswith("…")


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("", ""),
        ("\n \n", ""),
        ("one", "one"),
        ("one\ntwo\n\n  \n", "two"),
        ("one\n  two  ", "two"),
        ("Traceback:\n  raise\nValueError: no\n[I] GCS received SIGTERM\n", "ValueError: no"),
        ("ray.exceptions.RayActorError: gone\nINFO routes registered", "ray.exceptions.RayActorError: gone"),
        ("no Error at its beginning\nlast", "last"),
    ],
)
def test_last_error(text: str, line: str) -> None:
    assert last_error(text) == line
