"""The first engine: transformers' `generate`, one thread for each running request.

At most `max_concurrent_sequences` generations run, the others wait first in, first out. Each has its own cache and
its own random numbers, so that none changes another's output. `tensor_parallel_size` > 1 spreads whole layers over that
many CUDA devices, which work one after the other; on CPU all of it runs in this one process.
"""

from __future__ import annotations

import logging
import os
import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from transformers import GenerationConfig, LlamaForCausalLM, StoppingCriteria, StoppingCriteriaList

from aixcoder_serving.engine.checkpoint import inspect
from aixcoder_serving.engine.device import check_device, is_out_of_memory
from aixcoder_serving.engine.dtype import choose
from aixcoder_serving.engine.handle import RequestHandle
from aixcoder_serving.engine.interface import (
    Delta,
    EngineClosed,
    EngineSettings,
    EngineStats,
    Finish,
    LoadFailed,
    LoadFailure,
    Sampling,
)
from aixcoder_serving.engine.loading import first_line, load_model
from aixcoder_serving.engine.sampling import processors
from aixcoder_serving.engine.stops import StopMatcher
from aixcoder_serving.engine.validation import validate

logger = logging.getLogger(__name__)


class TransformersEngine:
    """An `Engine`, see there."""

    def __init__(self, settings: EngineSettings, token_bytes: Sequence[bytes]) -> None:
        self._settings = settings
        self._token_bytes = token_bytes
        self._model: LlamaForCausalLM | None = None
        self._vocabulary_size = 0
        self._failure: str | None = None
        self._change = threading.Condition()  # guards what follows
        self._stats = EngineStats()
        self._waiting: deque[RequestHandle] = deque()
        self._running: set[RequestHandle] = set()
        self._workers: list[threading.Thread] = []
        self._idle = 0
        self._closed = False

    def load(self) -> None:
        """See `Engine.load`."""
        checkpoint = inspect(self._settings.model_path)
        check_device(self._settings)
        if self._settings.device == "cpu" and "OMP_NUM_THREADS" not in os.environ:
            torch.set_num_threads(max(1, len(os.sched_getaffinity(0)) - 1))  # one is for HTTP and tokenising
        if self._settings.dtype == "auto":
            self._settings = replace(self._settings, dtype=choose(self._settings.device, checkpoint.dtype))
        # The last percent is the first step, which imports and compiles what is still missing.
        model = load_model(checkpoint, self._settings, lambda percent: self._count(load_percent=min(percent, 99)))
        try:
            model.generate(
                torch.ones((1, 1), dtype=torch.long, device=model.device),
                attention_mask=torch.ones((1, 1), dtype=torch.long, device=model.device),
                generation_config=_generation_config(1),
            )
        except Exception as error:
            reason: LoadFailure = "OutOfMemory" if is_out_of_memory(error) else "EngineFailed"
            raise LoadFailed(reason, f"the first step failed: {first_line(error)}") from error
        self._vocabulary_size = checkpoint.vocabulary_size
        self._model = model
        self._count(load_percent=100)
        logger.info(
            "transformers engine ready: device %s, dtype %s, tensor parallel size %d (%s), length %d, %d at once",
            self._settings.device,
            self._settings.dtype,
            self._settings.tensor_parallel_size,
            "layers one after the other over the devices" if self._settings.device == "cuda" else "one process",
            self._settings.max_model_length,
            self._settings.max_concurrent_sequences,
        )

    def submit(self, prompt: Sequence[int], sampling: Sampling) -> RequestHandle:
        """See `Engine.submit`."""
        if self._model is None or self._closed:
            raise EngineClosed("the engine is closed" if self._closed else "the model is not loaded yet")
        if self._failure is not None:
            raise EngineClosed(self._failure)
        validate(prompt, sampling, vocabulary_size=self._vocabulary_size, max_length=self._settings.max_model_length)
        handle = RequestHandle(tuple(prompt), sampling, self._withdraw)
        with self._change:
            self._waiting.append(handle)
            if len(self._waiting) > self._idle and len(self._workers) < self._settings.max_concurrent_sequences:
                worker = threading.Thread(target=self._work, name=f"generate-{len(self._workers)}", daemon=True)
                self._workers.append(worker)
                worker.start()
            self._change.notify()
        return handle

    def stats(self) -> EngineStats:
        """See `Engine.stats`."""
        with self._change:
            return replace(self._stats, running=len(self._running), waiting=len(self._waiting))

    @property
    def failure(self) -> str | None:
        """See `Engine.failure`."""
        return self._failure

    def close(self) -> None:
        """See `Engine.close`."""
        with self._change:
            self._closed = True
            handles = [*self._waiting, *self._running]
            self._change.notify_all()
        for handle in handles:
            handle.cancel()
        for worker in self._workers:
            worker.join()
        self._model = None

    def _count(self, load_percent: int | None = None, **more: int) -> None:
        """Add to counters, set the percentage."""
        with self._change:
            changes: dict[str, Any] = {name: getattr(self._stats, name) + n for name, n in more.items()}
            if load_percent is not None:
                changes["load_percent"] = load_percent
            self._stats = replace(self._stats, **changes)

    def _withdraw(self, handle: RequestHandle) -> None:
        """Take a cancelled request from the queue; a running one sees it at its next token."""
        with self._change:
            if handle not in self._waiting:
                return
            self._waiting.remove(handle)
        self._count(cancelled=1)
        handle.end(Finish("cancelled", 0))

    def _work(self) -> None:
        """Run requests one after the other until the engine is closed."""
        while True:
            with self._change:
                self._idle += 1
                while not self._waiting and not self._closed:
                    self._change.wait()
                self._idle -= 1
                if self._closed:
                    return
                handle = self._waiting.popleft()
                self._running.add(handle)
            self._serve(handle)

    def _serve(self, handle: RequestHandle) -> None:
        """Run one request; whatever happens to it happens to it alone."""
        finish, error = None, None
        try:
            finish = self._generate(handle)
        except Exception as fault:
            error = self._describe(fault)
            logger.exception("a generation failed: %s", error)
        # The slot is free before its client hears of the end.
        with self._change:
            self._running.discard(handle)
        if finish is None:
            self._count(failed=1)
            handle.fail(error or "the generation ended without a reason")
            return
        self._count(**{"cancelled" if finish.reason == "cancelled" else "completed": 1})
        handle.end(finish)

    def _generate(self, handle: RequestHandle) -> Finish | None:
        sampling = handle.sampling
        if handle.cancelled:
            return Finish("cancelled", 0)
        if sampling.max_tokens == 0:
            return Finish("length", 0)
        model = self._model
        if model is None:
            raise EngineClosed("the engine is closed")
        prompt = torch.tensor([handle.prompt], dtype=torch.long, device=model.device)
        watch = _Watch(self, handle, self._token_bytes)
        model.generate(
            prompt,
            attention_mask=torch.ones_like(prompt),
            generation_config=_generation_config(sampling.max_tokens),
            logits_processor=processors(sampling),
            stopping_criteria=StoppingCriteriaList([watch]),
        )
        return watch.finish

    def _describe(self, fault: Exception) -> str:
        """A sentence for the client. Remembers when the device is lost."""
        if is_out_of_memory(fault):
            if self._settings.device == "cuda":
                torch.cuda.empty_cache()
            return "out of memory: ask for less context, or serve with fewer concurrent sequences"
        if isinstance(fault, torch.AcceleratorError):
            self._failure = f"the device is lost: {first_line(fault)}"
            return self._failure
        return f"the engine failed on this request: {type(fault).__name__}"


