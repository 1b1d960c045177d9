"""A replica over real HTTP, without Ray."""

import asyncio
import io
import shutil
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from prometheus_client.parser import text_string_to_metric_families
from transformers import AutoTokenizer

from aixcoder_serving.protocol import Delta, Failed, Finished, Started
from tests.component.replica.conftest import (
    LONG,
    ONE_LOOP,
    PREFIX,
    SUFFIX,
    TINY,
    Replica,
    finished,
    ids_of,
    settings,
    start,
    text_of,
)

pytestmark = ONE_LOOP


async def test_a_completion(shared: Replica) -> None:
    messages = await shared.generate(prefix=PREFIX, suffix=SUFFIX, path="queue.py", sampling={"max_tokens": 24})
    started, end = messages[0], finished(messages)
    assert isinstance(started, Started)
    assert all(isinstance(message, Delta) for message in messages[1:-1])
    assert len(messages) > 5, "it streams"
    assert text_of(messages).startswith("        return len(self.queue)\n")
    assert (started.truncated, end.prompt_tokens) == (False, started.prompt_tokens)
    assert end.completion_tokens == len(ids_of(messages))
    tokenizer = AutoTokenizer.from_pretrained(TINY)
    assert text_of(messages) == tokenizer.decode(ids_of(messages), skip_special_tokens=True)


async def test_the_model_stops_by_itself(shared: Replica) -> None:
    suffix = "\n    def _put(self, item):\n        heappush(self.queue, item)\n"
    messages = await shared.generate(prefix=PREFIX, suffix=suffix, sampling={"max_tokens": 200})
    assert finished(messages).finish_reason == "stop"
    assert ids_of(messages)[-1] == 2
    assert "</s>" not in text_of(messages)


async def test_token_ids_run_as_they_are(shared: Replica) -> None:
    as_text = await shared.generate(prefix=PREFIX, sampling={"max_tokens": 8})
    started = as_text[0]
    assert isinstance(started, Started)
    ids = AutoTokenizer.from_pretrained(TINY).encode(f"<s>{PREFIX}", add_special_tokens=False)
    assert started.prompt_tokens == len(ids)
    as_ids = await shared.generate(prompt_token_ids=ids, sampling={"max_tokens": 8})
    told = [message.begun and message.begun.cached_tokens for message in as_ids if isinstance(message, Delta)]
    assert (told[0], set(told[1:])) == (len(ids) - 1, {None}), "the second prompt is the first one"
    assert finished(as_ids).cached_tokens == len(ids) - 1
    assert (text_of(as_ids), ids_of(as_ids)) == (text_of(as_text), ids_of(as_text))


async def test_the_rest_of_the_line_is_not_shown(shared: Replica) -> None:
    """An editor closed the bracket: the model, not told of it, closes it too."""
    request = {"prefix": PREFIX + "        return len(", "sampling": {"max_tokens": 40}}
    messages = await shared.generate(suffix=")" + SUFFIX, post_process=True, **request)
    assert text_of(messages) == "self.queue"
    assert finished(messages).finish_reason == "stop"
    as_it_is = await shared.generate(suffix=SUFFIX.removeprefix("\n"), **request)
    assert text_of(as_it_is).startswith("self.queue)\n")
    assert messages[0] == as_it_is[0], "one prompt"


async def test_a_stop_string_is_not_shown(shared: Replica) -> None:
    free = text_of(await shared.generate(prefix=PREFIX, suffix=SUFFIX, sampling={"max_tokens": 12}))
    assert "(self" in free
    messages = await shared.generate(
        prefix=PREFIX, suffix=SUFFIX, sampling={"max_tokens": 12, "stop": ["(self", "nothing like it"]}
    )
    assert text_of(messages) == free[: free.index("(self")]
    assert finished(messages).finish_reason == "stop"


async def test_long_context_is_cut_and_said(shared: Replica) -> None:
    messages = await shared.generate(prefix="x = 1\n" * 3000, suffix="y = 2\n" * 3000, sampling={"max_tokens": 4})
    started = messages[0]
    assert isinstance(started, Started)
    assert started.truncated
    # The prefix begins at an anchor: up to a quarter of its window, and the sixteenth for its last line, stay free.
    assert 1600 < started.prompt_tokens <= 2044


