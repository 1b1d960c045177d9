"""What a step costs beside the model's own arithmetic: planning, building tensors, choosing tokens, handing out.

    python -m benchmarks.step [--dtype float32] [--concurrency 1,8,32] [--repeats 7]

JSON lines on standard output. Everything in this process, one thread, random weights, prompts of 512 tokens:
- `schedule`: one plan with 32 requests running, 1,000 waiting (all of them looked at: they have waited long or are
  shorter than what runs) and 100,000 blocks; goal 0.3 ms;
- `step`: a decoding step at each concurrency, and the share of it that is not the forward pass and the head's product;
  goal 3 %.
Medians over the repeats, lower quartiles as NAME_q1.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from random import Random
from typing import Any

import torch

from aixcoder_serving.engine import checkpoint, weights
from aixcoder_serving.engine.collectives import OneRank
from aixcoder_serving.engine.cost import Cost
from aixcoder_serving.engine.cpu.ops import cpu_ops
from aixcoder_serving.engine.engine import EngineCore
from aixcoder_serving.engine.interface import EngineSettings, Sampling
from aixcoder_serving.engine.model import LlamaModel
from aixcoder_serving.engine.plan import Plan, Sampled, StepResult
from aixcoder_serving.engine.runner import Runner
from benchmarks.checkpoint import VOCABULARY, Dtype, random_weights
from benchmarks.summary import summarise

RUNNING, WAITING, BLOCKS = 32, 1000, 100_000
PROMPT, STEPS = 512, 40
A_TOKEN_A_MILLISECOND = Cost(floor=0.0, base=0.0, per_token=1.0, per_read=0.0)


class Ranks:
    """An executor that computes nothing: each slot's next token is 7."""

    def run(self, plan: Plan) -> StepResult:
        """See `Executor`."""
        return StepResult(tuple(Sampled((7,) if work.sample else ()) for work in plan.work))


class Timed:
    """An executor over one rank that adds up the time of the model's own arithmetic."""

    def __init__(self, runner: Runner, model: LlamaModel) -> None:
        self._runner = runner
        self.forward_seconds = 0.0
        for name in ("forward", "logits"):
            setattr(model, name, self._timed(getattr(model, name)))

    def run(self, plan: Plan) -> StepResult:
        """See `Executor`."""
        return self._runner.run(plan)

    def _timed(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*arguments: Any, **named: Any) -> Any:
            start = time.perf_counter()
            result = call(*arguments, **named)
            self.forward_seconds += time.perf_counter() - start
            return result

        return timed


def schedule(chance: Random) -> dict[str, float]:
    """Milliseconds of one plan in a crowd."""
    settings = EngineSettings("", max_concurrent_sequences=RUNNING)
    engine = EngineCore(
        settings, (), Ranks(), blocks=BLOCKS, cost=A_TOKEN_A_MILLISECOND, most_tokens=1024, clock=time.monotonic
    )
    for number in range(RUNNING + WAITING):
        prompt = tuple(chance.randrange(VOCABULARY) for _ in range(PROMPT))
        engine.submit(number, prompt, Sampling(max_tokens=2000), (), "")
    while engine.stats().running < RUNNING or engine.stats().tokens_decoded < 3 * RUNNING:
        engine.step()
    times = []
    for _ in range(STEPS):
        start = time.perf_counter()
        plan = engine._scheduler.plan(time.monotonic())
        times.append((time.perf_counter() - start) * 1000)
        assert plan is not None
        for work in plan.work:
            engine._scheduler.advance(engine._scheduler.running[work.slot], work, 0, (7,))
    return {"plan_ms": sorted(times)[len(times) // 2], "plan_ms_max": max(times)}


def steps(chance: Random, dtype: Dtype, concurrency: int) -> dict[str, float]:
    """Milliseconds of a decoding step and of the forward pass in it."""
    found = checkpoint.inspect(str(random_weights(dtype)))
    ops, one = cpu_ops(torch.device("cpu"), getattr(torch, dtype), 16), OneRank()
    model = LlamaModel(found.shape, ops, one, weights.load(found, ops, 0, 1), 1024)
    blocks = concurrency * 1024 // 16
    runner = Runner(
        model, ops, one, vocabulary_size=found.vocabulary_size, blocks=blocks, slots=concurrency, max_length=1024
    )
    timed = Timed(runner, model)
    settings = EngineSettings(
        "", max_concurrent_sequences=concurrency, prefix_caching=False, drafting=False, step_budget_ms=1024
    )
    engine = EngineCore(
        settings, (), timed, blocks=blocks, cost=A_TOKEN_A_MILLISECOND, most_tokens=1024, clock=time.monotonic
    )
    for number in range(concurrency):
        prompt = tuple(chance.randrange(VOCABULARY) for _ in range(PROMPT))
        engine.submit(number, prompt, Sampling(max_tokens=400), (), "")
    while engine.stats().tokens_decoded < 3 * concurrency:
        engine.step()
    timed.forward_seconds, start = 0.0, time.perf_counter()
    for _ in range(STEPS):
        engine.step()
    seconds = time.perf_counter() - start
    return {
        "step_ms": seconds / STEPS * 1000,
        "forward_ms": timed.forward_seconds / STEPS * 1000,
        "other_percent": (1 - timed.forward_seconds / seconds) * 100,
    }


def main() -> None:
    """Print the lines."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--concurrency", default="1,8,32")
    parser.add_argument("--repeats", type=int, default=7)
    options = parser.parse_args()
    torch.set_num_threads(1)
    chance = Random(1)
    _tell({"bench": "schedule", "running": RUNNING, "waiting": WAITING, "blocks": BLOCKS}, schedule, options, chance)
    for concurrency in (int(each) for each in options.concurrency.split(",")):

        def run(chance: Random, at: int = concurrency) -> dict[str, float]:
            return steps(chance, options.dtype, at)

        _tell({"bench": "step", "dtype": options.dtype, "concurrency": concurrency}, run, options, chance)


def _tell(
    line: dict[str, Any], measure: Callable[[Random], dict[str, float]], options: argparse.Namespace, chance: Random
) -> None:
    repeats = []
    for n in range(options.repeats):
        repeats.append(measure(chance))
        print(f"{line} {n + 1}/{options.repeats}: {repeats[-1]}", file=sys.stderr, flush=True)
    print(json.dumps({**line, **summarise(repeats)}), flush=True)


if __name__ == "__main__":
    main()
