"""What a step costs beside the model's own arithmetic: planning, building tensors, choosing tokens, handing out.

    python -m benchmarks.step [--dtype float32] [--concurrency 1,8,32] [--repeats 7]

JSON lines on standard output, progress on standard error. One thread, random weights:
- `schedule`: a plan (`plan_ms`) and what follows from its results in the queues (`advance_ms`), medians and maxima over
  the steps; 32 requests decode with drafts, 100,000 blocks; goal 0.3 ms. `case`:
  `full`: slots are free, but no block: 1,000 wait, each an editor's next prompt, of which the cache has all but the
  last tokens. A plan looks at as many as are refused before it lets the rest be;
  `parked`: 200 wait for the blocks of a prompt of 4,096 tokens that is being computed, until it is;
- `step`: a decoding step at each concurrency, from one forward pass to the next in the engine's own process, and the
  share of it that is neither the forward pass nor the head's product; goal 3 %. All that the process does is in it:
  reading its socket, planning, sampling, sending outputs and counters to the client, this process. Prompts of 512
  tokens, most of them shared and cached; steps count once all prompts are computed. Prefix cache and drafts are on.
Medians over the repeats, lower quartiles as NAME_q1.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import sys
import time
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from random import Random
from statistics import median
from typing import Any

from aixcoder_serving.engine import process
from aixcoder_serving.engine.cost import Cost
from aixcoder_serving.engine.engine import EngineCore
from aixcoder_serving.engine.interface import EngineSettings, EngineStats, Sampling
from aixcoder_serving.engine.messages import Close, Loaded, NotLoaded, Start, Stepped, Submit
from aixcoder_serving.engine.model import LlamaModel
from aixcoder_serving.engine.plan import Plan, Sampled, StepResult
from aixcoder_serving.engine.watchdog import Heartbeat
from aixcoder_serving.fim.vocabulary import Vocabulary
from benchmarks.checkpoint import VOCABULARY, Dtype, random_weights
from benchmarks.summary import summarise

RUNNING, WAITING, PARKED, BLOCKS, BLOCK = 32, 1000, 200, 100_000, 16
PROMPT, OWN, LONG, STEPS = 512, 32, 4096, 40
"""Tokens of a prompt, those of them that no other has, tokens of a long prompt; steps that count."""
STEP_TOKENS = 2 * RUNNING  # the only bound of a step; those that run take half, so a long prompt takes a while
OUTPUT = 1024
A_TOKEN_A_MILLISECOND = Cost(floor=0.0, base=0.0, per_token=1.0, per_read=0.0)

Ids = tuple[int, ...]
Span = tuple[float, float]
"""When a step's forward pass began, and how long it and the head's product took, in seconds."""


class Ranks:
    """An executor that computes nothing: each slot's next token is 7."""

    def run(self, plan: Plan) -> StepResult:
        """See `Executor`."""
        return StepResult(tuple(Sampled((7,) if work.sample else ()) for work in plan.work))


class Stopwatch:
    """The milliseconds of calls."""

    def __init__(self) -> None:
        self.milliseconds = 0.0

    def around(self, call: Callable[..., Any]) -> Callable[..., Any]:
        """The same, timed."""

        def timed(*arguments: Any, **named: Any) -> Any:
            start = time.perf_counter()
            result = call(*arguments, **named)
            self.milliseconds += (time.perf_counter() - start) * 1000
            return result

        return timed

    def take(self) -> float:
        """What the calls took since the last time."""
        taken, self.milliseconds = self.milliseconds, 0.0
        return taken


class Crowd:
    """An engine's core in which `RUNNING` requests decode; its clock stands still."""

    def __init__(self, chance: Random, running_tokens: int) -> None:
        """`running_tokens`: of each, the prompt included."""
        self._engine = EngineCore(
            EngineSettings("", max_concurrent_sequences=2 * RUNNING, step_budget_ms=1000.0),
            (),
            Ranks(),
            blocks=BLOCKS,
            cost=A_TOKEN_A_MILLISECOND,
            most_tokens=STEP_TOKENS,
            clock=lambda: 0.0,
        )
        self.prompts = [random_ids(chance, PROMPT) for _ in range(RUNNING)]
        self._numbers = 0
        decoding: set[int] = set()
        self.submit(self.prompts, running_tokens - PROMPT)
        while len(decoding) < RUNNING:
            decoding |= {output.request_id for output in self._engine.step() if output.token_ids}

    def submit(self, prompts: Sequence[Ids], max_tokens: int) -> None:
        """Queue requests."""
        for prompt in prompts:
            self._engine.submit(self._numbers, prompt, Sampling(max_tokens=max_tokens), (), "")
            self._numbers += 1

    @property
    def stats(self) -> EngineStats:
        """See `EngineCore.stats`."""
        return self._engine.stats()

    def step(self) -> None:
        """One step, not timed."""
        self._engine.step()

    def times(self, steps: int) -> dict[str, float]:
        """What so many steps cost in the scheduler."""
        scheduler, plan, advance = self._engine._scheduler, Stopwatch(), Stopwatch()
        for name, watch in (("plan", plan), ("advance", advance)):
            setattr(scheduler, name, watch.around(getattr(scheduler, name)))
        plans, advances = [], []
        for _ in range(steps):
            self._engine.step()
            plans.append(plan.take())
            advances.append(advance.take())
        return {
            "plan_ms": median(plans),
            "plan_ms_max": max(plans),
            "advance_ms": median(advances),
            "advance_ms_max": max(advances),
        }


def random_ids(chance: Random, count: int) -> Ids:
    """Ids of a prompt, or of a part of one."""
    return tuple(chance.randrange(VOCABULARY) for _ in range(count))


