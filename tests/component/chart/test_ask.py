"""The program of `helm test` against a real gateway: a completion, or a sentence that says why there is none."""

import asyncio
import hashlib
import json
import os
import sys
from pathlib import Path

from aixcoder_serving.gateway.routing import View
from tests.component.gateway.conftest import Running, StartReplica, Table, gateway, running, start_replica, table
from tests.unit.chart.render import CHART

__all__ = ["gateway", "start_replica", "table"]  # fixtures
PROGRAM = CHART / "files" / "ask_for_completion.py"
KEY = f"axk_tester_{'a' * 43}"


async def ask(url: str, **environment: str) -> tuple[int, str]:
    """Exit code and what it printed."""
    settings = {"AIXCODER_URL": url, "AIXCODER_TIMEOUT_SECONDS": "3", **environment}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", PROGRAM.read_text(),
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT, env={**os.environ, **settings},
    )  # fmt: skip
    said, _ = await process.communicate()
    assert process.returncode is not None
    return process.returncode, said.decode()


async def test_a_completion_passes(gateway: Running, table: Table, start_replica: StartReplica) -> None:
    table.serve(start_replica("a").address)
    code, said = await ask(gateway.url)
    assert code == 0, said
    assert said.startswith("tiny completed with 'a0 a1")


async def test_no_deployment_says_what_to_do(gateway: Running, table: Table) -> None:
    table.view = View.of([], {})
    code, said = await ask(gateway.url)
    assert code == 1
    assert "No model is served" in said
    assert "kubectl wait" in said


async def test_another_model_is_named(gateway: Running, table: Table, start_replica: StartReplica) -> None:
    table.serve(start_replica("a").address)
    code, said = await ask(gateway.url, AIXCODER_MODEL="other")
    assert code == 1
    assert "The model other is not served, tiny is" in said


async def test_no_gateway_is_a_sentence_and_no_traceback() -> None:
    code, said = await ask("http://127.0.0.1:1")
    assert code == 1
    assert said.startswith("No completion from http://127.0.0.1:1: ")
    assert "Traceback" not in said


async def test_a_gateway_with_keys(table: Table, start_replica: StartReplica, tmp_path: Path) -> None:
    table.serve(start_replica("a").address)
    keys = tmp_path / "keys"
    keys.mkdir()
    (keys / "tester").write_text(json.dumps({"sha256": hashlib.sha256(KEY.encode()).hexdigest()}))
    (tmp_path / "key").write_text(KEY + "\n")
    async with running(table, api_keys=keys) as guarded:
        code, said = await ask(guarded.url)
        assert code == 1
        assert "test.apiKey.existingSecret" in said
        code, said = await ask(guarded.url, AIXCODER_API_KEY_FILE=str(tmp_path / "key"))
        assert code == 0, said
