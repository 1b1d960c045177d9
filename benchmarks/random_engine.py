"""The engine's core on random weights, in this process: what a benchmark on a GPU drives step by step."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from aixcoder_serving.engine import cost, linear
from aixcoder_serving.engine.collectives import OneRank
from aixcoder_serving.engine.engine import EngineCore
from aixcoder_serving.engine.interface import EngineSettings, Finish, Sampling
from aixcoder_serving.engine.model import LlamaModel
from aixcoder_serving.engine.ops import Ops
from aixcoder_serving.engine.runner import Forward, Runner
from aixcoder_serving.engine.shape import LlamaShape
from aixcoder_serving.engine.weights import LayerWeights, Weights

MOST_TOKENS = 8192  # of a step, as in loading.py
LINE_END = 10  # every so many ids end a line


@dataclass
class Answer:
    """What came of a request, in seconds of the clock."""

    first: float | None = None
    finish: Finish | None = None
    ended: float = 0.0


class RandomEngine:
    """An `EngineCore`, its model and the answers so far."""

    def __init__(
        self,
        shape: LlamaShape,
        settings: EngineSettings,
        ops: Ops,
        graphed: Callable[[Forward, Tensor], Forward] | None,
    ) -> None:
        self.shape, self.settings, self.ops = shape, settings, ops
        self.weights = random_weights(shape, ops)
        length = settings.max_model_length
        model = LlamaModel(shape, ops, OneRank(), self.weights, length)
        self.blocks = (settings.cache_tokens or length) // settings.block_size
        slots = settings.max_concurrent_sequences
        self.runner = Runner(
            model,
            ops,
            OneRank(),
            vocabulary_size=shape.vocabulary_size,
            blocks=self.blocks,
            slots=slots,
            max_length=length,
            graphed=graphed,
        )
        self.most = max(min(MOST_TOKENS, length), slots)
        self.cost = cost.measure(
            self.runner.run,
            budget_ms=settings.step_budget_ms,
            most=self.most,
            max_length=length,
            block_size=settings.block_size,
        )
        self.random = random.Random(5)
        self.renew()

    def renew(self) -> None:
        """Forget all requests and what is cached."""
        self.answers: dict[int, Answer] = {}
        ends = [b"\n" if i % LINE_END == 0 else b"x" for i in range(self.shape.vocabulary_size)]
        self.core = EngineCore(
            self.settings,
            ends,
            self.runner,
            blocks=self.blocks,
            cost=self.cost,
            most_tokens=self.most,
            clock=time.monotonic,
        )

    def ids(self, count: int) -> tuple[int, ...]:
        """Random ids."""
        return tuple(self.random.choices(range(self.shape.vocabulary_size), k=count))

    def submit(self, prompt: tuple[int, ...], sampling: Sampling) -> int:
        """Queue a request; its number in `answers`."""
        number = len(self.answers)
        self.answers[number] = Answer()
        self.core.submit(number, prompt, sampling, (), "")
        return number

    def step(self) -> float:
        """One step, in seconds. Raises RuntimeError where a request failed."""
        begin = time.monotonic()
        outputs = self.core.step()
        now = time.monotonic()
        for output in outputs:
            if output.error is not None:
                raise RuntimeError(output.error)
            answer = self.answers[output.request_id]
            if output.token_ids:
                answer.first = answer.first or now
            answer.finish, answer.ended = output.finish, now
        return now - begin

    def decoding(self, requests: int, prompt: int, steps: int) -> list[float]:
        """The times of `steps` steps in which that many requests get a token each; they are left running."""
        self.renew()
        for _ in range(requests):
            self.submit(self.ids(prompt), Sampling(max_tokens=min(1000, self.settings.max_model_length - prompt)))
        while any(answer.first is None for answer in self.answers.values()):
            self.step()
        return [self.step() for _ in range(steps)]

    def first_token(self, prompt: tuple[int, ...]) -> float:
        """Seconds from submission to the first token, alone."""
        begin = time.monotonic()
        self.submit(prompt, Sampling(max_tokens=1))
        while self.core.busy:
            self.step()
        return time.monotonic() - begin


def random_weights(shape: LlamaShape, ops: Ops) -> Weights:
    """Normal ones of variance 1/columns on the device, norms of 1."""
    made: dict[tuple[int | None, str], Any] = {}
    for parameter in linear.parameters(shape, 0, 1):
        weight = torch.ones(parameter.shape, dtype=ops.dtype, device=ops.device)
        if len(parameter.shape) == 2:
            weight.normal_(std=parameter.shape[1] ** -0.5)
        made[parameter.layer, parameter.name] = ops.pack(weight) if parameter.packed else weight
    layers = (LayerWeights(**{name: made[n, name] for name in LayerWeights.__slots__}) for n in range(shape.layers))
    return Weights(made[None, "embedding"], tuple(layers), made[None, "norm"], made[None, "head"])
