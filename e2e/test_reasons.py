"""What is wrong is told by a reason and a sentence, and a mend outside or inside the spec is enough to recover."""

from __future__ import annotations

import copy

import pytest

from e2e.service import Service, record


@pytest.mark.parametrize("mend_all", [False, pytest.param(True, marks=pytest.mark.long)])
def test_a_bad_image_a_missing_model_and_too_few_gpus(service: Service, mend_all: bool) -> None:
    """Three resources at once: each tells its own reason, then each is mended, or the image alone is."""
    spec = service.spec
    bad_image, no_model, no_gpus = (copy.deepcopy(spec) for _ in range(3))
    bad_image["model"]["source"]["image"]["reference"] = "aixcoder/model-late:1"
    no_model["model"]["source"]["image"]["path"] = "no/such/folder"
    no_gpus["engine"]["tensorParallelSize"] = 8
    with service.deployments("bad-image", "no-model", "no-gpus") as (image, model, gpus):
        image.apply(bad_image)
        model.apply(no_model)
        gpus.apply(no_gpus)

        told = image.wait_reason("Ready", "ImagePullFailed")
        assert "model-late:1" in told["message"]
        told = gpus.wait_reason("Ready", "InsufficientGPU")
        assert "8 free nvidia.com/gpu" in told["message"]
        told = model.wait_reason("Ready", "ModelNotFound")
        assert "/models/no/such/folder" in told["message"]
        assert {found.condition("Ready")["status"] for found in (image, model, gpus)} == {"False"}

        service.load_model_image("aixcoder/model-late:1")
        if mend_all:
            model.patch({"spec": {"model": {"source": {"image": {"path": None}}}}})
            gpus.patch({"spec": {"engine": {"tensorParallelSize": 1}}})
        mended = (image, model, gpus) if mend_all else (image,)
        record("mended", None, **{f"{found.name}_s": found.wait_ready() for found in mended})


def test_a_claim_that_does_not_exist_is_told_and_the_resource_recovers_when_it_is_made(service: Service) -> None:
    spec = copy.deepcopy(service.spec)
    spec["model"]["source"] = {"persistentVolumeClaim": {"claimName": "weights"}}
    with service.deployments("no-claim") as (deployment,):
        deployment.apply(spec)
        told = deployment.wait_reason("Valid", "ClaimNotFound")
        assert told["status"] == "False"
        assert "weights" in told["message"]
        with service.model_claim("weights"):
            deployment.wait_ready()
            assert deployment.condition("Valid")["status"] == "True"
            deployment.delete()
