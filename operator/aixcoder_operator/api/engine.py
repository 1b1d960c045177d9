"""`spec.engine`: how the model is run inside one replica."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from aixcoder_operator.api.base import Part, rule, ruled

Device = Literal["cuda", "cpu"]
Dtype = Literal["bfloat16", "float16", "float32"]
TensorParallelSize = Literal[1, 2, 4, 8]


class Engine(Part):
    """How one replica runs the model. A change makes new replicas, which take over when they are ready."""

    model_config = ruled(
        rule(
            "!(has(self.device) && self.device == 'cpu' && has(self.dtype) && self.dtype == 'float16')",
            "dtype float16 does not run on device cpu: choose float32 or bfloat16 there",
            ".dtype",
        )
    )

    device: Device | None = Field(
        default=None,
        description=(
            "Where the arithmetic is done: cuda (the default; needs resources.gpu) or cpu (slow: for trials and "
            "tests). There is no silent fallback: a replica that finds no CUDA device fails and says so."
        ),
    )
    dtype: Dtype | None = Field(
        default=None,
        description=(
            "Number format of weights and cache. bfloat16 (the default) is what the model was trained in; float16 "
            "for GPUs without bfloat16, not on cpu; float32 takes twice the memory and is for cpu and comparisons."
        ),
    )
    tensor_parallel_size: TensorParallelSize | None = Field(
        default=None,
        description=(
            "Number of GPUs that share one replica's model: 1 (the default), 2, 4 or 8. They are in one pod, so one "
            "node must have as many free. More of them lower the latency and leave more memory for the cache."
        ),
    )
    max_model_length: Annotated[int, Field(ge=16, le=32768)] | None = Field(
        default=None,
        description=(
            "Longest prompt plus completion, in tokens; longer prompts are cut to fit. At most 32768 (the default), "
            "which is what the model was trained for. A 7B token takes 128 KiB of cache in bfloat16."
        ),
    )
    max_concurrent_sequences: Annotated[int, Field(ge=1, le=1024)] | None = Field(
        default=None,
        description="Most completions that one replica works on at once (default 64); further ones wait.",
    )
