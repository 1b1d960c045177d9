"""The head of a unit: Ray's GCS on RocksDB, Serve's controller and its REST interface. No request passes through it."""

from __future__ import annotations

from aixcoder_operator.api.defaults import effective
from aixcoder_operator.api.deployment import AixcoderDeployment
from aixcoder_operator.api.objects import Object
from aixcoder_operator.plan import names, pod
from aixcoder_operator.plan.platform import Platform
from aixcoder_operator.plan.revision import Revision

_STORE_VOLUME = "aixcoder-gcs"
_STORE_FOLDER = "/var/lib/ray"
_STORE_SIZE = "1Gi"
_LOST_NODE_SECONDS = 30
"""A head on a lost node is replaced after this long, by a new incarnation; the default would be 300 s."""


def head_template(deployment: AixcoderDeployment, platform: Platform) -> Object:
    """Pod template of the head. Its labels are added when it is used (`head_objects`)."""
    wish = effective(deployment.spec)
    container: Object = {
        "name": "head",
        "command": ["ray", "start"],
        "args": [
            "--head",
            "--num-cpus=0",
            "--num-gpus=0",
            "--no-monitor",
            f"--port={pod.GCS_PORT}",
            f"--dashboard-port={pod.SERVE_PORT}",
            "--dashboard-host=0.0.0.0",
            "--node-ip-address=$(POD_IP)",
            f"--object-store-memory={pod.OBJECT_STORE_BYTES}",
            "--disable-usage-stats",
            "--block",
        ],
        "env": [
            *pod.ray_env(),
            {"name": "RAY_gcs_storage", "value": "rocksdb"},
            {"name": "RAY_gcs_storage_path", "value": f"{_STORE_FOLDER}/gcs"},
        ],
        "ports": [
            {"name": "gcs", "containerPort": pod.GCS_PORT},
            {"name": "serve", "containerPort": pod.SERVE_PORT},
        ],
        "readinessProbe": {"tcpSocket": {"port": "serve"}, "periodSeconds": 1, "failureThreshold": 3},
        "resources": pod.resources(wish.head_cpu, wish.head_memory),
        "volumeMounts": [{"name": _STORE_VOLUME, "mountPath": _STORE_FOLDER}],
    }
    storage_class = deployment.spec.head.storage_class_name
    volumes: list[Object] = [] if storage_class else [{"name": _STORE_VOLUME, "emptyDir": {}}]
    pull_secrets = [secret.model_dump(mode="json") for secret in deployment.spec.worker.image_pull_secrets]
    spec = pod.pod_spec(deployment.metadata.name, platform, container, volumes, pull_secrets)
    spec["restartPolicy"] = "Always"
    if deployment.spec.scheduling.priority_class_name is not None:
        spec["priorityClassName"] = deployment.spec.scheduling.priority_class_name
    spec["tolerations"] = [
        {
            "key": f"node.kubernetes.io/{taint}",
            "operator": "Exists",
            "effect": "NoExecute",
            "tolerationSeconds": _LOST_NODE_SECONDS,
        }
        for taint in ("not-ready", "unreachable")
    ]
    return {"spec": spec}


def head_objects(deployment: str, revision: Revision, unit: str, metadata: Object) -> list[Object]:
    """The Service in front of a unit's head, and the head itself.

    A bare Pod, where no storage class is named: no controller may bring it back at the old address with an empty store,
    since that would end every worker. With storage, a StatefulSet of one, whose pod always comes back to its store.
    """
    labels = names.unit_labels(deployment, revision.name, unit, names.HEAD)
    selector = {names.UNIT_LABEL: unit, names.COMPONENT_LABEL: names.HEAD}
    named = metadata | {"name": names.head_name(unit), "labels": labels}
    service: Object = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": named,
        "spec": {
            "clusterIP": "None",
            "publishNotReadyAddresses": True,
            "selector": selector,
            "ports": [
                {"name": "gcs", "port": pod.GCS_PORT, "protocol": "TCP"},
                {"name": "serve", "port": pod.SERVE_PORT, "protocol": "TCP"},
            ],
        },
    }
    template = revision.templates.head
    if revision.templates.storage_class is None:
        return [service, {"apiVersion": "v1", "kind": "Pod", "metadata": named, "spec": template["spec"]}]
    stateful_set: Object = {
        "apiVersion": "apps/v1",
        "kind": "StatefulSet",
        "metadata": named,
        "spec": {
            "replicas": 1,
            "serviceName": names.head_name(unit),
            "podManagementPolicy": "Parallel",
            "selector": {"matchLabels": selector},
            "template": {"metadata": {"labels": labels}, "spec": template["spec"]},
            "persistentVolumeClaimRetentionPolicy": {"whenDeleted": "Delete", "whenScaled": "Retain"},
            "volumeClaimTemplates": [
                {
                    "apiVersion": "v1",
                    "kind": "PersistentVolumeClaim",
                    "metadata": {"name": _STORE_VOLUME},
                    "spec": {
                        "accessModes": ["ReadWriteOnce"],
                        "storageClassName": revision.templates.storage_class,
                        "resources": {"requests": {"storage": _STORE_SIZE}},
                    },
                }
            ],
        },
    }
    return [service, stateful_set]
