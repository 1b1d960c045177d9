"""`spec.worker`: what a platform team must add to the worker pods; no free patch of the pod."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from aixcoder_operator.api.base import Kube, OpenPart, Part, rule, ruled
from aixcoder_operator.api.scheduling import LABEL_RULES, LabelValue
from aixcoder_operator.api.values import ObjectName, RelativePath

RESERVED_PATHS = ("/models", "/tmp", "/dev", "/proc", "/sys", "/opt/aixcoder")  # noqa: S108 (names, not files of ours)
"""Mount paths of the worker pod that belong to the operator, with everything beneath them."""

RESERVED_LABEL_DOMAINS = ("serving.aixcoder.io/", "app.kubernetes.io/")
RESERVED_ENV = ("HOME", "PATH", "PYTHONPATH")
RESERVED_VOLUME_PREFIX = "aixcoder-"


def _starts_with_any(prefixes: tuple[str, ...]) -> str:
    return " || ".join(f"key.startsWith('{prefix}')" for prefix in prefixes)


_NOT_OURS = rule(
    f"self.all(key, !({_starts_with_any(RESERVED_LABEL_DOMAINS)}))",
    "choose other keys: serving.aixcoder.io/ and app.kubernetes.io/ are the operator's, it finds its pods by them",
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
                    f"!self.startsWith('RAY_') && !self.startsWith('AIXCODER_') && !(self in {list(RESERVED_ENV)})",
                    "choose another name: RAY_…, AIXCODER_…, HOME, PATH and PYTHONPATH are set by the operator",
                ),
            )
        ),
    ] = Field(description="Name of the variable. RAY_…, AIXCODER_…, HOME, PATH and PYTHONPATH are the operator's.")
    value: Annotated[str, Field(max_length=32768)] | None = Field(
        default=None, description="Its value. Not for secrets: use valueFrom.secretKeyRef."
    )
    value_from: dict[str, Any] | None = Field(
        default=None,
        description=(
            "Where the value comes from: secretKeyRef, configMapKeyRef, fieldRef or resourceFieldRef, as in a pod."
        ),
    )


class Volume(OpenPart):
    """One further volume of the worker pod, as in a pod: a name and one source."""

    name: Annotated[VolumeName, Kube(rules=(_VOLUME_FREE,))] = Field(
        description="Name that volumeMounts refer to. Names that begin with aixcoder- are the operator's."
    )


class VolumeMount(Part):
    """Where a volume of worker.volumes is mounted in the worker container."""

    name: VolumeName = Field(description="Name of an entry of worker.volumes.")
    mount_path: Annotated[
        str,
        Field(min_length=1, max_length=512),
        Kube(
            rules=(
                rule(
                    "self.startsWith('/') && self.split('/').all(part, part != '..')",
                    "write an absolute path without '..'",
                ),
                rule(
                    "!(self in ['/', '/opt', '/opt/'])"
                    f" && {list(RESERVED_PATHS)}.all(own, self != own && !self.startsWith(own + '/'))",
                    "mount elsewhere, as under /mnt: /models, /tmp, /dev, /proc, /sys and /opt/aixcoder are the "
                    "operator's",
                ),
            )
        ),
    ] = Field(
        description="Absolute path in the container; not at or beneath /models, /tmp, /dev, /proc, /sys, /opt/aixcoder."
    )
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
            "Further labels of the worker pods, as a cost centre. serving.aixcoder.io/ and app.kubernetes.io/ are "
            "the operator's."
        ),
    )
    annotations: Annotated[
        dict[str, Annotated[str, Field(max_length=16384)]],
        Field(max_length=32),
        Kube(rules=(LABEL_RULES[0], _NOT_OURS)),
    ] = Field(
        default={},
        description="Further annotations of the worker pods. The same keys are the operator's as for labels.",
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
