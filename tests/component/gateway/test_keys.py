"""API keys from a mounted Secret, seen by a client."""

import hashlib
import json
from collections.abc import Awaitable, Callable
from pathlib import Path

import openai
import pytest

from tests.component.gateway.conftest import Running, StartReplica, Table, eventually, running

FIRST, SECOND = f"axk_first_{'a' * 43}", f"axk_second_{'b' * 43}"


def store(directory: Path, key: str) -> None:
    record = {"sha256": hashlib.sha256(key.encode()).hexdigest()}
    (directory / key.split("_")[1]).write_text(json.dumps(record))


async def listing(gateway: Running, key: str) -> Callable[[], Awaitable[bool]]:
    client = await gateway.client(api_key=key)

    async def allowed() -> bool:
        try:
            await client.models.list()
        except openai.AuthenticationError:
            return False
        return True

    return allowed


async def test_keys(
    table: Table, start_replica: StartReplica, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    table.serve(start_replica("a").address)
    store(tmp_path, FIRST)
    async with running(table, api_keys=tmp_path) as gateway:
        good, bad = await gateway.client(api_key=FIRST), await gateway.client(api_key=SECOND)
        assert (await good.completions.create(model="any", prompt="{}")).choices[0].text == "a0 a1 a2 "
        with pytest.raises(openai.AuthenticationError) as caught:
            await bad.completions.create(model="any", prompt="{}")
        assert caught.value.code == "invalid_api_key"
        assert caught.value.response.headers["www-authenticate"] == "Bearer"
        with pytest.raises(openai.AuthenticationError):
            await bad.models.list()
        async with gateway.session.get(f"{gateway.url}/healthz") as response:
            assert response.status == 200  # a probe has no key

        store(tmp_path, SECOND)
        await eventually(await listing(gateway, SECOND), 20)
        (tmp_path / "first").unlink()
        allowed = await listing(gateway, FIRST)

        async def refused() -> bool:
            return not await allowed()

        await eventually(refused, 20)
    lines = [record.fields for record in caplog.records if hasattr(record, "fields")]
    assert {(line["key"], line["outcome"]) for line in lines} == {("first", "completed"), (None, "invalid_api_key")}
    assert FIRST not in caplog.text


async def test_a_key_for_some_models(table: Table, start_replica: StartReplica, tmp_path: Path) -> None:
    table.serve(start_replica("a").address, name="mine")
    for key, models in ((FIRST, ["mine"]), (SECOND, ["another"])):
        record = {"sha256": hashlib.sha256(key.encode()).hexdigest(), "models": models}
        (tmp_path / key.split("_")[1]).write_text(json.dumps(record))
    async with running(table, api_keys=tmp_path) as gateway:
        mine, another = await gateway.client(api_key=FIRST), await gateway.client(api_key=SECOND)
        assert [model.id async for model in mine.models.list()] == ["mine"]
        assert [model.id async for model in another.models.list()] == []
        assert (await mine.completions.create(model="mine", prompt="{}")).choices[0].text == "a0 a1 a2 "
        # One deployment alone answers to any name, but not to any key.
        with pytest.raises(openai.PermissionDeniedError) as caught:
            await another.completions.create(model="another", prompt="{}")
        assert (caught.value.code, caught.value.param) == ("model_not_allowed", "model")


async def test_a_key_with_tokens_for_one_request_a_minute(
    table: Table, start_replica: StartReplica, tmp_path: Path
) -> None:
    table.serve(start_replica("a").address)
    record = {"sha256": hashlib.sha256(FIRST.encode()).hexdigest(), "tokensPerMinute": 9}
    (tmp_path / "first").write_text(json.dumps(record))
    async with running(table, api_keys=tmp_path) as gateway:
        client = await gateway.client(api_key=FIRST)
        # Seven tokens of prompt and three of completion, however many had been expected.
        await client.completions.create(model="any", prompt="{}", max_tokens=200)
        with pytest.raises(openai.RateLimitError) as caught:
            await client.completions.create(model="any", prompt="{}", max_tokens=200)
        assert caught.value.code == "over_limit"
        assert 1 <= int(caught.value.response.headers["retry-after"]) <= 7
