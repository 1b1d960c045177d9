"""transformers: `generate` with a static batch, or its continuous batching; the argument says which."""

from __future__ import annotations

import sys
from collections.abc import AsyncGenerator, Iterable
from typing import Any

import torch
import transformers
from transformers import (
    ContinuousBatchingConfig,
    GenerationConfig,
    LlamaForCausalLM,
    StoppingCriteria,
    StoppingCriteriaList,
)

from benchmarks.peers.lines import Driver, Load, Outbox, Request, Step, main, resident_mb
from benchmarks.peers.thread import EngineThread, Given

NO_EOS = -1


def load_model(options: Load) -> LlamaForCausalLM:
    """The model with its attention by torch."""
    torch.set_num_threads(options.threads)
    model = LlamaForCausalLM.from_pretrained(
        options.model, dtype=getattr(torch, options.dtype), attn_implementation="sdpa", local_files_only=True
    )
    model.generation_config = GenerationConfig()
    return model.eval()


class Batches:
    """`generate` as a `Stepped`: all that is queued is one batch, which must be of one prompt length."""

    def __init__(self, options: Load) -> None:
        self._model = load_model(options)
        self._queued: dict[int, Request] = {}

    def add(self, number: int, request: Request) -> None:
        """See `Stepped`."""
        self._queued[number] = request

    def drop(self, number: int) -> None:
        """See `Stepped`."""
        self._queued.pop(number, None)

    def step(self) -> Iterable[Given]:
        """See `Stepped`. A batch is one step."""
        numbers, requests = list(self._queued), list(self._queued.values())
        self._queued.clear()
        prompts = torch.tensor([request.prompt for request in requests])
        given: list[Given] = []

        class Watch(StoppingCriteria):  # type: ignore[misc]  # transformers is not typed
            def __call__(self, input_ids: torch.Tensor, scores: Any, **_options: Any) -> torch.Tensor:
                given.extend(
                    (number, Step((token,), cached=0))
                    for number, token in zip(numbers, input_ids[:, -1].tolist(), strict=True)
                )
                return torch.zeros(len(numbers), dtype=torch.bool)

        self._model.generate(
            prompts,
            attention_mask=torch.ones_like(prompts),
            generation_config=GenerationConfig(max_new_tokens=max(request.max_tokens for request in requests)),
            stopping_criteria=StoppingCriteriaList([Watch()]),
        )
        return [*given, *((number, None) for number in numbers)]


class GenerateDriver:
    """See `Driver`."""

    ends_lines = False

    def __init__(self) -> None:
        self._thread = EngineThread()

    async def load(self, options: Load) -> dict[str, Any]:
        """See `Driver`."""
        imports_mb = resident_mb()
        await self._thread.start(lambda: Batches(options))
        settings = {"attn_implementation": "sdpa", "batch": "static", "cache": "dynamic"}
        return {"version": transformers.__version__, "settings": settings, "imports_mb": imports_mb}

    def stream(self, request: Request) -> AsyncGenerator[Step, None]:
        """See `Driver`."""
        return self._thread.stream(request)

    async def reset(self) -> None:
        """Nothing is kept between batches."""

    async def close(self) -> None:
        """See `Driver`."""
        await self._thread.close()


class ContinuousDriver:
    """See `Driver`."""

    ends_lines = False

    def __init__(self) -> None:
        self._manager: Any = None
        self._numbers = 0

    async def load(self, options: Load) -> dict[str, Any]:
        """See `Driver`."""
        imports_mb = resident_mb()
        settings: dict[str, Any] = {
            "num_blocks": options.sequences * -(-options.max_length // PAGE_TOKENS),
            "page_size": PAGE_TOKENS,
            "max_batch_tokens": BATCH_TOKENS,
            "max_requests_per_batch": options.sequences,
            "allow_block_sharing": options.prefix_caching,
        }
        self._manager = load_model(options).init_continuous_batching(
            GenerationConfig(do_sample=False, eos_token_id=NO_EOS, max_new_tokens=1),
            ContinuousBatchingConfig(**settings),
        )
        self._manager.start()
        settings["attn_implementation"] = "sdpa"
        return {"version": transformers.__version__, "settings": settings, "imports_mb": imports_mb}

    async def stream(self, request: Request) -> AsyncGenerator[Step, None]:
        """See `Driver`."""
        self._numbers += 1
        name, outbox, told = str(self._numbers), Outbox(), 0

        def deliver(output: Any) -> None:
            nonlocal told
            new = tuple(output.generated_tokens[told:])
            told += len(new)
            outbox.put(RuntimeError(output.error) if output.error else Step(new))
            if output.is_finished():
                outbox.put(None)

        self._manager.register_result_handler(name, deliver)
        self._manager.add_request(
            list(request.prompt), request_id=name, max_new_tokens=request.max_tokens, streaming=True
        )
        try:
            async for step in outbox:
                yield step
        finally:
            self._manager.cancel_request(name)

    async def reset(self) -> None:
        """Nothing is kept: blocks are not shared."""

    async def close(self) -> None:
        """See `Driver`."""
        if self._manager is not None:
            self._manager.stop(block=True, timeout=10)


PAGE_TOKENS, BATCH_TOKENS = 256, 2048
DRIVERS: dict[str, type[Driver]] = {"generate": GenerateDriver, "continuous": ContinuousDriver}

if __name__ == "__main__":
    main(DRIVERS[sys.argv[1]]())
