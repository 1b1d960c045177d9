"""An engine over simulated ranks, for tests: what is asked, and what each request got."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from aixcoder_serving.engine.cost import Cost
from aixcoder_serving.engine.engine import EngineCore
from aixcoder_serving.engine.interface import EngineSettings, Finish, Sampling
from aixcoder_serving.engine.messages import Output
from aixcoder_serving.engine.stops import Ending
from tests.unit.engine.simulated_ranks import VOCABULARY, SimulatedRanks, completion

LINEAR = Cost(floor=1.0, base=0.5, per_token=0.1, per_read=0.0)
BYTES = tuple(bytes([97 + i]) for i in range(VOCABULARY))


@dataclass
class Answer:
    ids: list[int] = field(default_factory=list)
    finish: Finish | None = None
    error: str | None = None
    waited_ms: float | None = None


class Bench:
    """An engine over simulated ranks with a clock of its own: 10 ms a step."""

    def __init__(
        self,
        blocks: int = 64,
        slots: int = 4,
        budget_ms: float = 5.0,
        token_bytes: Sequence[bytes] = BYTES,
        cost: Cost = LINEAR,
        most_tokens: int = 64,
        **options: Any,
    ) -> None:
        settings = EngineSettings(
            "", max_concurrent_sequences=slots, block_size=16, step_budget_ms=budget_ms, **options
        )
        self.now = 0.0
        self.ranks = SimulatedRanks(blocks, settings.block_size, slots)
        self.engine = EngineCore(
            settings,
            token_bytes,
            self.ranks,
            blocks=blocks,
            cost=cost,
            most_tokens=most_tokens,
            clock=lambda: self.now,
        )
        self.answers: dict[int, Answer] = {}

    def submit(
        self, prompt: Sequence[int], max_tokens: int = 8, *, draft: Sequence[int] = (), salt: str = "", **sampling: Any
    ) -> int:
        number = len(self.answers)
        self.answers[number] = Answer()
        wish = Sampling(max_tokens=max_tokens, seed=sampling.pop("seed", 0), **sampling)
        self.take(self.engine.submit(number, tuple(prompt), wish, tuple(draft), salt))
        return number

    def cancel(self, number: int) -> None:
        self.take(self.engine.cancel(number))

    def step(self) -> None:
        self.take(self.engine.step())
        self.now += 0.01
        self.engine.check_integrity()

    def run(self, most: int = 10_000) -> int:
        """Step until nothing is left; the number of steps."""
        steps = 0
        while self.engine.busy:
            self.step()
            steps += 1
            assert steps < most, "the engine does not come to an end"
        return steps

    def take(self, outputs: Sequence[Output]) -> None:
        for output in outputs:
            answer = self.answers[output.request_id]
            assert answer.finish is None, "nothing comes after the end"
            assert answer.error is None, "nothing comes after the end"
            assert (answer.waited_ms is None) or (output.waited_ms is None), "it is told once"
            answer.waited_ms = output.waited_ms if answer.waited_ms is None else answer.waited_ms
            assert answer.waited_ms is not None or not output.token_ids, "it is told with the first token at the latest"
            answer.ids += output.token_ids
            answer.finish, answer.error = output.finish, output.error


def alone(prompt: Sequence[int], sampling: Sampling, token_bytes: Sequence[bytes] = BYTES) -> tuple[list[int], Finish]:
    """What a request gets with no other one there, no cache and no draft."""
    ending = Ending(sampling, token_bytes)
    tokens = completion(
        prompt, sampling.seed or 0, sampling.max_tokens, stop_ids=sampling.stop_ids, min_tokens=sampling.min_tokens
    )
    for count, token in enumerate(tokens, 1):
        verdict = ending.push(token, 0)
        if verdict is not None:
            return tokens[:count], Finish(verdict.reason, count, verdict.trim_bytes)
    raise AssertionError("max_tokens ends it")


def ids(length: int, start: int = 0) -> list[int]:
    return [(start + i * i) % VOCABULARY for i in range(length)]
