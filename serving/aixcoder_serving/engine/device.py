"""Whether the device that was asked for is there, and how it says that its memory is used up."""

from __future__ import annotations

import torch

from aixcoder_serving.engine.interface import EngineSettings, LoadFailed


def check_device(settings: EngineSettings) -> None:
    """Raise `LoadFailed` where the device is not there or not for this format. Never another device instead."""
    if settings.device == "cpu":
        if settings.dtype == "float16":
            raise LoadFailed("DeviceNotFound", "float16 is not for cpu: ask for float32 or bfloat16")
        return
    found = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if found < settings.tensor_parallel_size:
        raise LoadFailed(
            "DeviceNotFound",
            f"{settings.tensor_parallel_size} CUDA device(s) are asked for and {found} are visible: "
            "check the GPU resource, the driver and the runtime class, or ask for device cpu",
        )


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a fault is lack of memory; on CPU torch says so only in words."""
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or "can't allocate memory" in str(error)
