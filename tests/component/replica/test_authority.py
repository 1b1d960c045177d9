"""Who has the token completes and listens to the load; anybody may see how a replica is."""

import asyncio
from pathlib import Path

import aiohttp
import pytest

from tests.component.replica.conftest import ONE_LOOP, PREFIX, settings, start

pytestmark = ONE_LOOP

TOKEN = "f" * 64


async def test_without_the_token_nothing_is_completed_and_no_load_told(
    client: aiohttp.ClientSession, tmp_path: Path
) -> None:
    (tmp_path / "token").write_text(TOKEN)
    replica = await start(settings(token_file=str(tmp_path / "token")), client)
    try:
        await replica.service.loaded()
        body = {"id": "test", "prefix": PREFIX, "sampling": {"max_tokens": 2}}
        for given in (None, "", "Bearer ", f"Bearer {TOKEN[1:]}", f"bearer {TOKEN}", TOKEN):
            headers = {} if given is None else {"Authorization": given}
            async with client.post(f"{replica.url}/generate", json=body, headers=headers) as answer:
                assert answer.status == 401
                assert TOKEN not in await answer.text()
            async with client.get(f"{replica.url}/events", headers=headers) as answer:
                assert answer.status == 401
        for page in ("/ready", "/stats", "/metrics"):
            async with client.get(replica.url + page) as answer:
                assert answer.status == 200
        assert replica.service.engine_stats().submitted == 0
        ours = {"Authorization": f"Bearer {TOKEN}"}
        async with client.post(f"{replica.url}/generate", json=body, headers=ours) as answer:
            assert answer.status == 200
            assert b"finished" in await answer.read()
        async with client.get(f"{replica.url}/events", headers=ours) as answer:
            assert b"slots" in await asyncio.wait_for(anext(aiter(answer.content)), 5)
    finally:
        await replica.stop()


async def test_a_token_that_is_not_there_is_told_at_the_start(client: aiohttp.ClientSession, tmp_path: Path) -> None:
    with pytest.raises(OSError, match="token"):
        await start(settings(token_file=str(tmp_path / "token")), client)
    (tmp_path / "token").write_text("\n")
    with pytest.raises(ValueError, match="is empty: it has to hold the token"):
        await start(settings(token_file=str(tmp_path / "token")), client)
