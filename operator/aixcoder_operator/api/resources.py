"""`spec.resources` and `spec.head`: what a worker pod and the head pod ask of a node."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from aixcoder_operator.api.base import Kube, Part, rule
from aixcoder_operator.api.values import ObjectName, Quantity


class Gpu(Part):
    """Asks for GPUs: engine.tensorParallelSize of them for each worker pod, whatever the device."""

    resource_name: (
        Annotated[
            str,
            Field(min_length=3, max_length=317),
            Kube(
                rules=(
                    rule(
                        "self.contains('/') && !format.qualifiedName().validate(self).hasValue()",
                        "write an extended resource as the device plug-in names it, like nvidia.com/gpu",
                    ),
                    rule(
                        "!self.startsWith('kubernetes.io/') && !self.contains('.kubernetes.io/') && "
                        "!self.startsWith('requests.')",
                        "name a device plug-in's resource like nvidia.com/gpu: kubernetes.io/ and requests. belong "
                        "to Kubernetes",
                    ),
                )
            ),
        ]
        | None
    ) = Field(
        default=None,
        description=(
            "Extended resource by which nodes offer GPUs; default nvidia.com/gpu. With MIG or another vendor, the "
            "name its device plug-in registers (kubectl describe node shows it under Allocatable)."
        ),
    )


class WorkerResources(Part):
    """What each worker pod asks for. Memory is request and limit; cpu is a request, so that idle cores may be used."""

    cpu: Quantity | None = Field(
        default=None,
        description="CPU request of a worker pod. Default 4, and 2 more for each GPU after the first.",
    )
    memory: Quantity | None = Field(
        default=None,
        description=(
            "Memory request and limit of a worker pod; GPU memory is not counted in it. Default 24Gi and 8Gi more "
            "for each GPU after the first; twice that on device cpu with dtype float32, where weights and cache lie "
            "in this memory."
        ),
    )
    gpu: Gpu | None = Field(
        default=None,
        description=(
            "Present, even as {}: each worker pod asks for engine.tensorParallelSize GPUs. Required for device cuda;"
            " on device cpu the pods hold the GPUs without using them, which is for tests."
        ),
    )


class HeadResources(Part):
    """What the head pod asks for. Memory is request and limit; cpu is a request."""

    cpu: Quantity | None = Field(default=None, description="CPU request of the head pod. Default 500m.")
    memory: Quantity | None = Field(default=None, description="Memory request and limit of the head pod. Default 2Gi.")


class Head(Part):
    """The head pod of the Ray cluster: it places and watches replicas; no request passes through it."""

    resources: HeadResources = Field(
        default=HeadResources(),
        description="What the head pod asks of its node. The defaults suit up to about 30 workers.",
    )
    storage_class_name: ObjectName | None = Field(
        default=None,
        description=(
            "Storage class of a small claim for the head's state. Given: a head pod lost with its node comes back "
            "with its state. Absent: the state lives and dies with the pod; when the pod is lost, a new Ray cluster "
            "takes over beside the old workers, which serve until then."
        ),
    )
