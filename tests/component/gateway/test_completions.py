"""Completions through a real gateway with OpenAI's own client."""

import asyncio
import io
import json
import socket
import time
from typing import Any

import openai
import pytest

from aixcoder_serving.gateway.routing import View
from aixcoder_serving.gateway.server import listen
from aixcoder_serving.protocol import Sampling
from tests.component.gateway.conftest import Running, StartReplica, Table, deployment, heard, script


async def test_whole_answer(gateway: Running, table: Table, start_replica: StartReplica) -> None:
    table.serve(start_replica("a").address)
    client = await gateway.client()
    answer = await client.completions.create(model="any", prompt=script(a={"deltas": 3}), suffix="", max_tokens=9)
    assert answer.choices[0].text == "a0 a1 a2 "
    assert (answer.choices[0].finish_reason, answer.model, answer.object) == ("stop", "tiny", "text_completion")
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens, answer.usage.total_tokens) == (7, 3, 10)
    assert answer.usage.prompt_tokens_details is not None
    assert answer.usage.prompt_tokens_details.cached_tokens == 2
    assert answer._request_id == answer.id
    assert await gateway.metric("aixcoder_gateway_requests_total", model="tiny", outcome="completed") == 1
    assert await gateway.metric("aixcoder_gateway_requests_in_flight") == 0


async def test_stream(gateway: Running, table: Table, start_replica: StartReplica) -> None:
    table.serve(start_replica("a").address)
    client = await gateway.client()
    stream = await client.completions.create(
        model="any",
        prompt=script(a={"deltas": 3, "delay": 0.05}),
        stream=True,
        stream_options={"include_usage": True},
    )
    began, times, texts, reasons, usages = time.monotonic(), [], [], [], []
    async for chunk in stream:
        usages.append(chunk.usage)
        for choice in chunk.choices:
            times.append(time.monotonic() - began)
            texts.append(choice.text)
            reasons.append(choice.finish_reason)
    assert texts == ["a0 ", "a1 ", "a2 ", ""]
    assert reasons == [None, None, None, "stop"]
    assert [usage and usage.total_tokens for usage in usages] == [None, None, None, None, 10]
    assert times[0] < times[1] < times[2]  # piece by piece, not all at the end


async def test_request_reaches_the_replica_as_it_was_meant(
    gateway: Running, table: Table, start_replica: StartReplica
) -> None:
    replica = start_replica("a")
    table.serve(replica.address, completion={"maxTokens": 33, "temperature": 0.5})
    client = await gateway.client(default_headers={"x-secret": "s", "cookie": "c"})
    await client.completions.create(model="any", prompt="{}", suffix="after", temperature=0.0, stop=["\n\n"], seed=4)
    (seen,) = await replica.seen()
    body: Any = seen["body"]
    assert (body["prefix"], body["suffix"]) == ("{}", "after")
    assert Sampling.model_validate(body["sampling"]) == Sampling(max_tokens=33, seed=4, stop=("\n\n",))
    assert not {"x-secret", "cookie", "authorization"} & set(seen["headers"])


async def test_token_ids(gateway: Running, table: Table, start_replica: StartReplica) -> None:
    replica = start_replica("a")
    table.serve(replica.address)
    await (await gateway.client()).completions.create(model="any", prompt=[5, 6, 7])
    (seen,) = await replica.seen()
    assert seen["body"]["prompt_token_ids"] == [5, 6, 7]
    assert "prefix" not in seen["body"]


async def test_models(gateway: Running, table: Table) -> None:
    table.serve("127.0.0.1:1", name="tiny", engine={"maxModelLength": 2048})
    listed = (await (await gateway.client()).models.list()).data
    assert [(model.id, model.object, model.owned_by) for model in listed] == [("tiny", "model", "aixcoder")]
    assert listed[0].created == 1767225600
    assert listed[0].model_extra == {"max_model_len": 2048}


async def test_several_models(gateway: Running, table: Table, start_replica: StartReplica) -> None:
    replica = start_replica("a")
    two = [deployment("one"), deployment("two", model={"servedName": "zwei"})]
    table.view = View.of(two, {("ns", "unit"): (replica.address,)})
    client = await gateway.client()
    assert (await client.completions.create(model="zwei", prompt="{}")).model == "zwei"
    with pytest.raises(openai.NotFoundError) as caught:
        await client.completions.create(model="two", prompt="{}")
    assert caught.value.code == "model_not_found"


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        pytest.param({"prompt": "{}", "n": 0}, "`n` must be", id="by the gateway"),
        pytest.param({"prompt": script(all_={"refuse": 400})}, "refused with 400", id="by the replica"),
        pytest.param(
            {"prompt": script(all_={"fail_after": (0, 400)}), "stream": True}, "failed as told", id="after its start"
        ),
    ],
)
async def test_refused(
    gateway: Running, table: Table, start_replica: StartReplica, fields: dict[str, Any], sentence: str
) -> None:
    table.serve(start_replica("a").address)
    with pytest.raises(openai.BadRequestError, match=sentence):
        await (await gateway.client()).completions.create(model="any", **fields)


@pytest.mark.parametrize("stream", [False, True])
async def test_replica_that_fails(gateway: Running, table: Table, start_replica: StartReplica, stream: bool) -> None:
    table.serve(start_replica("a").address)
    client = await gateway.client()
    for what in ({"refuse": 500}, {"fail_after": (0, 500)}, {"nonsense_after": 0}):
        with pytest.raises(openai.InternalServerError) as caught:
            await client.completions.create(model="any", prompt=script(a=what), stream=stream)
        assert (caught.value.status_code, caught.value.code) == (502, "replica_failed")
    assert await gateway.metric("aixcoder_gateway_upstream_retries_total") == 0


