"""`spec.model`: which weights are served, where they lie, and what clients call them."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from aixcoder_operator.api.base import Kube, Part, rule, ruled
from aixcoder_operator.api.values import ObjectName, RelativePath

Variant = Literal["aixcoder-7b", "aixcoder-7b-base"]

_REFERENCE = (
    r"^[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?(:[0-9]{1,5})?(/[a-z0-9]+([._-]+[a-z0-9]+)*)*"
    r"(:[A-Za-z0-9_][A-Za-z0-9_.-]{0,127})?(@sha256:[a-f0-9]{64})?$"
)


class PersistentVolumeClaimSource(Part):
    """Weights on a PersistentVolumeClaim of the same namespace, mounted read-only in every worker."""

    claim_name: ObjectName = Field(
        description=(
            "Name of a PersistentVolumeClaim in this namespace that holds the weights. With more than one worker it "
            "must be mountable on several nodes (ReadOnlyMany or ReadWriteMany)."
        )
    )
    path: RelativePath | None = Field(
        default=None,
        description="Folder inside the claim in which config.json lies, such as aixcoder-7b. Absent: the claim's root.",
    )


class ImageSource(Part):
    """Weights in an OCI image, mounted read-only as an image volume; nothing in it is run."""

    reference: Annotated[
        str,
        Field(min_length=1, max_length=512),
        Kube(
            rules=(
                rule(
                    f"self.matches(r'{_REFERENCE}')",
                    "write an image reference like registry.example/team/aixcoder-7b:1 or …@sha256: and 64 "
                    "hexadecimal digits",
                ),
            )
        ),
    ] = Field(
        description=(
            "Image that holds the weights, as registry.example/team/aixcoder-7b@sha256:…. A digest is preferred: a "
            "tag that is pushed again gives old and new pods different weights."
        )
    )
    path: RelativePath | None = Field(
        default=None, description="Folder inside the image in which config.json lies. Absent: the image's root."
    )


class ModelSource(Part):
    """Where the weights lie: exactly one of the fields is given."""

    model_config = ruled(
        rule(
            "has(self.persistentVolumeClaim) != has(self.image)",
            "give exactly one of persistentVolumeClaim and image: the weights come from one place",
        )
    )

    persistent_volume_claim: PersistentVolumeClaimSource | None = Field(
        default=None,
        description=(
            "Weights on a PersistentVolumeClaim in this namespace. A claim that does not exist is told by the "
            "condition Valid."
        ),
    )
    image: ImageSource | None = Field(
        default=None,
        description=(
            "Weights in an OCI image, pulled by the node and mounted as an image volume (Kubernetes 1.35 or newer)."
        ),
    )


class Model(Part):
    """The model that is served."""

    variant: Variant | None = Field(
        default=None,
        description=(
            "aixcoder-7b (the default) is tuned for completion in an editor: more accurate there, fits the context "
            "better. aixcoder-7b-base is the pre-trained model: for general code tasks and for further tuning. The "
            "weights of both are free for academic research; commercial use needs an application to the vendor "
            "(aiXcoder)."
        ),
    )
    served_name: (
        Annotated[
            str,
            Field(min_length=1, max_length=128),
            Kube(
                rules=(
                    rule(
                        "self.matches('^[A-Za-z0-9]([A-Za-z0-9._/:-]*[A-Za-z0-9])?$')",
                        "write a model name of letters, digits and . _ / : - with a letter or digit at both ends",
                    ),
                )
            ),
        ]
        | None
    ) = Field(
        default=None,
        description="The name clients give as `model` and see in /v1/models. Absent: the resource's name.",
    )
    source: ModelSource = Field(
        description=(
            "Where the weights lie: exactly one of persistentVolumeClaim and image. docs/weights.md tells how to "
            "fill one."
        )
    )
