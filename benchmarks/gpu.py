"""The goals on one H200: random weights of aiXcoder-7B's shape in bfloat16, made on the device. Never run on a GPU.

    PYTHONPATH=serving python -m benchmarks.gpu [--only decode,warm] [--seconds 20]

Needs torch 2.11 or newer with Triton, safetensors and numpy, and a device with 70 GB. The engine's core runs in this
process: its scheduler, cache, kernels and graphs, without the socket to a client. JSON lines on standard output,
progress on standard error; `goal` is issue 5's, `met` whether it was reached.
- `bandwidth`: bytes a second that a sum reads, and that a copy reads and writes; the greater is the measure;
- `decode`: a decoding step of one request, and the bandwidth at which it reads all weights but the embedding;
- `warm`: time to the first token of a prompt of 2,000 tokens of which all but the last one to four are cached;
- `cold`: the same of 4,096 tokens that were never seen;
- `batch`: a decoding step of 32 requests of 4,096 tokens each;
- `idle`: the share of the time of 50 decoding steps in which no kernel runs, by torch's profiler, which costs some;
- `replay`: 100 requests a second from 50 editors, each the editor's last prompt and one to three tokens more, 70 %
  cancelled 50 to 300 ms later; time from when a request was due to the end of its first line, of those not cancelled.
"""

from __future__ import annotations

import argparse
import heapq
import json
import sys
import time
from collections.abc import Callable, Sequence
from statistics import median
from typing import Any

import torch

from aixcoder_serving.engine import linear
from aixcoder_serving.engine.interface import EngineSettings, Sampling
from aixcoder_serving.engine.shape import LlamaShape
from benchmarks.random_engine import RandomEngine
from benchmarks.summary import percentile

SHAPE = LlamaShape(
    hidden_size=4096,
    intermediate_size=14464,
    layers=32,
    heads=32,
    kv_heads=8,
    head_dim=128,
    vocabulary_size=49152,
    max_positions=32768,
    rms_norm_eps=1e-5,
    rope_theta=256000.0,
    rope_scaling=None,
    tie_word_embeddings=False,
)
SETTINGS = EngineSettings("random weights", max_concurrent_sequences=64, cache_tokens=262_144, drafting=False)

Line = dict[str, Any]


def bandwidth(gigabytes: float = 8.0) -> dict[str, float]:
    """Bytes a second of a sum and of a copy, the medians of 20."""
    x = torch.ones(int(gigabytes * 2**28), device="cuda")
    y = torch.empty_like(x)

    def seconds(work: Callable[[], object]) -> float:
        times: list[float] = []
        for _ in range(20):
            begin = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
            end = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
            begin.record()
            work()
            end.record()
            end.synchronize()
            times.append(begin.elapsed_time(end) / 1000)
        return median(times)

    return {"sum": x.nbytes / seconds(x.sum), "copy": 2 * x.nbytes / seconds(lambda: y.copy_(x))}


def decode(engine: RandomEngine, bytes_a_second: float, steps: int = 200) -> Line:
    """How near a decoding step comes to reading the weights alone."""
    read = sum(p.numbers for p in linear.parameters(engine.shape, 0, 1) if p.name != "embedding")
    seconds = median(engine.decoding(1, 128, steps))
    share = read * engine.ops.dtype.itemsize / seconds / bytes_a_second
    return {"step_ms": seconds * 1000, "bandwidth_share": share, "goal": 0.8, "met": share >= 0.8}


def warm(engine: RandomEngine, prompt_tokens: int = 2000, keys: int = 100) -> Line:
    """The time of a keystroke."""
    engine.renew()
    prompt = engine.ids(prompt_tokens)
    engine.first_token(prompt)
    times = []
    for _ in range(keys):
        prompt += engine.ids(engine.random.randint(1, 4))
        times.append(engine.first_token(prompt) * 1000)
    p95 = percentile(times, 95)
    return {"p50_ms": median(times), "p95_ms": p95, "goal": 10, "met": p95 <= 10}


def cold(engine: RandomEngine, prompt_tokens: int = 4096, repeats: int = 11) -> Line:
    """The time of a prompt that nobody has seen."""
    engine.renew()
    milliseconds = median(engine.first_token(engine.ids(prompt_tokens)) * 1000 for _ in range(repeats))
    return {"p50_ms": milliseconds, "goal": 150, "met": milliseconds <= 150}


def batch(engine: RandomEngine, requests: int = 32, prompt_tokens: int = 4096, steps: int = 50) -> Line:
    """The time of a step of many."""
    milliseconds = median(engine.decoding(requests, prompt_tokens, steps)) * 1000
    return {"step_ms": milliseconds, "goal": 10, "met": milliseconds <= 10}