async def test_no_replica(gateway: Running, table: Table) -> None:
    table.serve()
    client = await gateway.client(max_retries=2, default_headers={"x-patience-ms": "50"})  # the answer tells it not to
    bodies = set()
    for _ in range(3):
        with pytest.raises(openai.InternalServerError) as caught:
            await client.completions.create(model="any", prompt="{}")
        assert (caught.value.status_code, caught.value.code) == (503, "no_replica")
        assert caught.value.response.headers["retry-after"] == "5"
        assert caught.value.response.headers["x-should-retry"] == "false"
        bodies.add(caught.value.response.content)
    assert len(bodies) == 1
    assert await gateway.metric("aixcoder_gateway_requests_total", outcome="shed") == 3


async def test_before_the_cluster_is_known(gateway: Running, table: Table) -> None:
    async with gateway.session.get(f"{gateway.url}/readyz") as response:
        assert response.status == 503
    async with gateway.session.get(f"{gateway.internal}/routes") as response:
        assert response.status == 503
    with pytest.raises(openai.InternalServerError, match="does not know"):
        await (await gateway.client()).models.list()
    table.serve()
    async with gateway.session.get(f"{gateway.url}/readyz") as response:
        assert response.status == 200


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        pytest.param("GET", "/v1/completions", 405, "method_not_allowed", id="GET a completion"),
        pytest.param("POST", "/v1/models", 405, "method_not_allowed", id="POST models"),
        pytest.param("POST", "/v1/chat/completions", 404, "not_found", id="chat"),
        pytest.param("GET", "/routes", 404, "not_found", id="an internal page on the public port"),
        pytest.param("GET", "/metrics", 404, "not_found", id="metrics on the public port"),
    ],
)
async def test_no_such_page(gateway: Running, method: str, path: str, status: int, code: str) -> None:
    async with gateway.session.request(method, f"{gateway.url}{path}") as response:
        assert response.status == status
        assert (await response.json())["error"]["code"] == code


@pytest.mark.parametrize("chunked", [False, True])
async def test_body_limit(gateway: Running, table: Table, chunked: bool) -> None:
    table.serve()
    body = b'{"prompt": "' + b"x" * (4 * 2**20) + b'"}'

    async def pieces() -> Any:
        for at in range(0, len(body), 2**16):
            yield body[at : at + 2**16]

    async with gateway.session.post(
        f"{gateway.url}/v1/completions", data=pieces() if chunked else io.BytesIO(body)
    ) as response:
        assert response.status == 413
        assert "4 MiB" in (await response.json())["error"]["message"]


async def test_large_prompt(gateway: Running, table: Table, start_replica: StartReplica) -> None:
    replica = start_replica("a")
    table.serve(replica.address)
    await (await gateway.client()).completions.create(model="any", prompt="{}", suffix="x" * 3 * 2**20)
    (seen,) = await replica.seen()
    assert len(seen["body"]["suffix"]) == 3 * 2**20


async def test_twenty_at_once_over_two_replicas(gateway: Running, table: Table, start_replica: StartReplica) -> None:
    replicas = [start_replica("a"), start_replica("b")]
    table.serve(*(replica.address for replica in replicas))
    await heard(gateway, 2)
    client = await gateway.client()
    prompt = script(all_={"deltas": 5, "delay": 0.05})

    async def one(n: int) -> str:
        user = f"editor {n}"
        if n % 2:
            return (await client.completions.create(model="any", prompt=prompt, user=user, seed=n)).choices[0].text
        stream = await client.completions.create(model="any", prompt=prompt, user=user, seed=n, stream=True)
        return "".join([chunk.choices[0].text async for chunk in stream])

    texts = await asyncio.gather(*(one(n) for n in range(20)))
    whole = {"".join(f"{name}{n} " for n in range(5)) for name in ("a", "b")}
    assert set(texts) == whole
    # Two of its size are as good as none; above that the bound shares them out.
    assert sorted([len(await replica.seen()) for replica in replicas])[0] >= 7


async def test_routes_page(gateway: Running, table: Table) -> None:
    table.serve("10.0.0.1:30000")
    async with gateway.session.get(f"{gateway.internal}/routes") as response:
        (route,) = (await response.json())["routes"]
    assert route == {
        "namespace": "ns",
        "name": "tiny",
        "uid": "tiny",
        "served_name": "tiny",
        "traffic_version": 1,
        "endpoints": {"unit": ["10.0.0.1:30000"]},
    }


async def test_no_code_in_logs(
    gateway: Running, table: Table, start_replica: StartReplica, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    table.serve(start_replica("a").address)
    client = await gateway.client()
    await client.completions.create(model="any", prompt=script(a={}, private_code={}), suffix="private_code")
    with pytest.raises(openai.BadRequestError):
        await client.completions.create(model="any", prompt="{}", suffix="private_code", n=0)
    with pytest.raises(openai.InternalServerError):
        await client.completions.create(model="any", prompt=script(a={"nonsense_after": 1}, private_code={}))
    ours = [record for record in caplog.records if record.name.startswith(("aixcoder", "uvicorn"))]
    lines = [json.dumps([record.getMessage(), getattr(record, "fields", None)]) for record in ours]
    assert sum("cmpl-" in line for line in lines) >= 3
    for secret in ("private_code", "a0 "):
        assert not [line for line in lines if secret in line]


def test_no_piece_of_an_answer_waits_until_the_one_before_is_acknowledged() -> None:
    with listen("127.0.0.1", 0) as listener, socket.create_connection(listener.getsockname()):
        connection, _ = listener.accept()
        with connection:
            assert connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
