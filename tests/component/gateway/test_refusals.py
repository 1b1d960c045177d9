"""A refusal has the same body each time, byte for byte: editors show each distinct text as a new pop-up."""

import asyncio
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.component.gateway.conftest import (
    Running,
    StartReplica,
    Table,
    ask,
    eventually,
    heard,
    new_key,
    running,
    script,
)

OPENAI: tuple[str, dict[str, Any]] = ("/v1/completions", {"prompt": "def f"})
LLAMA_CPP: tuple[str, dict[str, Any]] = ("/infill", {"input_prefix": "def f"})
IN_BOTH_DIALECTS = pytest.mark.parametrize(("path", "body"), [OPENAI, LLAMA_CPP], ids=["openai", "llama.cpp"])


async def refusals(
    gateway: Running, path: str, body: dict[str, Any], headers: dict[str, str]
) -> Counter[tuple[int, bytes]]:
    """Status and body of the answers to a hundred requests that differ; all but 401 say when to come again."""
    found: Counter[tuple[int, bytes]] = Counter()
    for seed in range(100):
        async with gateway.session.post(f"{gateway.url}{path}", json=body | {"seed": seed}, headers=headers) as answer:
            if answer.status != 401:
                assert int(answer.headers["retry-after"]) >= 1
                assert answer.headers["x-should-retry"] == "false"
            found[answer.status, await answer.read()] += 1
    return found


@IN_BOTH_DIALECTS
async def test_without_a_replica(gateway: Running, table: Table, path: str, body: dict[str, Any]) -> None:
    table.serve()
    found = await refusals(gateway, path, body, {"x-patience-ms": "5"})
    assert [(status, b"No replica" in text, count) for (status, text), count in found.items()] == [(503, True, 100)]


@IN_BOTH_DIALECTS
async def test_where_all_replicas_are_busy(
    gateway: Running, table: Table, start_replica: StartReplica, path: str, body: dict[str, Any]
) -> None:
    replica = start_replica("a", slots=1)
    table.serve(replica.address)
    await heard(gateway, 1)
    busy = asyncio.create_task(ask(gateway, script(a={"deltas": 1, "delay": 60})))
    await eventually(replica.seen)
    found = await refusals(gateway, path, body, {"x-patience-ms": "5"})
    busy.cancel()
    await asyncio.gather(busy, return_exceptions=True)
    assert [(status, b"busy" in text, count) for (status, text), count in found.items()] == [(503, True, 100)]


@IN_BOTH_DIALECTS
async def test_over_the_keys_own_limit(table: Table, tmp_path: Path, path: str, body: dict[str, Any]) -> None:
    headers = {"authorization": f"Bearer {new_key(tmp_path, 'a', requestsPerMinute=1)}"}
    async with running(table, api_keys=tmp_path) as gateway:
        async with gateway.session.post(f"{gateway.url}{path}", json=body, headers=headers) as first:
            assert first.status == 503  # no replica, and counted all the same
        found = await refusals(gateway, path, body, headers)
    assert [(status, b"over its limit" in text, count) for (status, text), count in found.items()] == [(429, True, 100)]


@IN_BOTH_DIALECTS
async def test_without_a_key(table: Table, tmp_path: Path, path: str, body: dict[str, Any]) -> None:
    async with running(table, api_keys=tmp_path) as gateway:
        found = await refusals(gateway, path, body, {})
    assert [(status, b"valid API key" in text, count) for (status, text), count in found.items()] == [(401, True, 100)]


async def test_by_the_connection(gateway: Running) -> None:
    """Before the path is known: plain text, the headers too."""
    found: Counter[tuple[int, bytes, tuple[tuple[str, str], ...]]] = Counter()
    for number in range(100):
        headers = {"x-note": f"{number} {'x' * 20_000}"}
        async with gateway.session.get(f"{gateway.url}/v1/models", headers=headers) as answer:
            found[answer.status, await answer.read(), tuple(answer.headers.items())] += 1
    assert [(status, text, count) for (status, text, _), count in found.items()] == [
        (431, b"The headers are too large.", 100)
    ]
