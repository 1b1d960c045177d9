from dataclasses import replace
from typing import Any

import pytest

from aixcoder_operator.api.defaults import Effective, effective
from aixcoder_operator.api.deployment import DeploymentSpec

SOURCE = {"source": {"image": {"reference": "m:1"}}}


def _effective(**spec: Any) -> Effective:
    return effective(DeploymentSpec.model_validate({"model": SOURCE} | spec))


def test_of_a_spec_that_says_least() -> None:
    assert _effective(resources={"gpu": {}}) == Effective(
        variant="aixcoder-7b",
        device="cuda",
        dtype="bfloat16",
        tensor_parallel_size=1,
        max_model_length=32768,
        max_concurrent_sequences=64,
        replicas=1,
        autoscaled=False,
        keep_head=True,
        worker_cpu="4",
        worker_memory="24Gi",
        gpu_resource="nvidia.com/gpu",
        head_cpu="500m",
        head_memory="2Gi",
        progress_deadline_seconds=600,
        scheduling_deadline_seconds=600,
        revision_history_limit=10,
        suspended=False,
    )


def test_of_a_spec_that_says_all() -> None:
    assert _effective(
        model=SOURCE | {"variant": "aixcoder-7b-base"},
        engine={
            "device": "cpu",
            "dtype": "float32",
            "tensorParallelSize": 2,
            "maxModelLength": 64,
            "maxConcurrentSequences": 2,
        },
        replicas=0,
        resources={"cpu": "1", "memory": "2Gi", "gpu": {"resourceName": "amd.com/gpu"}},
        head={"resources": {"cpu": "100m", "memory": "1Gi"}},
        rollout={"progressDeadlineSeconds": 1, "schedulingDeadlineSeconds": 2, "revisionHistoryLimit": 0},
        suspend=True,
    ) == Effective(
        variant="aixcoder-7b-base",
        device="cpu",
        dtype="float32",
        tensor_parallel_size=2,
        max_model_length=64,
        max_concurrent_sequences=2,
        replicas=0,
        autoscaled=False,
        keep_head=True,
        worker_cpu="1",
        worker_memory="2Gi",
        gpu_resource="amd.com/gpu",
        head_cpu="100m",
        head_memory="1Gi",
        progress_deadline_seconds=1,
        scheduling_deadline_seconds=2,
        revision_history_limit=0,
        suspended=True,
    )


@pytest.mark.parametrize(
    ("autoscaling", "replicas", "keep_head"),
    [
        ({"maxReplicas": 5}, 1, False),
        ({"minReplicas": 0, "maxReplicas": 5}, 1, False),
        ({"minReplicas": 3, "maxReplicas": 5, "keepHead": False}, 3, False),
        ({"minReplicas": 0, "maxReplicas": 5, "keepHead": True}, 1, True),
    ],
)
def test_what_an_autoscaled_one_begins_with(autoscaling: dict[str, Any], replicas: int, keep_head: bool) -> None:
    found = _effective(autoscaling=autoscaling)
    assert (found.autoscaled, found.replicas, found.keep_head) == (True, replicas, keep_head)


@pytest.mark.parametrize(
    ("spec", "away"),
    [
        ({"replicas": 1}, False),
        ({"replicas": 0}, False),
        ({"replicas": 1, "suspend": True}, True),
        ({"autoscaling": {"maxReplicas": 1}}, False),
    ],
)
def test_who_is_away(spec: dict[str, Any], away: bool) -> None:
    assert _effective(**spec).is_away is away


@pytest.mark.parametrize(("keep_head", "away"), [(None, True), (False, True), (True, False)])
def test_a_head_at_zero(keep_head: bool | None, away: bool) -> None:
    assert replace(_effective(autoscaling={"maxReplicas": 1, "keepHead": keep_head}), replicas=0).is_away is away


@pytest.mark.parametrize(
    ("ranks", "device", "dtype", "cpu", "memory"),
    [
        (1, "cuda", "bfloat16", "4", "24Gi"),
        (2, "cuda", "bfloat16", "6", "32Gi"),
        (4, "cuda", "bfloat16", "10", "48Gi"),
        (8, "cuda", "bfloat16", "18", "80Gi"),
        (1, "cuda", "float32", "4", "24Gi"),
        (1, "cpu", "bfloat16", "4", "24Gi"),
        (1, "cpu", "float32", "4", "48Gi"),
        (2, "cpu", "float32", "6", "64Gi"),
    ],
)
def test_of_worker_resources(ranks: int, device: str, dtype: str, cpu: str, memory: str) -> None:
    found = _effective(engine={"device": device, "dtype": dtype, "tensorParallelSize": ranks})
    assert (found.worker_cpu, found.worker_memory) == (cpu, memory)


@pytest.mark.parametrize(("resources", "ranks", "gpus"), [({}, 4, 0), ({"gpu": {}}, 1, 1), ({"gpu": {}}, 4, 4)])
def test_gpus_of_a_pod(resources: dict[str, Any], ranks: int, gpus: int) -> None:
    assert _effective(resources=resources, engine={"tensorParallelSize": ranks}).gpus_per_pod == gpus
