"""The engine's core over one real rank in this process: deterministic, step by step, quick to make."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from aixcoder_serving.engine import checkpoint, weights
from aixcoder_serving.engine.collectives import OneRank
from aixcoder_serving.engine.cost import Cost
from aixcoder_serving.engine.engine import EngineCore
from aixcoder_serving.engine.interface import EngineSettings, Finish, Sampling, TokenLogprobs
from aixcoder_serving.engine.messages import Output
from aixcoder_serving.engine.model import LlamaModel
from aixcoder_serving.engine.ops import Ops
from aixcoder_serving.engine.plan import Plan, StepResult
from aixcoder_serving.engine.runner import Runner

MILLISECOND_A_TOKEN = Cost(floor=32.0, base=0.0, per_token=1.0, per_read=0.0)
"""So that a budget of n milliseconds is n tokens a step."""


@dataclass
class Answer:
    """What one request got so far; `deltas` are the token counts as they came."""

    ids: list[int] = field(default_factory=list)
    deltas: list[int] = field(default_factory=list)
    held: list[int] = field(default_factory=list)
    logprobs: list[TokenLogprobs] = field(default_factory=list)
    prompt_logprobs: list[TokenLogprobs] = field(default_factory=list)
    finish: Finish | None = None
    error: str | None = None


class Core:
    """An `EngineCore` with its model. `tokens_a_step` bounds the prompt tokens of one step."""

    def __init__(
        self,
        model_path: str,
        ops: Ops,
        token_bytes: Sequence[bytes] = (),
        *,
        tokens_a_step: int = 256,
        blocks: int = 1024,
        slots: int = 8,
        length: int = 2048,
        **options: Any,
    ) -> None:
        found = checkpoint.inspect(model_path)
        one = OneRank()
        model = LlamaModel(found.shape, ops, one, weights.load(found, ops, 0, 1), length)
        self.runner = Runner(
            model, ops, one, vocabulary_size=found.vocabulary_size, blocks=blocks, slots=slots, max_length=length
        )
        self.plans: list[Plan] = []
        settings = EngineSettings(
            model_path,
            max_concurrent_sequences=slots,
            max_model_length=length,
            step_budget_ms=tokens_a_step,
            **options,
        )
        self.now = 0.0
        self.engine = EngineCore(
            settings,
            token_bytes,
            self,
            blocks=blocks,
            cost=MILLISECOND_A_TOKEN,
            most_tokens=tokens_a_step,
            clock=lambda: self.now,
        )
        self.answers: dict[int, Answer] = {}
        self._numbers = itertools.count()

    def run(self, plan: Plan) -> StepResult:
        """Be the engine's executor."""
        self.plans.append(plan)
        return self.runner.run(plan)

    @property
    def computed(self) -> int:
        """Query tokens so far."""
        return sum(work.count for plan in self.plans for work in plan.work)

    def submit(self, prompt: Sequence[int], sampling: Sampling, *, draft: Sequence[int] = (), salt: str = "") -> Answer:
        number = next(self._numbers)
        self.answers[number] = Answer()
        self._take(self.engine.submit(number, tuple(prompt), sampling, tuple(draft), salt))
        return self.answers[number]

    def cancel(self, answer: Answer) -> None:
        number = next(n for n, each in self.answers.items() if each is answer)
        self._take(self.engine.cancel(number))

    def step(self) -> None:
        self._take(self.engine.step())
        self.now += 0.01
        self.engine.check_integrity()

    def finish(self) -> int:
        """Step until nothing is left; the number of steps."""
        steps = 0
        while self.engine.busy:
            self.step()
            steps += 1
        return steps

    def complete(self, prompt: Sequence[int], sampling: Sampling, **more: Any) -> Answer:
        answer = self.submit(prompt, sampling, **more)
        self.finish()
        return answer

    def _take(self, outputs: Sequence[Output]) -> None:
        for output in outputs:
            answer = self.answers[output.request_id]
            answer.ids += output.token_ids
            answer.deltas.append(len(output.token_ids))
            answer.held.append(output.held_bytes)
            answer.logprobs += output.logprobs
            answer.prompt_logprobs += output.prompt_logprobs
            answer.finish, answer.error = output.finish, output.error


def torch_ops() -> Ops:
    from aixcoder_serving.engine.torch_ops import TorchOps

    return TorchOps(torch.device("cpu"), torch.float32, 16)


def native_ops() -> Ops:
    from aixcoder_serving.engine.cpu.ops import CpuOps

    return CpuOps(torch.device("cpu"), torch.float32, 16)
