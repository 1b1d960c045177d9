import math
from typing import Any

import pytest
import torch

from aixcoder_serving.engine.interface import Sampling
from aixcoder_serving.engine.penalties import add_bias, ban, penalise
from aixcoder_serving.engine.vocabulary import Slice
from tests.unit.engine.slices import cut

LOGITS = [2.0, -2.0, 0.5, 0.0, -1.0]


@pytest.mark.parametrize(
    ("penalties", "prompt", "completion", "expected"),
    [
        pytest.param({}, [0, 1], [2], LOGITS, id="none"),
        pytest.param({"repetition_penalty": 2.0}, [0, 1], [2, 2], [1.0, -4.0, 0.25, 0.0, -1.0], id="repetition: both"),
        pytest.param({"repetition_penalty": 0.5}, [0, 1], [], [4.0, -1.0, 0.5, 0.0, -1.0], id="repetition: a reward"),
        pytest.param({"frequency_penalty": 0.5}, [0, 0], [2, 2, 1], [2.0, -2.5, -0.5, 0.0, -1.0], id="frequency"),
        pytest.param({"frequency_penalty": -1.0}, [], [4, 4, 4], [2.0, -2.0, 0.5, 0.0, 2.0], id="frequency: a reward"),
        pytest.param({"presence_penalty": 0.5}, [0, 0], [2, 2, 1], [2.0, -2.5, 0.0, 0.0, -1.0], id="presence"),
        pytest.param({"presence_penalty": 2.0, "frequency_penalty": 2.0}, [0, 1], [], LOGITS, id="prompt only"),
        pytest.param(
            {"repetition_penalty": 2.0, "frequency_penalty": 0.5, "presence_penalty": 1.0},
            [0],
            [2, 2],
            [1.0, -2.0, -1.75, 0.0, -1.0],
            id="repetition before the others",
        ),
    ],
)
@pytest.mark.parametrize("size", [1, 2, 5, 8])
def test_penalties(
    penalties: dict[str, Any], prompt: list[int], completion: list[int], expected: list[float], size: int
) -> None:
    found: list[float] = []
    for part in cut(len(LOGITS), size):
        x = torch.tensor(LOGITS[part.first : part.first + part.rows])
        penalise(x, torch.tensor(prompt + completion, dtype=torch.int64), len(prompt), Sampling(**penalties), part)
        found += x.tolist()
    assert found == pytest.approx(expected)


def test_a_banned_id_stays_banned() -> None:
    x = torch.tensor([1.0, -math.inf])
    penalise(x, torch.tensor([1, 1]), 1, Sampling(repetition_penalty=0.5, presence_penalty=-2.0), Slice(0, 2, 2))
    assert x.tolist() == [1.0, -math.inf]


@pytest.mark.parametrize("size", [1, 2, 5, 8])
def test_bias_and_ban_hit_the_slice_that_has_the_id(size: int) -> None:
    found: list[float] = []
    for part in cut(len(LOGITS), size):
        x = torch.tensor(LOGITS[part.first : part.first + part.rows])
        add_bias(x, ((4, 3.0), (0, -1.5)), part)
        ban(x, frozenset({2, 4, 700}), part)
        found += x.tolist()
    assert found == [0.5, -2.0, -math.inf, 0.0, -math.inf]
