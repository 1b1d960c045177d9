"""What Ray Serve is told of the application."""

from typing import Any

import pytest
from pydantic import ValidationError

pytestmark = pytest.mark.filterwarnings("ignore::pydantic.warnings.PydanticDeprecatedSince20")


def _deployment(**settings: Any) -> Any:
    from aixcoder_serving.replica.application import build  # Ray warns while it is imported

    return build({"model_path": "/models/x", **settings})._bound_deployment


@pytest.mark.parametrize(
    ("settings", "options"),
    [
        ({"device": "cpu"}, {"num_cpus": 0, "resources": {"replica": 1}}),
        ({"device": "cuda"}, {"num_cpus": 0, "num_gpus": 1, "resources": {"replica": 1}}),
        (
            {"device": "cuda", "tensor_parallel_size": 4},
            {"num_cpus": 0, "num_gpus": 4, "resources": {"replica": 1}},
        ),
    ],
)
def test_what_a_replica_holds(settings: dict[str, Any], options: dict[str, Any]) -> None:
    assert _deployment(**settings).ray_actor_options == options


def test_it_is_named_and_patient() -> None:
    deployment = _deployment(shutdown_grace_seconds=33)
    config = deployment._deployment_config
    assert deployment.name == "Replica"
    assert config.graceful_shutdown_timeout_s > 33
    assert config.max_constructor_retry_count >= 1_000_000


@pytest.mark.parametrize("settings", [{"device": "tpu"}, {"surprise": 1}, {"tensor_parallel_size": 3}])
def test_settings_are_checked(settings: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        _deployment(**settings)
