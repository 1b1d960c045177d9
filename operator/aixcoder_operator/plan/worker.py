"""The workers of a unit: one pod, one replica with its GPUs. A ReplicaSet keeps their number while no operator runs."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

from aixcoder_operator.api.defaults import effective
from aixcoder_operator.api.deployment import AixcoderDeployment
from aixcoder_operator.api.model import ModelSource
from aixcoder_operator.api.objects import Object
from aixcoder_operator.api.serve import Application
from aixcoder_operator.plan import names, pod
from aixcoder_operator.plan.platform import Platform
from aixcoder_operator.plan.revision import Revision
from aixcoder_serving.protocol import REPLICA_PORT, ReplicaSettings

IMPORT_PATH = "aixcoder_serving.replica.application:build"
MODEL_FOLDER = "/models"
SHUTDOWN_GRACE_SECONDS = 60
"""How long running completions may take to end when their replica goes."""
_RAY_EXIT_SECONDS = 30
_MODEL_VOLUME = "aixcoder-model"


def worker_template(deployment: AixcoderDeployment, platform: Platform) -> Object:
    """Pod template of a worker. The labels that name the unit are added when it is used (`worker_objects`)."""
    spec, wish = deployment.spec, effective(deployment.spec)
    gpus = {wish.gpu_resource: str(wish.gpus_per_pod)} if wish.gpu_resource else None
    container: Object = {
        "name": "worker",
        "command": ["ray", "start"],
        "args": [
            f"--address=$(AIXCODER_UNIT)-head:{pod.GCS_PORT}",
            "--node-ip-address=$(POD_IP)",
            "--num-cpus=1",
            f"--num-gpus={wish.gpus_per_pod if wish.device == 'cuda' else 0}",
            '--resources={"replica": 1}',
            f"--object-store-memory={pod.OBJECT_STORE_BYTES}",
            "--disable-usage-stats",
            "--block",
        ],
        "env": [
            *pod.ray_env(),
            {"name": "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S", "value": str(SHUTDOWN_GRACE_SECONDS)},
            # What the replica says is then in `kubectl logs`.
            {"name": "RAY_LOG_TO_STDERR", "value": "1"},
            # Tries, 2 s apart, to find the head in the GCS: head and workers start at once, and 20 tries were too few.
            {"name": "RAY_NUM_REDIS_GET_RETRIES", "value": "300"},
            *_dump(spec.worker.env),
        ],
        "ports": [{"name": "http", "containerPort": REPLICA_PORT}],
        "readinessProbe": {
            "httpGet": {"path": "/ready", "port": "http"},
            "periodSeconds": 1,
            "timeoutSeconds": 2,
            "failureThreshold": 2,
        },
        "resources": pod.resources(wish.worker_cpu, wish.worker_memory, gpus),
        "volumeMounts": [
            {"name": _MODEL_VOLUME, "mountPath": MODEL_FOLDER, "readOnly": True},
            *_dump(spec.worker.volume_mounts),
        ],
    }
    volumes = [_model_volume(spec.model.source), *_dump(spec.worker.volumes)]
    rendered = pod.pod_spec(
        deployment.metadata.name, platform, container, volumes, _dump(spec.worker.image_pull_secrets)
    )
    rendered["terminationGracePeriodSeconds"] = SHUTDOWN_GRACE_SECONDS + _RAY_EXIT_SECONDS
    rendered |= _scheduling(deployment)
    metadata = {"labels": dict(spec.worker.labels), "annotations": dict(spec.worker.annotations)}
    return {"metadata": {key: value for key, value in metadata.items() if value}, "spec": rendered}


def worker_objects(deployment: str, revision: Revision, unit: str, replicas: int, metadata: Object) -> list[Object]:
    """The headless Service whose EndpointSlices are the gateways' list of replicas, and the ReplicaSet."""
    labels = names.unit_labels(deployment, revision.name, unit, names.WORKER)
    selector = {names.UNIT_LABEL: unit, names.COMPONENT_LABEL: names.WORKER}
    named = metadata | {"name": unit, "labels": labels}
    template = revision.templates.worker
    stored = template.get("metadata", {})
    service: Object = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": named,
        "spec": {
            "clusterIP": "None",
            "selector": selector,
            "ports": [{"name": "http", "port": REPLICA_PORT, "protocol": "TCP"}],
        },
    }
    replica_set: Object = {
        "apiVersion": "apps/v1",
        "kind": "ReplicaSet",
        "metadata": named,
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": selector},
            "template": {
                "metadata": stored | {"labels": stored.get("labels", {}) | labels},
                "spec": _spread_over_the_unit(template["spec"], selector),
            },
        },
    }
    return [service, replica_set]


def application(deployment: AixcoderDeployment) -> Application:
    """The Ray Serve application of a revision, without its replica count."""
    wish = effective(deployment.spec)
    settings = ReplicaSettings(
        model_path=model_path(deployment.spec.model.source),
        device=wish.device,
        dtype=wish.dtype,
        tensor_parallel_size=wish.tensor_parallel_size,
        max_model_length=wish.max_model_length,
        max_concurrent_sequences=wish.max_concurrent_sequences,
        shutdown_grace_seconds=SHUTDOWN_GRACE_SECONDS,
        token_file=f"{pod.TOKEN_FOLDER}/replica",
    )
    return Application(name=names.APPLICATION, import_path=IMPORT_PATH, args=settings.model_dump(mode="json"))


def model_path(source: ModelSource) -> str:
    """The folder of the weights inside a worker pod."""
    chosen = source.persistent_volume_claim or source.image
    path = chosen.path if chosen else None
    return f"{MODEL_FOLDER}/{path}" if path else MODEL_FOLDER


def _model_volume(source: ModelSource) -> Object:
    if source.image is not None:
        return {"name": _MODEL_VOLUME, "image": {"reference": source.image.reference, "pullPolicy": "IfNotPresent"}}
    assert source.persistent_volume_claim is not None  # noqa: S101  the schema holds: exactly one source
    claim = source.persistent_volume_claim.claim_name
    return {"name": _MODEL_VOLUME, "persistentVolumeClaim": {"claimName": claim, "readOnly": True}}


def _scheduling(deployment: AixcoderDeployment) -> Object:
    dumped: Object = deployment.spec.scheduling.model_dump(mode="json", by_alias=True, exclude_none=True)
    return {key: value for key, value in dumped.items() if value}


def _spread_over_the_unit(spec: Object, selector: dict[str, str]) -> Object:
    """A spread constraint without a selector would count no pod at all: it counts this unit's workers."""
    constraints = spec.get("topologySpreadConstraints")
    if not constraints:
        return spec
    filled = [{"labelSelector": {"matchLabels": selector}} | constraint for constraint in constraints]
    return spec | {"topologySpreadConstraints": filled}


def _dump(parts: tuple[BaseModel, ...]) -> list[Any]:
    return [part.model_dump(mode="json", by_alias=True, exclude_none=True) for part in parts]