def idle(engine: RandomEngine, requests: int, prompt_tokens: int = 1024) -> Line:
    """How long the device waits for the host."""
    engine.decoding(requests, prompt_tokens, 10)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        for _ in range(50):
            engine.step()
        torch.cuda.synchronize()
    on_device = [event.time_range for event in profile.events() if event.device_type.name == "CUDA"]
    share = idle_share([(span.start, span.end) for span in on_device])
    return {"requests": requests, "share": share, "goal": 0.05, "met": share <= 0.05}


def idle_share(spans: Sequence[tuple[float, float]]) -> float:
    """The part of the time from the first begin to the last end that no (begin, end) covers."""
    ordered = sorted(spans)
    free, reached = 0.0, ordered[0][0]
    for begin, end in ordered:
        free += max(begin - reached, 0.0)
        reached = max(reached, end)
    return free / (reached - ordered[0][0])


def replay(
    engine: RandomEngine, seconds: float, rate: float = 100.0, editors: int = 50, prompt_tokens: int = 1000
) -> Line:
    """Many people typing at once."""
    engine.renew()
    chance = engine.random
    prompts = [engine.ids(chance.randint(prompt_tokens, 2 * prompt_tokens)) for _ in range(editors)]
    for prompt in prompts:
        engine.first_token(prompt)
    kept: list[tuple[float, int]] = []
    cancels: list[tuple[float, int]] = []
    due = 0.0
    start = time.monotonic()
    while due < seconds or engine.core.busy:
        now = time.monotonic() - start
        while due <= now and due < seconds:
            editor = chance.randrange(editors)
            prompts[editor] += engine.ids(chance.randint(1, 3))
            number = engine.submit(
                prompts[editor], Sampling(max_tokens=64, temperature=1.0, seed=len(engine.answers), first_line=True)
            )
            if chance.random() < 0.7:
                heapq.heappush(cancels, (now + chance.uniform(0.05, 0.3), number))
            else:
                kept.append((start + due, number))
            due += chance.expovariate(rate)
        while cancels and cancels[0][0] <= now:
            engine.core.cancel(heapq.heappop(cancels)[1])
        if engine.core.busy:
            engine.step()
        else:
            time.sleep(max(0.0, min(start + due - time.monotonic(), 0.001)))
    times = [(engine.answers[n].ended - at) * 1000 for at, n in kept if engine.answers[n].finish is not None]
    p95 = percentile(times, 95)
    served = len(times) / len(kept)
    return {"first_line_p95_ms": p95, "served": served, "goal": 300, "met": p95 <= 300 and served >= 0.99}


def main() -> None:
    """Run what was asked for."""
    names = ("decode", "warm", "cold", "batch", "idle", "replay")
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", type=lambda text: text.split(","), default=names, help=f"some of {','.join(names)}")
    parser.add_argument("--seconds", type=float, default=20.0, help="of the replay")
    asked = parser.parse_args()
    if unknown := set(asked.only) - set(names):
        parser.error(f"there is no {', '.join(sorted(unknown))}; there are {', '.join(names)}")
    if not torch.cuda.is_available():
        raise SystemExit("benchmarks.gpu needs a CUDA device, and torch sees none: run it on a machine that has one")
    from aixcoder_serving.engine.cuda.graphs import Graphs
    from aixcoder_serving.engine.cuda.ops import CudaOps

    def tell(name: str, line: Line) -> None:
        rounded = {key: round(value, 4) if isinstance(value, float) else value for key, value in line.items()}
        print(json.dumps({"bench": "gpu", "measure": name, **rounded}), flush=True)

    tell("machine", {"device": torch.cuda.get_device_name(), "torch": torch.__version__})
    rates = bandwidth()
    tell("bandwidth", {f"{name}_gb_s": rate / 1e9 for name, rate in rates.items()})
    torch.cuda.empty_cache()
    print("making weights, capturing graphs, measuring costs", file=sys.stderr)
    engine = RandomEngine(
        SHAPE, SETTINGS, CudaOps(torch.device("cuda", 0), torch.bfloat16, SETTINGS.block_size), Graphs
    )
    measures: dict[str, Callable[[], list[Line]]] = {
        "decode": lambda: [decode(engine, max(rates.values()))],
        "warm": lambda: [warm(engine)],
        "cold": lambda: [cold(engine)],
        "batch": lambda: [batch(engine)],
        "idle": lambda: [idle(engine, 1), idle(engine, 32)],
        "replay": lambda: [replay(engine, asked.seconds)],
    }
    for name in asked.only:
        print(name, file=sys.stderr)
        for line in measures[name]():
            tell(name, line)


if __name__ == "__main__":
    main()
