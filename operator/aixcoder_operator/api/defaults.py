"""What holds for fields that a spec leaves out: the one place, applied when objects are rendered, never stored.

A default that stood in the schema would be stored with each resource, and a later default would restart everybody.
"""

from __future__ import annotations

from dataclasses import dataclass

from aixcoder_operator.api.autoscaling import Autoscaling
from aixcoder_operator.api.deployment import DeploymentSpec
from aixcoder_operator.api.engine import Device, Dtype, TensorParallelSize
from aixcoder_operator.api.model import Variant
from aixcoder_serving.protocol import DEFAULT_MODEL_LENGTH

DEFAULT_GPU_RESOURCE = "nvidia.com/gpu"


@dataclass(frozen=True)
class Effective:
    """The scalar wishes of a spec with every default filled in.

    Quantities are Kubernetes quantities as text; times are seconds. `gpu_resource` is None where no GPU is asked for;
    else each worker pod asks for `tensor_parallel_size` of it.
    """

    variant: Variant
    device: Device
    dtype: Dtype
    tensor_parallel_size: TensorParallelSize
    max_model_length: int
    max_concurrent_sequences: int
    replicas: int
    """Without a decision: with `autoscaled` what a new deployment begins with."""
    autoscaled: bool
    keep_head: bool
    """Whether the head stays where no replica is wished for."""
    worker_cpu: str
    worker_memory: str
    gpu_resource: str | None
    head_cpu: str
    head_memory: str
    progress_deadline_seconds: int
    scheduling_deadline_seconds: int
    revision_history_limit: int
    suspended: bool

    @property
    def gpus_per_pod(self) -> int:
        """GPUs one worker pod asks for, 0 where none are asked for."""
        return 0 if self.gpu_resource is None else self.tensor_parallel_size

    @property
    def is_away(self) -> bool:
        """Neither workers nor a head are wished for."""
        return self.suspended or (self.replicas == 0 and not self.keep_head)


def effective(spec: DeploymentSpec) -> Effective:
    """`spec` with its defaults filled in."""
    engine, resources, rollout, autoscaling = spec.engine, spec.resources, spec.rollout, spec.autoscaling
    device = engine.device or "cuda"
    dtype = engine.dtype or "bfloat16"
    ranks = engine.tensor_parallel_size or 1
    return Effective(
        variant=spec.model.variant or "aixcoder-7b",
        device=device,
        dtype=dtype,
        tensor_parallel_size=ranks,
        max_model_length=engine.max_model_length or DEFAULT_MODEL_LENGTH,
        max_concurrent_sequences=engine.max_concurrent_sequences or 64,
        # One even where the minimum is 0: whether the model loads is seen at once, not with the first request.
        replicas=max(1, least_replicas(autoscaling)) if autoscaling else 1 if spec.replicas is None else spec.replicas,
        autoscaled=autoscaling is not None,
        keep_head=autoscaling is None or bool(autoscaling.keep_head),
        worker_cpu=resources.cpu or default_worker_cpu(ranks),
        worker_memory=resources.memory or default_worker_memory(ranks, device, dtype),
        gpu_resource=None if resources.gpu is None else resources.gpu.resource_name or DEFAULT_GPU_RESOURCE,
        head_cpu=spec.head.resources.cpu or "500m",
        head_memory=spec.head.resources.memory or "2Gi",
        progress_deadline_seconds=rollout.progress_deadline_seconds or 600,
        scheduling_deadline_seconds=rollout.scheduling_deadline_seconds or 600,
        revision_history_limit=10 if rollout.revision_history_limit is None else rollout.revision_history_limit,
        suspended=bool(spec.suspend),
    )


def least_replicas(autoscaling: Autoscaling) -> int:
    """`minReplicas`, schedules apart."""
    return 1 if autoscaling.min_replicas is None else autoscaling.min_replicas


def default_worker_cpu(ranks: int) -> str:
    """CPU request of a worker pod: HTTP, tokeniser and the first rank take 4 cores, each further rank 2."""
    return str(4 + 2 * (ranks - 1))


def default_worker_memory(ranks: int, device: Device, dtype: Dtype) -> str:
    """Memory of a worker pod, GPU memory apart.

    On cuda a rank's share of 14.9 GB of bfloat16 weights passes through host memory and each rank adds its CUDA context
    and pinned buffers. On cpu the weights stay there with the cache, at twice the size in float32.
    """
    gibibytes = 24 + 8 * (ranks - 1)
    return f"{gibibytes * 2 if device == 'cpu' and dtype == 'float32' else gibibytes}Gi"