def _generation_config(max_tokens: int) -> GenerationConfig:
    """Greedy and without a stop id of transformers' own: `_Watch` decides."""
    return GenerationConfig(max_new_tokens=max_tokens, do_sample=False, use_cache=True)


class _Watch(StoppingCriteria):  # type: ignore[misc]  # transformers is not typed
    """Called after each token: passes it on and says whether it was the last."""

    def __init__(self, engine: TransformersEngine, handle: RequestHandle, token_bytes: Sequence[bytes]) -> None:
        self._engine = engine
        self._handle = handle
        self._token_bytes = token_bytes
        self._matcher = StopMatcher(handle.sampling.stop)
        self._tokens = 0
        self.finish: Finish | None = None

    def __call__(self, input_ids: torch.Tensor, scores: Any, **_options: Any) -> torch.Tensor:
        """`input_ids`: (1, length), the new token last."""
        self._step(int(input_ids[0, -1]))
        return torch.tensor([self.finish is not None], device=input_ids.device)

    def _step(self, token: int) -> None:
        handle, sampling = self._handle, self._handle.sampling
        self._engine._count(tokens_prefilled=0 if self._tokens else len(handle.prompt), tokens_decoded=1)
        self._tokens += 1
        if handle.cancelled:
            self.finish = Finish("cancelled", self._tokens)
            return
        # A vocabulary may be padded: an id without a piece has no bytes.
        trim = self._matcher.push(self._token_bytes[token] if token < len(self._token_bytes) else b"")
        handle.emit(Delta((token,), self._matcher.held if trim is None else trim))
        if trim is not None:
            self.finish = Finish("stop", self._tokens, trim_bytes=trim)
        elif token in sampling.stop_ids:
            self.finish = Finish("stop", self._tokens)
        elif self._tokens >= sampling.max_tokens:
            self.finish = Finish("length", self._tokens)
