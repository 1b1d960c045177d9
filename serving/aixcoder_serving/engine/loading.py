"""Loading a Llama checkpoint by transformers, with every way it can fail told as a reason and a sentence."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import GenerationConfig, LlamaForCausalLM
from transformers.utils import logging as transformers_logging

from aixcoder_serving.engine.checkpoint import Checkpoint
from aixcoder_serving.engine.device import is_out_of_memory
from aixcoder_serving.engine.interface import EngineSettings, LoadFailed
from aixcoder_serving.engine.memory import host_bytes, require, weight_bytes


def load_model(checkpoint: Checkpoint, settings: EngineSettings, on_percent: Callable[[int], None]) -> LlamaForCausalLM:
    """The model on its device(s), ready to generate; `settings.dtype` is not `auto`. Raises `LoadFailed`."""
    if settings.max_model_length > checkpoint.max_positions:
        raise LoadFailed(
            "ModelInvalid",
            f"a length of {settings.max_model_length} is asked for; the model has {checkpoint.max_positions} positions",
        )
    weights = weight_bytes(checkpoint.shape, settings.dtype)
    if settings.device == "cpu":
        require(weights=weights, available=host_bytes(), where="this container")
    else:
        free = sum(_free_bytes(settings.tensor_parallel_size).values())
        require(weights=weights, available=free, where=f"{settings.tensor_parallel_size} CUDA device(s)")
    try:
        with _progress(on_percent):
            model, info = LlamaForCausalLM.from_pretrained(
                checkpoint.path,
                dtype=getattr(torch, settings.dtype),
                device_map=_device_map(settings),
                max_memory=_max_memory(settings),
                local_files_only=True,
                use_safetensors=True,
                output_loading_info=True,
            )
    except (MemoryError, torch.OutOfMemoryError) as error:
        raise LoadFailed("OutOfMemory", f"the model does not fit: {first_line(error)}") from error
    except (SafetensorError, OSError, ValueError, KeyError) as error:
        raise LoadFailed("ModelInvalid", f"{checkpoint.path} can not be read: {first_line(error)}") from error
    except RuntimeError as error:
        if is_out_of_memory(error):
            raise LoadFailed("OutOfMemory", f"the model does not fit: {first_line(error)}") from error
        raise LoadFailed("ModelInvalid", f"{checkpoint.path} can not be loaded: {first_line(error)}") from error
    # transformers fills what is missing with random numbers and goes on.
    if missing := sorted(info["missing_keys"]):
        raise LoadFailed("ModelInvalid", f"{checkpoint.path} lacks {len(missing)} tensors, {missing[0]} among them")
    # The checkpoint's own generation settings (penalties, lengths, stop ids) are no request's.
    model.generation_config = GenerationConfig()
    model.eval()
    return model


def first_line(error: BaseException) -> str:
    """A fault's first line, or its type where it has no text."""
    return next(iter(str(error).splitlines()), "") or type(error).__name__


def _device_map(settings: EngineSettings) -> str | dict[str, str]:
    if settings.device == "cpu":
        return {"": "cpu"}
    return {"": "cuda:0"} if settings.tensor_parallel_size == 1 else "balanced"


def _max_memory(settings: EngineSettings) -> dict[int, int] | None:
    """Bytes for layers on each of the devices, where there are several: they go to these and no others."""
    if settings.device == "cpu" or settings.tensor_parallel_size == 1:
        return None
    return _free_bytes(settings.tensor_parallel_size)


def _free_bytes(devices: int) -> dict[int, int]:
    return {i: torch.cuda.mem_get_info(i)[0] for i in range(devices)}


@contextmanager
def _progress(on_percent: Callable[[int], None]) -> Iterator[None]:
    """Turn transformers' progress bar over the weights into percent."""

    def bar(_factory: Callable[..., Any], args: tuple[Any, ...], _options: dict[str, Any]) -> Any:
        return _Counted(args[0] if args else (), on_percent)

    previous = transformers_logging.set_tqdm_hook(bar)
    try:
        yield
    finally:
        transformers_logging.set_tqdm_hook(previous)


class _Counted:
    """A progress bar that shows nothing and reports percent."""

    def __init__(self, items: Iterable[Any], on_percent: Callable[[int], None]) -> None:
        self._items = list(items)
        self._on_percent = on_percent

    def __iter__(self) -> Iterator[Any]:
        for n, item in enumerate(self._items):
            self._on_percent(n * 100 // len(self._items))
            yield item

    def __getattr__(self, _name: str) -> Callable[..., None]:
        return lambda *_args, **_kwargs: None
