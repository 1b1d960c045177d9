"""What head and worker pods share: the rules of Pod Security `restricted`, writable folders, Ray's settings."""

from __future__ import annotations

from aixcoder_operator.api.objects import Object
from aixcoder_operator.plan import names
from aixcoder_operator.plan.platform import Platform

USER_ID = 1000
TOKEN_FOLDER = "/var/run/aixcoder/tokens"  # noqa: S105  a path, no secret
GCS_PORT = 6379
SERVE_PORT = 8265
OBJECT_STORE_BYTES = 100_000_000
"""The object store carries nothing of ours; this is near the least Ray starts with."""
RECONNECT_SECONDS = 3600
"""How long workers go on serving without any head; past it Ray ends them."""

SECURITY: Object = {
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "readOnlyRootFilesystem": True,
}


def ray_env() -> list[Object]:
    """Variables of every Ray process. The token itself is in a file: variables show in listings."""
    return [
        {"name": "AIXCODER_UNIT", "valueFrom": {"fieldRef": {"fieldPath": f"metadata.labels['{names.UNIT_LABEL}']"}}},
        {"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
        {"name": "HOME", "value": "/tmp"},  # noqa: S108  an emptyDir of the pod's own
        {"name": "PYTHONUNBUFFERED", "value": "1"},
        {"name": "RAY_AUTH_MODE", "value": "token"},
        {"name": "RAY_AUTH_TOKEN_PATH", "value": f"{TOKEN_FOLDER}/ray"},
        {"name": "RAY_USAGE_STATS_ENABLED", "value": "0"},
        {"name": "RAY_gcs_rpc_server_reconnect_timeout_s", "value": str(RECONNECT_SECONDS)},
        # Ray starts its workers at niceness 15, which makes a start beside other work several times as long.
        {"name": "RAY_worker_niceness", "value": "0"},
        # Ray gives a deployment up for good after this many failed starts; the deadline is ours (spec.rollout).
        {"name": "RAY_SERVE_MAX_PER_REPLICA_RETRY_COUNT", "value": "1000000"},
    ]


def resources(cpu: str, memory: str, extended: dict[str, str] | None = None) -> Object:
    """Memory and extended resources are limits too; cpu is only a request, so that idle cores may be used."""
    bounded = {"memory": memory} | (extended or {})
    return {"requests": {"cpu": cpu} | bounded, "limits": bounded}


def pod_spec(
    deployment: str, platform: Platform, container: Object, volumes: list[Object], pull_secrets: list[Object]
) -> Object:
    """A pod spec around one Ray container, with the platform's additions."""
    mounts = [
        {"name": "aixcoder-tmp", "mountPath": "/tmp"},  # noqa: S108
        {"name": "aixcoder-shm", "mountPath": "/dev/shm"},  # noqa: S108
        {"name": "aixcoder-tokens", "mountPath": TOKEN_FOLDER, "readOnly": True},
        *platform.volume_mounts,
    ]
    filled = container | {
        "image": platform.serving_image,
        "imagePullPolicy": "IfNotPresent",
        "securityContext": SECURITY,
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "env": _unique([*container["env"], *platform.env]),
        "volumeMounts": [*mounts, *container["volumeMounts"]],
    }
    secrets = _unique([*platform.image_pull_secrets, *pull_secrets])
    return {
        "containers": [filled],
        "volumes": [
            {"name": "aixcoder-tmp", "emptyDir": {}},
            {"name": "aixcoder-shm", "emptyDir": {"medium": "Memory", "sizeLimit": "256Mi"}},
            {
                "name": "aixcoder-tokens",
                "secret": {"secretName": names.secret_name(deployment), "defaultMode": 0o440},
            },
            *platform.volumes,
            *volumes,
        ],
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": USER_ID,
            "runAsGroup": USER_ID,
            "fsGroup": USER_ID,
            "fsGroupChangePolicy": "OnRootMismatch",
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        **({"imagePullSecrets": secrets} if secrets else {}),
    }


def _unique(parts: list[Object]) -> list[Object]:
    """Each name once, the last one's value: the API server refuses to apply a list with two entries of a name."""
    return list({part["name"]: part for part in parts}.values())
