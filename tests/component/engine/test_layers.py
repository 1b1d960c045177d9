"""Layers as one call each give the bits that they have operation by operation."""

from pathlib import Path

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from aixcoder_serving.engine.cpu.ops import CpuOps
from tests.component.engine.conftest import TINY, Prompt
from tests.component.engine.test_model import BLOCK, CONFIG, CPU, Model
from tests.unit.engine.ops_cases import VARIANTS


class OneByOne(CpuOps):
    """The same operations, called one by one."""

    def layers(self, *_model: object) -> None:  # type: ignore[override]
        pass


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_bits_are_the_same(prompts: list[Prompt], dtype: torch.dtype, variant: str) -> None:
    """One sequence decodes, one is verified, one prefills with fewer rows of logits than tokens, or none."""
    whole, single = (
        Model(TINY, lambda wanted, ops=ops: ops(CPU, wanted, BLOCK, variant=variant), 1, dtype)  # type: ignore[misc]
        for ops in (CpuOps, OneByOne)
    )
    first, second, third = (list(prompt) for prompt in prompts[:3])
    for work in (
        [(0, first, len(first), 0)],
        [(0, [*first, 9], 1, 1)],
        [(0, [*first, 9, 5, 6], 2, 2), (1, second, len(second), 1), (2, third[:50], 50, 0)],
        [(0, [*first, 9, 5, 6, 7], 1, 1), (1, [*second, 3, 4], 2, 2), (2, third[:58], 8, 8)],
    ):
        assert torch.equal(whole.step(work), single.step(work))
    assert whole.beats == single.beats


@pytest.mark.parametrize(
    "changes", [{}, {"num_hidden_layers": 1}, {"intermediate_size": 200}, {"num_key_value_heads": 8, "hidden_size": 24}]
)
def test_of_any_shape(tmp_path: Path, changes: dict[str, int]) -> None:
    torch.manual_seed(3)
    LlamaForCausalLM(LlamaConfig(**{**CONFIG, **changes})).save_pretrained(tmp_path)
    whole, single = (Model(tmp_path, lambda dtype, ops=ops: ops(CPU, dtype, BLOCK)) for ops in (CpuOps, OneByOne))  # type: ignore[misc]
    ids = torch.randint(0, CONFIG["vocab_size"], (40,)).tolist()
    for work in ([(0, ids, 40, 40)], [(1, ids[:30], 30, 1)], [(1, ids, 10, 10), (0, [*ids, 1], 1, 1)]):
        assert torch.equal(whole.step(work), single.step(work))