async def test_nothing_asked_for(shared: Replica) -> None:
    messages = await shared.generate(prefix="x", sampling={"max_tokens": 0})
    assert [type(message) for message in messages] == [Started, Finished]


@pytest.mark.parametrize(
    ("request_", "status", "param", "message"),
    [
        ({}, 400, None, "exactly one of prefix and prompt_token_ids"),
        ({"prefix": "secret", "prompt_token_ids": [1]}, 400, None, "exactly one of"),
        ({"prefix": "secret", "sampling": {"temperature": 9}}, 400, "sampling.temperature", "less than or equal to 2"),
        ({"prefix": "secret", "sampling": {"stop": ["", "x"]}}, 400, "sampling.stop.0", "at least 1 character"),
        ({"prefix": "secret", "sampling": {"max_tokens": 5000}}, 400, "max_tokens", "max_tokens 5000 of 2048"),
        ({"prefix": "secret", "version": 2}, 400, "version", "in version 2 of the protocol, this replica speaks 1"),
        ({"sonnet": "secret", "version": 0}, 400, "version", "in version 0 of the protocol, this replica speaks 1"),
        ({"prompt_token_ids": []}, 400, "prompt", "the prompt is empty"),
        ({"prompt_token_ids": [1, 99999]}, 400, "prompt", "token id 99999"),
        ({"prompt_token_ids": [-1]}, 400, "prompt_token_ids.0", "greater than or equal to 0"),
        ({"prompt_token_ids": [1] * 2048}, 400, "prompt", "more than the 2048"),
        ({"prompt_token_ids": [1] * 2000}, 400, "max_tokens", "2000 prompt tokens and max_tokens 256"),
    ],
)
async def test_refusals(
    shared: Replica, request_: dict[str, Any], status: int, param: str | None, message: str
) -> None:
    async with shared.post(**request_) as answer:
        body = await answer.json()
    assert answer.status == status
    assert message in body["message"]
    assert "secret" not in str(body)
    assert body.get("param") == param
    assert (await shared.stats())["running"] == 0


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("POST", "/generate", b"{not json", 400),
        ("POST", "/generate", b"\xff\xfe", 400),
        ("POST", "/generate", b" " * (16 * 1024 * 1024 + 1), 413),
        ("GET", "/generate", None, 405),
        ("DELETE", "/ready", None, 405),
        ("GET", "/nothing", None, 404),
    ],
)
async def test_what_is_no_request(shared: Replica, method: str, path: str, body: bytes | None, status: int) -> None:
    data = None if body is None else io.BytesIO(body)
    async with shared.client.request(method, shared.url + path, data=data) as answer:
        assert answer.status == status
        assert (await answer.json())["message"]


async def test_ready_and_stats(shared: Replica) -> None:
    assert await shared.get("/ready") == (200, {"phase": "ready", "percent": 100, "message": ""})
    before = await shared.stats()
    # The model does not stop by itself here, and nobody else's prompt is of use.
    await shared.generate(prompt_token_ids=[1, 1500], sampling={"max_tokens": 3}, cache_salt="for this test alone")
    after = await shared.stats()
    counts = {name: after[name] - before[name] for name in after if isinstance(after[name], int)}
    assert (after["load_percent"], after["slots"]) == (100, 2)
    assert after["prefill_ms_per_token"] > 0
    assert after["decode_ms_per_request"] >= after["prefill_ms_per_token"], "a token, its row and what it reads"
    assert (after["running"], after["waiting"], after["blocks_used"]) == (0, 0, 0)
    assert (counts["completed"], counts["cancelled"], counts["failed"]) == (1, 0, 0)
    assert (counts["tokens_prefilled"], counts["tokens_decoded"]) == (2, 3)
    assert (counts["prefix_query_tokens"], counts["prefix_hit_tokens"]) == (2, 0)
    assert counts["steps"] == sum(after["step_seconds"]) - sum(before["step_seconds"]) > 0
    assert after["step_seconds_sum"] > before["step_seconds_sum"]


async def test_metrics(shared: Replica) -> None:
    await shared.generate(prefix="x", sampling={"max_tokens": 2})
    async with shared.client.get(f"{shared.url}/metrics") as answer:
        assert answer.status == 200
        assert answer.content_type == "text/plain"
        page = await answer.text()
    found = {sample.name: sample.value for family in text_string_to_metric_families(page) for sample in family.samples}
    stats = await shared.stats()
    assert found["vllm:request_success_total"] == stats["completed"] > 0
    assert found["vllm:generation_tokens_total"] == stats["tokens_decoded"] > 0
    assert found["aixcoder_step_seconds_count"] == stats["steps"]
    assert found["aixcoder_load_percent"] == 100


