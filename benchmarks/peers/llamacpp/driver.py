"""llama.cpp by llama-cpp-python's bindings: a batch a step, the next token of each running sequence and prompts."""

from __future__ import annotations

import ctypes
from collections.abc import AsyncGenerator, Iterable
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import llama_cpp  # type: ignore[import-not-found]
import numpy as np

from benchmarks.peers.lines import Load, Request, Step, main, resident_mb
from benchmarks.peers.llamacpp.gguf_file import converted
from benchmarks.peers.thread import EngineThread, Given

BATCH_TOKENS, MICRO_BATCH_TOKENS = 2048, 512
"""Both are llama.cpp's own defaults."""


@dataclass
class Sequence:
    """One request in a slot of the context: `pending` tokens are not in its cache yet."""

    slot: int
    max_tokens: int
    pending: list[int]
    position: int = 0
    produced: int = field(default=0)


class Batches:
    """A llama.cpp context as a `Stepped`. Greedy, and no id ends a sequence."""

    def __init__(self, options: Load) -> None:
        llama_cpp.llama_backend_init()
        model = llama_cpp.llama_model_default_params()
        file = str(converted(Path(options.model))).encode()
        self._model = llama_cpp.llama_model_load_from_file(file, model)
        if not self._model:
            raise RuntimeError("llama.cpp does not load the model")
        context = llama_cpp.llama_context_default_params()
        context.n_ctx = options.cache_tokens
        context.n_batch, context.n_ubatch = BATCH_TOKENS, MICRO_BATCH_TOKENS
        context.n_seq_max = options.sequences
        context.n_threads = context.n_threads_batch = options.threads
        if options.dtype == "float32":
            context.type_k = context.type_v = llama_cpp.GGML_TYPE_F32
        self._context = llama_cpp.llama_init_from_model(self._model, context)
        if not self._context:
            raise RuntimeError("llama.cpp makes no context")
        self._vocabulary = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(self._model))
        self._batch = llama_cpp.llama_batch_init(BATCH_TOKENS, 0, 1)
        self._free = list(range(options.sequences))
        self._sequences: dict[int, Sequence] = {}
        self._waiting: dict[int, Request] = {}

    def add(self, number: int, request: Request) -> None:
        """See `Stepped`."""
        self._waiting[number] = request

    def drop(self, number: int) -> None:
        """See `Stepped`."""
        self._waiting.pop(number, None)
        if (sequence := self._sequences.pop(number, None)) is not None:
            llama_cpp.llama_memory_seq_rm(llama_cpp.llama_get_memory(self._context), sequence.slot, -1, -1)
            self._free.append(sequence.slot)

    def step(self) -> Iterable[Given]:
        """See `Stepped`."""
        while self._waiting and self._free:
            number = next(iter(self._waiting))
            request = self._waiting.pop(number)
            self._sequences[number] = Sequence(self._free.pop(), request.max_tokens, list(request.prompt))
        asked = self._fill()
        if code := llama_cpp.llama_decode(self._context, self._batch):
            raise RuntimeError(f"llama_decode gave {code}")
        for number, row in asked:
            sequence = self._sequences[number]
            logits = llama_cpp.llama_get_logits_ith(self._context, row)
            token = int(np.ctypeslib.as_array(logits, (self._vocabulary,)).argmax())
            sequence.pending.append(token)
            sequence.produced += 1
            yield number, Step((token,), cached=0)
            if sequence.produced >= sequence.max_tokens:
                self.drop(number)
                yield number, None

    def _fill(self) -> list[tuple[int, int]]:
        """Fill the batch, those first that need one token only; the rows whose logits are wanted, by number."""
        batch, asked = self._batch, []
        batch.n_tokens = 0
        for number, sequence in sorted(self._sequences.items(), key=lambda item: len(item[1].pending)):
            count = min(len(sequence.pending), BATCH_TOKENS - batch.n_tokens)
            for n in range(count):
                row = batch.n_tokens + n
                batch.token[row], batch.pos[row] = sequence.pending[n], sequence.position + n
                batch.n_seq_id[row], batch.seq_id[row][0], batch.logits[row] = 1, sequence.slot, 0
            batch.n_tokens += count
            sequence.position += count
            del sequence.pending[:count]
            if count and not sequence.pending:
                batch.logits[batch.n_tokens - 1] = 1
                asked.append((number, batch.n_tokens - 1))
        return asked


@llama_cpp.llama_log_callback  # type: ignore[untyped-decorator]
def silent(_level: int, _text: bytes, _data: ctypes.c_void_p) -> None:
    """Take what llama.cpp would print for each layer it loads."""


class LlamaDriver:
    """See `Driver`."""

    ends_lines = False

    def __init__(self) -> None:
        self._thread = EngineThread()

    async def load(self, options: Load) -> dict[str, Any]:
        """See `Driver`."""
        if options.prefix_caching:
            raise ValueError("prompts are cached by llama.cpp's server, not by this driver")
        imports_mb = resident_mb()
        llama_cpp.llama_log_set(silent, ctypes.c_void_p())
        await self._thread.start(lambda: Batches(options))
        return {
            "version": version("llama-cpp-python"),
            "settings": {
                "n_batch": BATCH_TOKENS,
                "n_ubatch": MICRO_BATCH_TOKENS,
                "n_threads": options.threads,
                "flash_attn": "auto",
                "type_k, type_v": "f32" if options.dtype == "float32" else "f16",
                "compiled": "GGML_NATIVE",
            },
            "imports_mb": imports_mb,
        }

    def stream(self, request: Request) -> AsyncGenerator[Step, None]:
        """See `Driver`."""
        return self._thread.stream(request)

    async def reset(self) -> None:
        """Nothing is kept of an ended sequence."""

    async def close(self) -> None:
        """See `Driver`."""
        await self._thread.close()


if __name__ == "__main__":
    main(LlamaDriver())
