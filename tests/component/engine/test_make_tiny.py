"""The script beside the tiny model still makes one like it."""

import asyncio
import json
import subprocess
import sys
from pathlib import Path

from aixcoder_serving.engine.interface import Sampling
from aixcoder_serving.fim.prompt import build
from aixcoder_serving.fim.vocabulary import Vocabulary
from tests.component.engine.conftest import TINY, MakeEngine, complete


async def test_a_few_seconds_of_training_make_a_model_that_runs(tmp_path: Path, make_engine: MakeEngine) -> None:
    script = [sys.executable, str(TINY.parent / "make_tiny.py"), "--out", str(tmp_path)]
    await asyncio.to_thread(subprocess.run, [*script, "--minutes", "0.03", "--threads", "1"], check=True, timeout=250)
    vocabulary, committed = Vocabulary.load(tmp_path), Vocabulary.load(TINY)
    assert vocabulary.stop_ids == committed.stop_ids
    assert vocabulary.special_ids == committed.special_ids
    for name in ("config.json", "tokenizer_config.json"):
        assert json.loads((tmp_path / name).read_text()) == json.loads((TINY / name).read_text())
    engine = make_engine(model_path=str(tmp_path))
    prompt = build(vocabulary, prefix="def f(x):\n    ", suffix="\n", room=50)
    outcome = await complete(engine, prompt.ids, Sampling(max_tokens=4))
    engine.close()
    assert len(outcome.ids) == 4
