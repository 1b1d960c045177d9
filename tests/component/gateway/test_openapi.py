"""The OpenAPI document is what the gateway does: bodies made from it are served or refused with a sentence."""

import asyncio
import json
import logging
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.component.gateway.conftest import Running, StartReplica, Table


async def test_it_names_every_page(gateway: Running) -> None:
    async with gateway.session.get(f"{gateway.url}/openapi.json") as response:
        document = await response.json()
    assert document["openapi"] == "3.1.0"
    assert set(document["paths"]) == {"/v1/completions", "/infill", "/v1/models", "/health", "/healthz", "/readyz"}
    fields = document["components"]["schemas"]["CompletionBody"]["properties"]
    assert {"prompt", "suffix", "n", "best_of", "echo", "logprobs", "seed", "stop", "stream", "user"} <= set(fields)


scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats()
    | st.text(max_size=20)
    | st.sampled_from(["", "a", "\x00", "\ud7ff", "😀", "true", "0"])
)
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
)


def bodies(fields: list[str]) -> st.SearchStrategy[dict[str, Any]]:
    """Any of the fields with anything in them; half of them after one that can be served."""
    base = st.sampled_from([{}, {"prompt": "a"}, {"prompt": "a", "input_prefix": "a"}])
    return st.builds(lambda one, two: two | one, base, st.dictionaries(st.sampled_from(fields), values, max_size=4))


OPENAI = ["prompt", "suffix", "max_tokens", "temperature", "top_p", "n", "best_of", "echo", "logprobs", "seed", "stop",
          "stream", "stream_options", "user", "presence_penalty", "logit_bias", "model", "ignore_eos"]  # fmt: skip
INFILL = ["input_prefix", "input_suffix", "input_extra", "prompt", "n_predict", "n_indent", "t_max_predict_ms",
          "temperature", "top_k", "top_p", "min_p", "seed", "stop", "stream", "repeat_penalty"]  # fmt: skip


@pytest.mark.parametrize(("path", "fields"), [("/v1/completions", OPENAI), ("/infill", INFILL)])
async def test_any_body_is_served_or_refused_with_a_sentence(
    gateway: Running, table: Table, start_replica: StartReplica, path: str, fields: list[str]
) -> None:
    table.serve(start_replica("a").address)
    found: list[dict[str, Any]] = []

    @settings(max_examples=150, database=None, deadline=None, suppress_health_check=list(HealthCheck))
    @given(bodies(fields))
    def collect(body: dict[str, Any]) -> None:
        found.append(body)

    collect()
    statuses: dict[int, int] = {}
    for body in found:
        async with aiohttp.ClientSession() as session:
            data = json.dumps(body).encode(errors="surrogatepass")
            async with session.post(f"{gateway.url}{path}", data=data) as response:
                answer = await response.read()
        statuses[response.status] = statuses.get(response.status, 0) + 1
        assert response.status in (200, 400), (body, answer)
        if response.status == 400:
            assert json.loads(answer)["error"]["message"]
    print(statuses)
    assert len(statuses) == 2


SCHEMATHESIS = """
[cache]
enabled = false

[phases.coverage.extra-data-sources]
responses = false

[phases.fuzzing.extra-data-sources]
responses = false

[checks.not_a_server_error]
expected-statuses = ["2xx", "3xx", "4xx", 503]  # patience is among what is varied

# Clients may send numbers and flags as text.
[checks.negative_data_rejection]
enabled = false

# No schema says what fields mean together, such as that `best_of` is no less than `n`.
[[operations]]
include-path = "/v1/completions"
phases.fuzzing.checks.positive_data_acceptance.enabled = false
"""


@pytest.mark.parametrize("examples", [50, pytest.param(2000, marks=pytest.mark.long, id="two thousand")])
async def test_answers_are_as_the_document_says(
    gateway: Running,
    table: Table,
    start_replica: StartReplica,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    examples: int,
) -> None:
    """What is asked is the same each time: all limits of each field, and so many requests to each page."""
    caplog.set_level("INFO")
    table.serve(start_replica("a").address)
    (tmp_path / "schemathesis.toml").write_text(SCHEMATHESIS)
    command = (
        *(sys.executable, "-m", "schemathesis.cli", "run", f"{gateway.url}/openapi.json", "--no-color"),
        *("--phases", "coverage,fuzzing", "--generation-deterministic", "--max-examples", str(examples)),
    )
    process = await asyncio.create_subprocess_exec(
        *command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, cwd=tmp_path
    )
    try:
        output, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    lines = [record.fields for record in caplog.records if hasattr(record, "fields")]
    found = Counter((line["dialect"], line["status"]) for line in lines)
    print(f"{dict(found)}; {output.decode().strip().splitlines()[-1].strip('= ')}")
    assert process.returncode == 0, output.decode()
    assert min(found[dialect, status] for dialect in ("openai", "llama.cpp") for status in (200, 400)) > 50
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []
