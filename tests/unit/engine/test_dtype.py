import time

import pytest
import torch

from aixcoder_serving.engine import dtype


@pytest.mark.parametrize(
    ("device", "checkpoint", "bfloat16_seconds", "cuda_bfloat16", "expected"),
    [
        pytest.param("cpu", "bfloat16", 1.0, False, "bfloat16", id="cpu: bfloat16 is the faster one"),
        pytest.param("cpu", "bfloat16", 2.0, False, "bfloat16", id="cpu: as fast, and half the memory"),
        pytest.param("cpu", "bfloat16", 2.1, False, "float32", id="cpu: bfloat16 is the slower one"),
        pytest.param("cpu", "float16", 1.0, False, "bfloat16", id="cpu: float16 is not for it"),
        pytest.param("cpu", "float16", 3.0, False, "float32", id="cpu: nor is bfloat16"),
        pytest.param("cpu", "float32", 1.0, False, "float32", id="cpu: never fewer bits than there are"),
        pytest.param("cpu", None, 1.0, False, "float32", id="cpu: nothing is said"),
        pytest.param("cpu", "int8", 1.0, False, "float32", id="cpu: something else is said"),
        pytest.param("cuda", "bfloat16", 9.0, True, "bfloat16", id="cuda"),
        pytest.param("cuda", "bfloat16", 9.0, False, "float16", id="cuda: without bfloat16"),
        pytest.param("cuda", "float16", 9.0, False, "float16", id="cuda: float16"),
        pytest.param("cuda", "float32", 9.0, True, "float32", id="cuda: float32"),
    ],
)
def test_choose(
    monkeypatch: pytest.MonkeyPatch,
    device: str,
    checkpoint: str | None,
    bfloat16_seconds: float,
    cuda_bfloat16: bool,
    expected: str,
) -> None:
    seconds = {torch.bfloat16: bfloat16_seconds, torch.float32: 2.0}
    monkeypatch.setattr(dtype, "product_seconds", lambda *dtypes: [seconds[each] for each in dtypes])
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: cuda_bfloat16)
    assert dtype.choose(device, checkpoint) == expected


def test_the_products_take_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    """One run of each to warm up, then three turns; the best counts."""
    now, calls = 0.0, []
    takes = {"a": iter([9.0, 5.0, 2.0, 3.0]), "b": iter([9.0, 1.0, 7.0, 7.0])}

    class Slow:
        def __init__(self, name: str) -> None:
            self.name = name

        def pack(self, weight: torch.Tensor) -> str:
            return self.name

        def linear(self, x: torch.Tensor, weight: str) -> None:
            nonlocal now
            calls.append(weight)
            now += next(takes[weight])

    names = {torch.float32: "a", torch.bfloat16: "b"}
    monkeypatch.setattr(dtype, "cpu_ops", lambda _device, wanted, _block: Slow(names[wanted]))
    monkeypatch.setattr(time, "perf_counter", lambda: now)
    assert dtype.product_seconds(torch.float32, torch.bfloat16) == [2.0, 1.0]
    assert calls == ["a", "b"] * 4
