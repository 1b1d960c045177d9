"""A decoding step in the engine's own process, on the tiny model."""

import random

import pytest

from benchmarks import step
from benchmarks.checkpoint import TINY


def test_the_engines_process_tells_what_its_steps_cost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(step, "random_weights", lambda _: TINY)
    monkeypatch.setattr(step, "VOCABULARY", 300)
    found = step.decode(random.Random(1), "float32", 2)
    assert 0 < found["forward_ms"] < found["step_ms"]
    assert 0 < found["other_percent"] < 100
