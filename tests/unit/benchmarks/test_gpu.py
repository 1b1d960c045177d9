"""What benchmarks.gpu measures with, on a model of a few numbers and a processor. Its figures need a GPU."""

import pytest
import torch

from aixcoder_serving.engine.interface import EngineSettings
from aixcoder_serving.engine.shape import LlamaShape
from aixcoder_serving.engine.torch_ops import TorchOps
from benchmarks import gpu
from benchmarks.random_engine import RandomEngine

SHAPE = LlamaShape(
    hidden_size=16,
    intermediate_size=24,
    layers=1,
    heads=2,
    kv_heads=1,
    head_dim=8,
    vocabulary_size=50,
    max_positions=256,
    rms_norm_eps=1e-5,
    rope_theta=10000.0,
    rope_scaling=None,
    tie_word_embeddings=False,
)


@pytest.fixture(scope="module")
def engine() -> RandomEngine:
    settings = EngineSettings(
        "random weights", "cpu", "float32", max_model_length=256, max_concurrent_sequences=8, cache_tokens=4096
    )
    return RandomEngine(SHAPE, settings, TorchOps(torch.device("cpu"), torch.float32, 16), None)


def test_decoding_steps_have_all_requests(engine: RandomEngine) -> None:
    assert len(engine.decoding(3, 40, 5)) == 5
    assert engine.core.stats().running == 3
    assert engine.core.stats().steps >= 6


def test_a_warm_prompt_is_cached(engine: RandomEngine) -> None:
    line = gpu.warm(engine, prompt_tokens=60, keys=5)
    assert engine.core.stats().prefix_hit_tokens >= 5 * 60
    assert 0 < line["p50_ms"] <= line["p95_ms"]


def test_a_cold_prompt_is_not(engine: RandomEngine) -> None:
    assert gpu.cold(engine, prompt_tokens=60, repeats=3)["p50_ms"] > 0
    assert engine.core.stats().prefix_hit_tokens < 10  # two prompts may begin alike


def test_the_share_of_bandwidth(engine: RandomEngine) -> None:
    line = gpu.decode(engine, 1e9, steps=5)
    weights = 16 * (4 * 8 + 16 + 3 * 24) + 2 * 16 + 16 + 50 * 16
    assert line["bandwidth_share"] == pytest.approx(weights * 4 / (line["step_ms"] / 1000) / 1e9)


def test_replay_serves_those_that_are_not_cancelled(engine: RandomEngine) -> None:
    line = gpu.replay(engine, 0.3, rate=60, editors=3, prompt_tokens=20)
    assert line["served"] == 1.0
    assert line["first_line_p95_ms"] > 0
    assert engine.core.stats().prefix_hit_tokens > 0
    assert not engine.core.busy


@pytest.mark.parametrize(
    ("spans", "share"),
    [
        ([(0, 10)], 0.0),
        ([(0, 4), (6, 10)], 0.2),
        ([(6, 10), (0, 4), (1, 3)], 0.2),
        ([(0, 8), (2, 3), (4, 10)], 0.0),
    ],
)
def test_idle_share(spans: list[tuple[float, float]], share: float) -> None:
    assert gpu.idle_share(spans) == pytest.approx(share)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["gpu"])
    with pytest.raises(SystemExit, match="needs a CUDA device"):
        gpu.main()
