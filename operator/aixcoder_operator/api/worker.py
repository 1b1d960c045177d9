"""`spec.worker`: what a platform team must add to the worker pods; no free patch of the pod."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Annotated, Any

from pydantic import Field

from aixcoder_operator.api.base import Kube, Part, rule, ruled
from aixcoder_operator.api.scheduling import LABEL_RULES, LabelValue
from aixcoder_operator.api.values import ObjectName, RelativePath

RESERVED_PATHS = (
    "/models",
    "/tmp",  # noqa: S108  a name, no file of ours
    "/dev",
    "/proc",
    "/sys",
    "/opt/aixcoder",
    "/var/run/aixcoder",
    "/run/aixcoder",
)
"""Mount paths of the worker pod that belong to the operator, with everything beneath them."""

RESERVED_DOMAINS = ("serving.aixcoder.io/", "app.kubernetes.io/", "controller.kubernetes.io/")
RESERVED_ENV_PREFIXES = ("RAY_", "AIXCODER_")
RESERVED_ENV = ("HOME", "PATH", "POD_IP", "PYTHONPATH", "PYTHONUNBUFFERED")
RESERVED_VOLUME_PREFIX = "aixcoder-"

_Free = dict[str, Any]


def _starts_with_any(value: str, prefixes: tuple[str, ...]) -> str:
    return "(" + " || ".join(f"{value}.startsWith('{prefix}')" for prefix in prefixes) + ")"


def _and(words: tuple[str, ...]) -> str:
    return ", ".join(words[:-1]) + " and " + words[-1]


def _one_of(fields: tuple[str, ...]) -> str:
    return f"[{', '.join(f'has(self.{field})' for field in fields)}].filter(given, given).size() == 1"


_NOT_OURS = rule(
    f"self.all(key, !{_starts_with_any('key', RESERVED_DOMAINS)})",
    f"choose other keys: {_and(RESERVED_DOMAINS)} are the operator's and Kubernetes' own",
)
_VOLUME_NAME = rule(
    "!format.dns1123Label().validate(self).hasValue()",
    "write a volume name of at most 63 lower-case letters, digits and '-', a letter or digit at both ends",
)
_VOLUME_FREE = rule(
    f"!self.startsWith('{RESERVED_VOLUME_PREFIX}')",
    "choose another name: volumes that begin with aixcoder- are the operator's",
)
VolumeName = Annotated[str, Field(min_length=1, max_length=63), Kube(rules=(_VOLUME_NAME,))]


class EnvSource(Part):
    """Where the value of a variable comes from; as in a pod."""

    model_config = ruled(
        rule(
            _one_of(("secretKeyRef", "configMapKeyRef", "fieldRef", "resourceFieldRef")),
            "give exactly one of secretKeyRef, configMapKeyRef, fieldRef and resourceFieldRef",
        )
    )

    secret_key_ref: _Free | None = Field(
        default=None, description="A key of a Secret of this namespace: name, key, optional."
    )
    config_map_key_ref: _Free | None = Field(
        default=None, description="A key of a ConfigMap of this namespace: name, key, optional."
    )
    field_ref: _Free | None = Field(default=None, description="A field of the pod: fieldPath, as spec.nodeName.")
    resource_field_ref: _Free | None = Field(
        default=None, description="A request or limit of the container: resource, divisor."
    )


class EnvVar(Part):
    """One environment variable of the worker container; as in a pod."""

    model_config = ruled(
        rule(
            "!(has(self.value) && has(self.valueFrom))",
            "give value or valueFrom, not both",
        )
    )

    name: Annotated[
        str,
        Field(min_length=1, max_length=253),
        Kube(
            rules=(
                rule(
                    "self.matches('^[A-Za-z_][A-Za-z0-9_]*$')",
                    "write a variable name of letters, digits and '_' that does not begin with a digit",
                ),
                rule(
                    f"!{_starts_with_any('self', RESERVED_ENV_PREFIXES)} && !(self in {list(RESERVED_ENV)})",
                    f"choose another name: RAY_…, AIXCODER_…, {_and(RESERVED_ENV)} are set by the operator",
                ),
            )
        ),
    ] = Field(description=f"Name of the variable. RAY_…, AIXCODER_…, {_and(RESERVED_ENV)} are the operator's.")
    value: Annotated[str, Field(max_length=32768)] | None = Field(
        default=None, description="Its value. Not for secrets: use valueFrom.secretKeyRef."
    )
    value_from: EnvSource | None = Field(default=None, description="Where its value comes from, instead of value.")


_SOURCES = (
    "configMap",
    "secret",
    "projected",
    "downwardAPI",
    "emptyDir",
    "persistentVolumeClaim",
    "ephemeral",
    "csi",
    "nfs",
    "image",
    "hostPath",
)


class Volume(Part):
    """One further volume of the worker pod, as in a pod: a name and one source."""

    model_config = ruled(rule(_one_of(_SOURCES), f"give the volume exactly one source: {', '.join(_SOURCES)}"))

    name: Annotated[VolumeName, Kube(rules=(_VOLUME_FREE,))] = Field(
        description="Name that volumeMounts refer to. Names that begin with aixcoder- are the operator's."
    )
    config_map: _Free | None = Field(
        default=None, description="Files of a ConfigMap of this namespace: name, items, optional."
    )
    secret: _Free | None = Field(
        default=None, description="Files of a Secret of this namespace: secretName, items, optional."
    )
    projected: _Free | None = Field(default=None, description="Several of these in one folder: sources, defaultMode.")
    downward_api: _Free | None = Field(
        default=None, alias="downwardAPI", description="Fields of the pod as files: items, defaultMode."
    )
    empty_dir: _Free | None = Field(
        default=None,
        description="An empty folder that goes with the pod: sizeLimit, medium. {} where nothing is to be said.",
    )
    persistent_volume_claim: _Free | None = Field(
        default=None, description="A PersistentVolumeClaim of this namespace: claimName, readOnly."
    )
    ephemeral: _Free | None = Field(
        default=None, description="A claim made for each pod and gone with it: volumeClaimTemplate."
    )
    csi: _Free | None = Field(
        default=None, description="A volume of a CSI driver that lives with the pod: driver, volumeAttributes."
    )
    nfs: _Free | None = Field(default=None, description="A folder of an NFS server: server, path, readOnly.")
    image: _Free | None = Field(default=None, description="Files of an OCI image: reference, pullPolicy.")
    host_path: _Free | None = Field(
        default=None, description="A folder of the node: path, type. Pod Security baseline and restricted forbid it."
    )


_ABOVE_RESERVED = sorted({str(above) for path in RESERVED_PATHS for above in PurePosixPath(path).parents})


class VolumeMount(Part):
    """Where a volume of worker.volumes is mounted in the worker container."""

    name: VolumeName = Field(description="Name of an entry of worker.volumes.")
    mount_path: Annotated[
        str,
        Field(min_length=1, max_length=512),
        Kube(
            rules=(
                rule(
                    "self.matches('^(/[^/]+)+$') && self.split('/').all(part, part != '..' && part != '.')",
                    "write an absolute path as /mnt/certificates, without '.', '..', '//' and a '/' at the end",
                ),
                rule(
                    f"!(self in {list(_ABOVE_RESERVED)})"
                    f" && {list(RESERVED_PATHS)}.all(own, self != own && !self.startsWith(own + '/'))",
                    f"mount elsewhere, as under /mnt: {_and(RESERVED_PATHS)} are the operator's",
                ),
            )
        ),
    ] = Field(description=f"Absolute path in the container; not at, above or beneath {_and(RESERVED_PATHS)}.")
    sub_path: RelativePath | None = Field(
        default=None, description="Folder or file of the volume that is mounted. Absent: all of it."
    )
    read_only: bool | None = Field(default=None, description="true: the container cannot write to it.")


class ImagePullSecret(Part):
    """A Secret with which the node pulls images."""

    name: ObjectName = Field(description="Name of a Secret of type kubernetes.io/dockerconfigjson in this namespace.")


class Worker(Part):
    """What is added to the worker pods. Pod Security of the namespace still holds for all of it."""

    model_config = ruled(
        rule(
            "!has(self.volumeMounts) || self.volumeMounts.all(mount, "
            "has(self.volumes) && self.volumes.exists(volume, volume.name == mount.name))",
            "each of volumeMounts names an entry of worker.volumes: add the volume or mend the name",
            ".volumeMounts",
        )
    )

    labels: Annotated[dict[str, LabelValue], Field(max_length=32), Kube(rules=(*LABEL_RULES, _NOT_OURS))] = Field(
        default={},
        description=(
            f"Further labels of the worker pods, as a cost centre. Keys under {_and(RESERVED_DOMAINS)} are the "
            "operator's."
        ),
    )
    annotations: Annotated[
        dict[str, Annotated[str, Field(max_length=16384)]],
        Field(max_length=32),
        Kube(rules=(LABEL_RULES[0], _NOT_OURS)),
    ] = Field(
        default={},
        description=f"Further annotations of the worker pods. Keys under {_and(RESERVED_DOMAINS)} are the operator's.",
    )
    env: Annotated[tuple[EnvVar, ...], Field(max_length=64), Kube(map_keys=("name",))] = Field(
        default=(), description="Further environment variables of the worker container, as a proxy's address."
    )
    volumes: Annotated[tuple[Volume, ...], Field(max_length=32), Kube(map_keys=("name",))] = Field(
        default=(), description="Further volumes of the worker pods, as a company's CA certificates."
    )
    volume_mounts: Annotated[tuple[VolumeMount, ...], Field(max_length=32), Kube(map_keys=("mountPath",))] = Field(
        default=(), description="Where those volumes are mounted in the worker container."
    )
    image_pull_secrets: Annotated[tuple[ImagePullSecret, ...], Field(max_length=16), Kube(map_keys=("name",))] = Field(
        default=(), description="Secrets by which head and worker pods pull the serving image and an image of weights."
    )