def full(chance: Random) -> dict[str, float]:
    """The scheduler's milliseconds where the running requests have reserved all blocks."""
    crowd = Crowd(chance, BLOCKS // RUNNING * BLOCK)
    crowd.submit([(*crowd.prompts[n % RUNNING][:-3], *random_ids(chance, 3)) for n in range(WAITING)], OUTPUT)
    return crowd.times(STEPS)


def parked(chance: Random) -> dict[str, float]:
    """The scheduler's milliseconds while others wait for a long prompt's blocks, and in the steps after that."""
    crowd = Crowd(chance, PROMPT + 2 * OUTPUT)
    long = random_ids(chance, LONG)
    crowd.submit([long], OUTPUT)
    crowd.step()
    crowd.submit([(*long[:-OWN], *random_ids(chance, OWN)) for _ in range(PARKED)], OUTPUT)
    return crowd.times(LONG // (STEP_TOKENS - RUNNING) + STEPS)


def serve(client: Connection, report: Connection) -> None:
    """The engine's process as it always is, but for a look at the clock; reports the `Span` of each step."""
    spans: list[list[float]] = []
    forward, logits = LlamaModel.forward, LlamaModel.logits

    def timed_forward(*arguments: Any) -> Any:
        start = time.monotonic()
        spans.append([start, 0.0])
        result = forward(*arguments)
        spans[-1][1] += time.monotonic() - start
        return result

    def timed_logits(*arguments: Any) -> Any:
        start = time.monotonic()
        result = logits(*arguments)
        spans[-1][1] += time.monotonic() - start
        return result

    for name, timed in (("forward", timed_forward), ("logits", timed_logits)):
        setattr(LlamaModel, name, timed)
    heartbeat = Heartbeat()
    process.main(os.dup(client.fileno()), heartbeat.fd)
    report.send(spans)


def window(engine: Connection, start: Start, prompts: Sequence[Ids]) -> tuple[float, float]:
    """Have an engine load and decode all; begin and end of `STEPS` steps in which it did nothing else."""

    def outputs() -> set[int]:
        stepped = engine.recv()
        if not isinstance(stepped, Stepped) or any(output.error for output in stepped.outputs):
            raise RuntimeError(f"the engine said {stepped}")
        return {output.request_id for output in stepped.outputs if output.token_ids}

    engine.send(start)
    while not isinstance(message := engine.recv(), Loaded):
        if isinstance(message, NotLoaded):
            raise RuntimeError(message.message)
    decoding: set[int] = set()
    for number, prompt in enumerate(prompts):
        engine.send(Submit(number, prompt, Sampling(max_tokens=OUTPUT, ignore_eos=True), (), ""))
        while not decoding:  # the first one computes what all share
            decoding |= outputs()
    while len(decoding) < len(prompts):
        decoding |= outputs()
    begin = time.monotonic()
    for _ in range(STEPS):
        outputs()
    end = time.monotonic()
    engine.send(Close())
    return begin, end


def shares(spans: Sequence[Span], begin: float, end: float) -> dict[str, float]:
    """Milliseconds of a step and of the forward pass in it, of the steps that began in a time."""
    within = [span for span in spans if begin <= span[0] < end]
    seconds, forward = within[-1][0] - within[0][0], sum(span[1] for span in within[:-1])
    return {
        "step_ms": seconds / (len(within) - 1) * 1000,
        "forward_ms": forward / (len(within) - 1) * 1000,
        "other_percent": (1 - forward / seconds) * 100,
    }


def decode(chance: Random, dtype: Dtype, concurrency: int) -> dict[str, float]:
    """See `shares`, of so many requests that decode."""
    model = str(random_weights(dtype))
    length = PROMPT + OUTPUT
    settings = EngineSettings(
        model,
        device="cpu",
        dtype=dtype,
        max_model_length=length,
        max_concurrent_sequences=concurrency,
        cache_tokens=concurrency * length,
        threads=1,
    )
    context = multiprocessing.get_context("spawn")
    engine, its_end = context.Pipe()
    reports, its_report = context.Pipe(duplex=False)
    server = context.Process(target=serve, args=(its_end, its_report), daemon=True)
    server.start()
    its_end.close()
    its_report.close()
    common = random_ids(chance, PROMPT - OWN)
    prompts = [(*common, *random_ids(chance, OWN)) for _ in range(concurrency)]
    try:
        begin, end = window(engine, Start(settings, tuple(Vocabulary.load(model).token_bytes), 1), prompts)
        return shares(reports.recv(), begin, end)
    finally:
        server.kill()
        server.join()


def main() -> None:
    """Print the lines."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--concurrency", default="1,8,32")
    parser.add_argument("--repeats", type=int, default=7)
    options = parser.parse_args()
    chance = Random(1)
    crowd = {"bench": "schedule", "running": RUNNING, "blocks": BLOCKS}
    _tell({**crowd, "case": "full", "waiting": WAITING}, lambda: full(chance), options.repeats)
    _tell({**crowd, "case": "parked", "waiting": PARKED}, lambda: parked(chance), options.repeats)
    for concurrency in (int(each) for each in options.concurrency.split(",")):

        def run(at: int = concurrency) -> dict[str, float]:
            return decode(chance, options.dtype, at)

        _tell({"bench": "step", "dtype": options.dtype, "concurrency": concurrency}, run, options.repeats)


def _tell(line: dict[str, Any], measure: Callable[[], dict[str, float]], count: int) -> None:
    repeats = []
    for n in range(count):
        repeats.append(measure())
        print(f"{line} {n + 1}/{count}: {repeats[-1]}", file=sys.stderr, flush=True)
    print(json.dumps({**line, **summarise(repeats)}), flush=True)


if __name__ == "__main__":
    main()
