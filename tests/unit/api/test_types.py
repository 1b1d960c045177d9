from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from pydantic import ValidationError

from aixcoder_operator.api.deployment import AixcoderDeployment, UnreadableResourceError, read
from aixcoder_operator.api.status import MAX_MESSAGE, MAX_REASON, Condition, DeploymentStatus, ScalingDecision

STORED: dict[str, Any] = {
    "apiVersion": "serving.aixcoder.io/v1alpha1",
    "kind": "AixcoderDeployment",
    "metadata": {"name": "sample", "namespace": "team", "uid": "1-2", "generation": 3},
    "spec": {"model": {"source": {"image": {"reference": "m:1"}}}, "resources": {"cpu": 4, "gpu": {}}},
    "status": {"observedGeneration": -1},
}


def _with(path: str, value: Any) -> dict[str, Any]:
    made = dict(STORED)
    node = made
    *steps, last = path.split(".")
    for step in steps:
        node[step] = dict(node.get(step, {}))
        node = node[step]
    node[last] = value
    return made


def test_attributes_are_the_fields_in_snake_case() -> None:
    deployment = read(STORED)
    assert deployment.spec.model.source.image is not None
    assert deployment.spec.model.source.image.reference == "m:1"
    assert deployment.spec.model.source.persistent_volume_claim is None
    assert deployment.status.observed_generation == -1
    assert deployment.metadata.deletion_timestamp is None


def test_a_present_but_empty_gpu_block_is_not_an_absent_one() -> None:
    assert read(STORED).spec.resources.gpu is not None
    assert read(_with("spec.resources", {"cpu": 4})).spec.resources.gpu is None


@pytest.mark.parametrize(
    "path", ["spec.engine", "spec.scheduling", "spec.worker", "spec.head", "spec.completion", "spec.rollout"]
)
def test_an_empty_section_is_an_absent_one(path: str) -> None:
    assert read(_with(path, {})) == read(STORED)


def test_a_bare_number_is_the_same_quantity_as_its_text() -> None:
    assert read(STORED).spec.resources.cpu == "4"
    assert read(_with("spec.resources.cpu", "4")) == read(STORED)


@pytest.mark.parametrize(
    "path", ["spec.disruption", "spec.engine.backend", "status.rollout.analysis", "metadata.finalizers"]
)
def test_fields_of_a_newer_crd_are_passed_over(path: str) -> None:
    assert read(_with(path, {"new": 1})) == read(STORED)


def test_fields_of_a_newer_autoscaling_are_passed_over() -> None:
    assert read(_with("spec.autoscaling", {"maxReplicas": 3, "new": 1})) == read(
        _with("spec.autoscaling", {"maxReplicas": 3})
    )


def test_an_autoscaling_that_cannot_be_read_is_named_with_its_place() -> None:
    with pytest.raises(UnreadableResourceError, match=r"spec\.autoscaling\.maxReplicas: Field required"):
        read(_with("spec.autoscaling", {"new": 1}))


@pytest.mark.parametrize(("length", "kept"), [(MAX_REASON, MAX_REASON), (MAX_REASON + 1, MAX_REASON)])
def test_a_long_reason_is_cut_and_not_refused(length: int, kept: int) -> None:
    decision = ScalingDecision(time=datetime(2026, 1, 2, tzinfo=UTC), reason="x" * length)
    assert len(decision.reason) == kept


def test_the_source_of_a_volume_is_kept_as_it_is() -> None:
    volumes = [
        {"name": "v", "csi": {"driver": "x.example", "volumeAttributes": {"a": "b"}}},
        {"name": "w", "downwardAPI": {"items": []}},
    ]
    kept = read(_with("spec.worker.volumes", volumes)).spec.worker.volumes
    assert [one.model_dump(mode="json", by_alias=True, exclude_none=True) for one in kept] == volumes


def test_a_value_of_a_newer_crd_is_named_with_its_place() -> None:
    with pytest.raises(UnreadableResourceError, match=r"spec\.model\.variant: Input should be 'aixcoder-7b'"):
        read(_with("spec.model.variant", "aixcoder-70b"))


def test_nothing_can_be_changed_in_place() -> None:
    deployment = read(STORED)
    with pytest.raises(ValidationError, match="frozen"):
        deployment.spec.replicas = 2  # type: ignore[misc]


@pytest.mark.parametrize(
    ("annotations", "restart"),
    [({}, ""), ({"serving.aixcoder.io/restart": ""}, ""), ({"serving.aixcoder.io/restart": "monday"}, "monday")],
)
def test_restart_is_the_annotation(annotations: dict[str, str], restart: str) -> None:
    assert read(_with("metadata.annotations", annotations)).metadata.restart == restart


@pytest.mark.parametrize(
    "moment",
    [
        datetime(2026, 1, 2, 3, 4, 5, 678_000, tzinfo=UTC),
        datetime(2026, 1, 2, 5, 4, 5, tzinfo=timezone(timedelta(hours=2))),
        "2026-01-02T03:04:05Z",
        "2026-01-02T03:04:05.678901Z",
    ],
)
def test_a_moment_reads_back_as_it_was_written(moment: Any) -> None:
    condition = _condition(last_transition_time=moment)
    written = condition.model_dump(mode="json", by_alias=True, exclude_none=True)
    assert written["lastTransitionTime"] == "2026-01-02T03:04:05Z"
    assert Condition.model_validate(written) == condition


@pytest.mark.parametrize(("length", "kept"), [(MAX_MESSAGE, MAX_MESSAGE), (MAX_MESSAGE + 1, MAX_MESSAGE)])
def test_a_long_message_is_cut_and_not_refused(length: int, kept: int) -> None:
    message = _condition(message="x" * length).message
    assert len(message) == kept
    assert message.endswith("…") == (length > kept)


def test_a_condition_is_found_by_its_type() -> None:
    status = DeploymentStatus(conditions=(_condition(),))
    assert status.condition("Ready") == _condition()
    assert status.condition("Stalled") is None


def test_what_is_dumped_reads_back_equal() -> None:
    deployment = read(STORED)
    assert AixcoderDeployment.model_validate(deployment.model_dump(mode="json", by_alias=True)) == deployment


def _condition(**changes: Any) -> Condition:
    fields: dict[str, Any] = {
        "type": "Ready",
        "status": "True",
        "reason": "AsWished",
        "last_transition_time": datetime(2026, 1, 2, tzinfo=UTC),
    }
    return Condition(**(fields | changes))
