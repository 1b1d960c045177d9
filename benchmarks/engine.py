"""How fast each engine generates: ours and its peers on one model, one set of prompts, the same two threads.

    python -m benchmarks.engine [--engines ours,vllm] [--dtypes float32] [--concurrency 1,8,32] [--repeats 7]

Random weights (`benchmarks.checkpoint`), prompts of 512 random tokens that share no prefix, 64 tokens out, greedy; no
id ends a completion. All requests of a run are submitted at once. Reuse of prompts and guessing ahead are off. The
engines are loaded together and take turns, run by run, so that what the machine does meanwhile falls on all; those that
wait are stopped by a signal. Tensor parallel 2 has one thread a rank.

JSON lines on standard output, progress on standard error. Medians over the repeats, lower quartiles as NAME_q1:
- `tokens_per_s`: all new tokens over the time from submission to the last of them; `ttft_s` and `itl_ms`: medians over
  the requests of a run, of the time to the first token and of the mean time between two;
- `rss_mb`: peak memory up to this concurrency of all the engine's processes, each less what it has after its imports;
  beside it, for ours, `weights_and_cache_mb`: what weights and cache of all ranks take by arithmetic;
- `bandwidth`: how often all weights can be summed in a second by as many threads, between the engines' turns. A step
  need not read the embedding table, of which it takes one row: `decode_tokens_per_s` is without it;
- an engine that can not be installed, does not load or fails has `error` instead, and the others go on.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from statistics import median

import torch
from safetensors.torch import load_file

from aixcoder_serving.engine.checkpoint import inspect
from aixcoder_serving.engine.memory import weight_bytes
from benchmarks.checkpoint import VOCABULARY, Dtype, random_weights
from benchmarks.contest import (
    Contest,
    Tell,
    arguments_of,
    cache_bytes,
    end_on_sigterm,
    label,
    progress,
    rotated,
    tell,
)
from benchmarks.peer import Peer, PeerFailed, Running
from benchmarks.peers.lines import Load, Request, Result
from benchmarks.summary import summarise

TRANSFORMERS, LLAMA = "benchmarks/peers/transformers/driver.py", "benchmarks/peers/llamacpp/driver.py"
VLLM, OURS = "benchmarks/peers/vllm/driver.py", "benchmarks/ours.py"
ENGINES = (
    Peer("ours", None, OURS, pausable=False),
    Peer("transformers-generate", "transformers", TRANSFORMERS, ("generate",)),
    Peer("transformers-cb", "transformers", TRANSFORMERS, ("continuous",)),
    Peer("vllm", "vllm", VLLM),
    Peer("llama.cpp", "llamacpp", LLAMA),
    Peer("ours", None, OURS, tensor_parallel=2, pausable=False),
    Peer("vllm", "vllm", VLLM, tensor_parallel=2),
)
RUN_SECONDS = 300.0
SLACK_TOKENS = 64  # an engine may round a sequence up to its pages


def measure(results: Sequence[Result], output_tokens: int) -> dict[str, float]:
    """What one run says. Raises `PeerFailed` where a request did not get all its tokens."""
    for result in results:
        if result.end != "length" or len(result.ids) != output_tokens:
            why = result.error or f"it has {len(result.ids)} of {output_tokens} tokens"
            raise PeerFailed(f"a request ended as {result.end}: {why}")
    begin = min(result.submitted for result in results)
    found = {
        "tokens_per_s": output_tokens * len(results) / (max(result.times[-1] for result in results) - begin),
        "ttft_s": median(result.times[0] - result.submitted for result in results),
    }
    # Tokens that come together with the first one take no time of their own.
    later = [result for result in results if output_tokens > result.counts[0]]
    if later:
        found["itl_ms"] = 1000 * median(
            (result.times[-1] - result.times[0]) / (output_tokens - result.counts[0]) for result in later
        )
    return found


def prompts(count: int, length: int, output_tokens: int, rng: random.Random) -> list[Request]:
    """Requests for random tokens, no two with the same beginning."""
    ids = range(VOCABULARY)
    return [
        Request(n, (first, *rng.choices(ids, k=length - 1)), output_tokens)
        for n, first in enumerate(rng.sample(ids, count))
    ]


class Bandwidth:
    """Reads all weights; the same bytes are summed as float32 whatever they are."""

    def __init__(self, model: Path, threads: int) -> None:
        torch.set_num_threads(threads)
        tensors = {name: tensor.view(torch.float32) for name, tensor in load_file(model / "model.safetensors").items()}
        self._all = list(tensors.values())
        self._without_embedding = [tensor for name, tensor in tensors.items() if "embed" not in name]

    def measure(self) -> dict[str, float]:
        """Sum once, after a first time that brings pages and threads in."""
        _sums_per_s(self._all)
        return {"tokens_per_s": _sums_per_s(self._all), "decode_tokens_per_s": _sums_per_s(self._without_embedding)}


def _sums_per_s(tensors: Sequence[torch.Tensor]) -> float:
    start = time.perf_counter()
    for tensor in tensors:
        tensor.sum()
    return 1 / (time.perf_counter() - start)


def load_options(arguments: argparse.Namespace, dtype: Dtype, peer: Peer) -> Load:
    """What an engine is asked to load."""
    length = arguments.prompt_tokens + arguments.output_tokens + SLACK_TOKENS
    sequences = max(arguments.concurrency)
    return Load(
        model=str(random_weights(dtype)),
        dtype=dtype,
        tensor_parallel=peer.tensor_parallel,
        threads=arguments.threads,
        sequences=sequences,
        max_length=length,
        cache_tokens=sequences * length,
        cache_bytes=cache_bytes(dtype),
        prefix_caching=False,
        drafting=False,
    )


def weights_and_cache_mb(options: Load) -> float:
    """What our ranks need for their weights and the cache, in 10^6 bytes."""
    weights = weight_bytes(inspect(options.model).shape, options.dtype, options.tensor_parallel)
    return (weights + options.cache_tokens * options.cache_bytes) / 1e6


def compare(arguments: argparse.Namespace, dtype: Dtype, tell: Tell) -> None:
    """All engines on one data type."""
    bandwidth = Bandwidth(random_weights(dtype), arguments.threads)
    read: list[dict[str, float]] = []
    contest = Contest("engine", dtype, tell)
    memory: dict[tuple[Peer, int], float] = {}
    found: dict[tuple[Peer, int], list[dict[str, float]]] = {}
    rng = random.Random(0)
    try:
        for peer in arguments.peers:
            contest.load(peer, load_options(arguments, dtype, peer))
        for repeat in range(1 + arguments.repeats):  # the first is to warm up, and for the memory
            read.append(bandwidth.measure())  # all engines wait
            for concurrency in arguments.concurrency:
                for peer in rotated(arguments.peers, repeat):
                    requests = prompts(concurrency, arguments.prompt_tokens, arguments.output_tokens, rng)
                    measured = contest.turn(peer, partial(run, requests, arguments.output_tokens))
                    if repeat == 0:
                        memory[peer, concurrency] = contest.memory_mb(peer)
                    elif measured is not None:
                        found.setdefault((peer, concurrency), []).append(measured)
                        progress(f"{repeat}/{arguments.repeats} {label(peer)} at {concurrency}: {json.dumps(measured)}")
        tell({"bench": "bandwidth", "dtype": dtype, **summarise(read[1:])})
        for peer in arguments.peers:
            for concurrency in arguments.concurrency:
                measures = found.get((peer, concurrency), [])
                if len(measures) == arguments.repeats:
                    row = {**contest.row(peer), "concurrency": concurrency, **summarise(measures)}
                    row["rss_mb"] = round(memory[peer, concurrency])
                    if peer.project is None:
                        row["weights_and_cache_mb"] = round(weights_and_cache_mb(load_options(arguments, dtype, peer)))
                    tell(row)
    finally:
        contest.end()


def run(requests: Sequence[Request], output_tokens: int, running: Running) -> dict[str, float]:
    """One run of one engine."""
    return measure(running.run(requests, RUN_SECONDS), output_tokens)


def read_arguments(words: Sequence[str], environment: Mapping[str, str]) -> argparse.Namespace:
    """What to measure; `peers` are the engines. Exits on a wrong argument."""
    names = list(dict.fromkeys(peer.name for peer in ENGINES))
    parser = arguments_of("benchmarks.engine", __doc__, names, environment)
    parser.add_argument("--tensor-parallel", default="1,2")
    parser.add_argument("--concurrency", default="1,8,32")
    parser.add_argument("--prompt-tokens", type=int, default=512)
    parser.add_argument("--output-tokens", type=int, default=64)
    arguments = parser.parse_args(words)
    engines = parser.chosen("--engines", arguments.engines, names)
    sizes = {int(size) for size in parser.chosen("--tensor-parallel", arguments.tensor_parallel, ["1", "2"])}
    arguments.dtypes = parser.dtypes(arguments.dtypes)
    try:
        arguments.concurrency = sorted({int(word) for word in arguments.concurrency.split(",")})
    except ValueError:
        parser.error(f"--concurrency {arguments.concurrency!r} is no list of numbers such as 1,8,32")
    numbers = (arguments.repeats, arguments.threads, arguments.prompt_tokens, arguments.output_tokens)
    if min(*arguments.concurrency, *numbers) < 1:
        parser.error("repeats, threads, tokens and concurrency are at least 1")
    arguments.peers = [peer for peer in ENGINES if peer.name in engines and peer.tensor_parallel in sizes]
    if not arguments.peers:
        parser.error("none of these engines is measured at this tensor parallel size")
    return arguments


def main() -> int:
    """Measure and print."""
    arguments = read_arguments(sys.argv[1:], os.environ)
    end_on_sigterm()
    for dtype in arguments.dtypes:
        compare(arguments, dtype, tell)
    return 0


if __name__ == "__main__":
    sys.exit(main())