@pytest.mark.parametrize("others", [0, 1])
async def test_a_client_that_goes_away_frees_the_slot(shared: Replica, others: int) -> None:
    before = await shared.stats()
    more = [asyncio.create_task(shared.generate(**LONG)) for _ in range(others)]
    await shared.until("/stats", running=others)
    answer = await shared.post(**LONG)
    async for _ in answer.content:
        break
    await shared.until("/stats", running=others + 1)
    answer.close()
    stats = await shared.until("/stats", cancelled=before["cancelled"] + 1)
    assert (stats["running"], stats["waiting"]) == (others, 0)
    for other in more:
        other.cancel()
    await asyncio.gather(*more, return_exceptions=True)
    cancelled = before["cancelled"] + 1 + others
    await shared.until("/stats", running=0, waiting=0, cancelled=cancelled, completed=before["completed"])


async def test_a_close_mid_body_is_no_request(shared: Replica) -> None:
    _reader, writer = await asyncio.open_connection("127.0.0.1", shared.listener.port)
    writer.write(b"POST /generate HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")
    await writer.drain()
    writer.close()
    await writer.wait_closed()
    assert (await shared.generate(prefix="x", sampling={"max_tokens": 1}))[-1].type == "finished"
    await asyncio.wait_for(shared.service.idle.wait(), 5)


async def test_loading_is_told_and_answered(client: aiohttp.ClientSession) -> None:
    replica = await start(settings(), client)
    status, body = await replica.get("/ready")
    assert status == 503
    assert body["phase"] in ("starting", "loading")
    async with replica.post(prefix="x") as answer:
        assert answer.status == 503
        assert "not ready" in (await answer.json())["message"]
    await replica.service.loaded()
    assert (await replica.get("/ready"))[0] == 200
    await replica.stop()


@pytest.mark.parametrize(
    ("spoil", "reason", "message"),
    [
        ("folder", "ModelNotFound", "is not a folder"),
        ("weights", "ModelNotFound", "holds no weights"),
        ("tokenizer", "ModelInvalid", "tokenizer.json is not there"),
        ("sentinel", "ModelInvalid", "AIX-SPAN-PRE"),
        ("vocabulary", "ModelInvalid", "do not belong together"),
        ("cuda", "DeviceNotFound", "CUDA device"),
    ],
)
async def test_a_failure_is_told(
    tmp_path: Path, client: aiohttp.ClientSession, spoil: str, reason: str, message: str
) -> None:
    model = shutil.copytree(TINY, tmp_path / "model")
    changes: dict[str, Any] = {"model_path": str(model)}
    match spoil:
        case "folder":
            shutil.rmtree(model)
        case "weights":
            (model / "model.safetensors").unlink()
        case "tokenizer":
            (model / "tokenizer.json").unlink()
        case "sentinel":
            file = model / "tokenizer.json"
            file.write_text(file.read_text().replace("AIX-SPAN-PRE", "AIX-SPAN-BEFORE"))
        case "vocabulary":
            config = model / "config.json"
            config.write_text(config.read_text().replace('"vocab_size": 2048', '"vocab_size": 2000'))
        case "cuda":
            changes |= {"device": "cuda", "dtype": "bfloat16"}
    replica = await start(settings(**changes), client)
    await replica.until("/ready", phase="failed")
    status, body = await replica.get("/ready")
    print(body)
    assert (status, body["phase"], body["reason"]) == (503, "failed", reason)
    assert message in body["message"]
    assert replica.service.unhealthy(60) is None
    trouble = replica.service.unhealthy(0)
    assert trouble is not None
    assert trouble.startswith(reason)
    await replica.stop()


async def test_shutting_down_says_so_in_the_stream(replica: Replica) -> None:
    answer = await replica.post(**LONG)
    await answer.content.readline()
    await replica.service.close()
    lines = [line async for line in answer.content]
    failed = Failed.model_validate_json(lines[-1])
    assert failed.status == 503
    async with replica.post(prefix="x") as refused:
        assert refused.status == 503
