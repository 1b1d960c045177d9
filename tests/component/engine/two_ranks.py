"""An engine of two rank processes in which an allocation of one rank, told as the argument, fails in a step.

Runs as a program of one thread, which a test process is not. Prints what its requests got.
"""

import json
import mmap
import pickle
import sys
import time
from pathlib import Path
from typing import Any

from torch import Tensor

from aixcoder_serving.engine.cost import Cost
from aixcoder_serving.engine.engine import EngineCore
from aixcoder_serving.engine.interface import EngineSettings, Sampling
from aixcoder_serving.engine.model import LlamaModel
from aixcoder_serving.engine.ops import Batch
from aixcoder_serving.engine.process import GroupExecutor, Load, RankServer
from aixcoder_serving.engine.ranks import Rank, RankGroup

TINY = Path(__file__).parents[3] / "models" / "tiny"
PROMPTS = [tuple(range(300, 340)), tuple(range(600, 650))]
WISH = Sampling(max_tokens=8)


class Requests:
    """What each one got, by its number; those that ended by a fault have its sentence."""

    def __init__(self, core: EngineCore) -> None:
        self._core = core
        self.ids: dict[int, list[int]] = {}
        self.errors: dict[int, str] = {}

    def submit(self, prompt: tuple[int, ...]) -> int:
        number = len(self.ids)
        self.ids[number] = []
        self._core.submit(number, prompt, WISH, (), "")
        return number

    def step(self) -> None:
        for output in self._core.step():
            self.ids[output.request_id] += output.token_ids
            if output.error is not None:
                self.errors[output.request_id] = output.error
        self._core.check_integrity()

    def complete(self, prompt: tuple[int, ...]) -> list[int]:
        number = self.submit(prompt)
        while self._core.busy:
            self.step()
        return self.ids[number]


def main(who: int) -> None:
    fails, forward = mmap.mmap(-1, 1), LlamaModel.forward  # shared with the other rank

    def failing(model: LlamaModel, batch: Batch, caches: Any) -> Tensor:
        if fails[0] and model._collectives.rank == who:
            raise MemoryError
        return forward(model, batch, caches)

    LlamaModel.forward = failing  # type: ignore[method-assign, assignment]

    def other(rank: Rank) -> None:
        rank.serve(RankServer(rank.collectives).serve)

    settings = EngineSettings(
        str(TINY),
        device="cpu",
        dtype="float32",
        tensor_parallel_size=2,
        max_model_length=512,
        max_concurrent_sequences=2,
        cache_tokens=1024,
    )
    group = RankGroup.fork(2, other)
    server, load = RankServer(group.collectives), Load(settings, "")
    blocks = group.run(pickle.dumps(load), lambda: server.load(load), patient=True)
    executor, cost = GroupExecutor(group, server), Cost(floor=1.0, base=1.0, per_token=0.1, per_read=0.0)
    core = EngineCore(settings, (), executor, blocks=blocks, cost=cost, most_tokens=256, clock=time.monotonic)
    requests = Requests(core)
    expected = [requests.complete(prompt) for prompt in PROMPTS]
    hit = [requests.submit(prompt) for prompt in PROMPTS]
    requests.step()
    fails[0] = 1
    requests.step()
    fails[0] = 0
    used = core.stats().blocks_used
    after = [requests.complete(prompt) for prompt in PROMPTS]
    group.close()
    errors = [requests.errors.get(number) for number in hit]
    print(json.dumps({"errors": errors, "used": used, "same": after == expected, "failure": core.failure}))


if __name__ == "__main__":
    main(int(sys.argv[1]))
