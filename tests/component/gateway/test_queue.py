"""What waits in a gateway: bounds, order, and where it goes."""

import asyncio
import contextlib
import json
import signal
import socket
import time
from collections import Counter, defaultdict
from typing import Any

import aiohttp
import openai
import pytest

from aixcoder_serving.gateway import connection
from tests.component.gateway.conftest import (
    Running,
    StartReplica,
    Table,
    ask,
    eventually,
    heard,
    load,
    new_key,
    running,
    script,
)


async def test_a_replica_gets_no_more_than_it_runs(gateway: Running, table: Table, start_replica: StartReplica) -> None:
    replica = start_replica("a", slots=2)
    table.serve(replica.address)
    await heard(gateway, 1)
    prompt = script(a={"deltas": 3, "delay": 0.03})
    answers = await asyncio.gather(*(ask(gateway, prompt, seed=n) for n in range(8)))
    assert [status for status, _ in answers] == [200] * 8
    figures = await replica.figures()
    assert (figures["most"], figures["refused"], figures["active"]) == (2, 0, 0)
    counters = (await load(gateway)).deployments[0].counters
    assert counters.completed == counters.arrivals
    assert counters.slot_ms > 8 * 3 * 30


async def test_without_replicas_it_is_held_and_answered_when_one_comes(
    gateway: Running, table: Table, start_replica: StartReplica
) -> None:
    table.serve()
    held = asyncio.create_task(ask(gateway, script(all_={"deltas": 1})))

    async def latched() -> bool:
        page = await load(gateway)
        return bool(page.deployments) and page.deployments[0].counters.wakes == 1

    await eventually(latched)
    assert (await load(gateway)).deployments[0].waiting == 1
    table.serve(start_replica("a").address)
    status, body = await held
    assert (status, body["choices"][0]["text"]) == (200, "a0 ")


async def test_a_held_client_that_leaves_is_counted(gateway: Running, table: Table) -> None:
    table.serve()
    held = asyncio.create_task(ask(gateway, "{}"))
    await asyncio.sleep(0.1)
    held.cancel()

    async def counted() -> bool:
        return (await load(gateway)).deployments[0].counters.cancelled_waiting == 1

    await eventually(counted)
    assert (await load(gateway)).deployments[0].waiting == 0


async def test_the_next_key_supersedes_the_one_that_waits(
    gateway: Running, table: Table, start_replica: StartReplica
) -> None:
    replica = start_replica("a", slots=1)
    table.serve(replica.address)
    await heard(gateway, 1)
    me = {"x-editor-session": "me"}
    running_one = asyncio.create_task(ask(gateway, script(a={"deltas": 10, "delay": 0.05}), me, suffix="s"))
    await asyncio.sleep(0.15)
    old = asyncio.create_task(ask(gateway, "def f", me, suffix="s"))
    await asyncio.sleep(0.05)
    body = {"prompt": "def fo", "suffix": "s"}
    async with gateway.session.post(f"{gateway.url}/v1/completions", json=body, headers=me) as response:
        assert response.status == 200
        assert "x-aixcoder-outcome" not in response.headers
    status, answer = await old
    assert (status, answer["choices"][0]["text"], answer["choices"][0]["finish_reason"]) == (200, "", "stop")
    assert (await running_one)[1]["choices"][0]["text"].startswith("a0 a1")
    assert await gateway.metric("aixcoder_gateway_requests_total", outcome="superseded") == 1


async def test_a_batch_of_one_editor_is_answered_whole(
    gateway: Running, table: Table, start_replica: StartReplica
) -> None:
    """One of its prompts goes on with the other, and they wait for each other's place."""
    replica = start_replica("a", slots=1)
    table.serve(replica.address)
    await heard(gateway, 1)
    body = {"prompt": ["def f", "def fo"], "max_tokens": 3, "user": "me"}
    async with gateway.session.post(f"{gateway.url}/v1/completions", json=body) as response:
        answer = await response.json()
        assert (response.status, response.headers.get("x-aixcoder-outcome")) == (200, None)
    assert all(choice["text"] for choice in answer["choices"])


async def test_samples_of_which_one_runs_are_not_superseded(
    gateway: Running, table: Table, start_replica: StartReplica
) -> None:
    table.serve(start_replica("a", slots=1).address)
    await heard(gateway, 1)
    me = {"x-editor-session": "me"}
    prompt = script(all_={"deltas": 5, "delay": 0.05})
    both = asyncio.create_task(ask(gateway, prompt, me, n=2, temperature=0.8))
    await asyncio.sleep(0.15)
    status, _ = await ask(gateway, prompt + " ", me)
    assert status == 200
    status, answer = await both
    assert status == 200
    assert [choice["text"] for choice in answer["choices"]] == ["a0 a1 a2 a3 a4 "] * 2


async def test_identical_requests_run_once(gateway: Running, table: Table, start_replica: StartReplica) -> None:
    replica = start_replica("a")
    table.serve(replica.address)
    prompt = script(a={"deltas": 3, "delay": 0.05})
    answers = await asyncio.gather(*(ask(gateway, prompt) for _ in range(3)))
    assert [body["choices"][0]["text"] for _, body in answers] == ["a0 a1 a2 "] * 3
    assert len({body["id"] for _, body in answers}) == 3
    assert len(await replica.seen()) == 1


async def test_a_frozen_replica_is_noticed_by_its_silence(
    gateway: Running, table: Table, start_replica: StartReplica
) -> None:
    frozen, good = start_replica("frozen"), start_replica("good")
    table.prefer(frozen.address, good.address)
    prompt = script(all_={"deltas": 6, "delay": 0.1})
    await ask(gateway, script(all_={"deltas": 1}))
    stream = await (await gateway.client()).completions.create(model="any", prompt=prompt, stream=True)
    chunks = aiter(stream)
    texts = [(await anext(chunks)).choices[0].text]
    frozen.process.send_signal(signal.SIGSTOP)
    began = time.monotonic()
    try:
        texts += [chunk.choices[0].text async for chunk in chunks]
    finally:
        frozen.process.send_signal(signal.SIGCONT)
    print(f"went on elsewhere after {time.monotonic() - began:.2f} s")
    # It goes on behind the tokens that came before, so that the client sees one completion.
    assert [text.split("0")[0][-1:] or text for text in texts]
    assert "".join(texts).replace("frozen", "").replace("good", "") == "0 1 2 3 4 5 "
    assert "good5 " in texts


async def test_a_request_that_replicas_die_with_is_refused(
    gateway: Running, table: Table, start_replica: StartReplica
) -> None:
    table.serve(*(start_replica(name).address for name in ("a", "b", "c")))
    poison = script(all_={"die_after": 0})
    client = await gateway.client()
    with pytest.raises(openai.InternalServerError, match="went away"):
        await client.completions.create(model="any", prompt=poison)
    with pytest.raises(openai.UnprocessableEntityError) as caught:
        await client.completions.create(model="any", prompt=poison)
    assert caught.value.code == "suspected_poison"
    assert (await client.completions.create(model="any", prompt="{}")).choices[0].text.endswith("2 ")


async def test_it_is_though_connections_to_them_were_kept(
    gateway: Running, table: Table, start_replica: StartReplica
) -> None:
    """They die before they answer: a kept connection that breaks then may just have been an old one."""
    replicas = [start_replica(name) for name in "abcde"]
    table.serve(*(replica.address for replica in replicas))
    await heard(gateway, len(replicas))
    for n in range(40):
        assert (await ask(gateway, "{}", {"x-editor-session": str(n)}))[0] == 200
    poison = script(all_={"die": True})
    statuses = [(await ask(gateway, poison))[0] for _ in range(3)]
    assert statuses == [502, 422, 422]

    async def two_died() -> bool:  # a process closes its connections before it can be waited for
        return [replica.process.poll() is None for replica in replicas].count(False) == 2

    await eventually(two_died)


async def test_the_keys_own_limit(table: Table, start_replica: StartReplica, tmp_path: Any) -> None:
    key = new_key(tmp_path, "a", concurrentRequests=1)
    table.serve(start_replica("a").address)
    async with running(table, api_keys=tmp_path) as gateway:
        headers = {"authorization": f"Bearer {key}"}
        slow = asyncio.create_task(ask(gateway, script(a={"deltas": 5, "delay": 0.05}), headers))
        await asyncio.sleep(0.1)
        async with gateway.session.post(
            f"{gateway.url}/v1/completions", json={"prompt": "{}"}, headers=headers
        ) as response:
            assert response.status == 429
            assert (response.headers["retry-after"], response.headers["x-should-retry"]) == ("1", "false")
            assert (await response.json())["error"]["type"] == "rate_limit_error"
        assert (await slow)[0] == 200


async def test_infill(gateway: Running, table: Table, start_replica: StartReplica) -> None:
    replica = start_replica("a")
    table.serve(replica.address)
    body = {
        "input_prefix": script(a={"deltas": 2}),
        "input_suffix": "after",
        "input_extra": [{"filename": "b.py", "text": "x = 1"}],
        "n_predict": 16,
        "n_indent": 4,
        "t_max_predict_ms": 500,
    }
    async with gateway.session.post(f"{gateway.url}/infill", json=body) as response:
        answer = await response.json()
    assert (answer["content"], answer["stop"], answer["tokens_cached"]) == ("a0 a1 ", True, 2)
    (seen,) = await replica.seen()
    assert (seen["body"]["suffix"], seen["body"]["context"]) == ("after", [{"path": "b.py", "text": "x = 1"}])
    assert (seen["body"]["sampling"]["n_indent"], seen["body"]["sampling"]["max_predict_ms"]) == (4, 500.0)
    async with gateway.session.post(f"{gateway.url}/infill", json=body | {"stream": True}) as response:
        events = [json.loads(line[6:]) for line in (await response.text()).split("\n\n") if line]
    assert "".join(event["content"] for event in events) == "a0 a1 "
    assert events[-1]["stop"] is True


async def test_a_warm_up_is_no_work(gateway: Running, table: Table, start_replica: StartReplica) -> None:
    replica = start_replica("a")
    table.serve(replica.address)
    body = {"input_prefix": "", "input_suffix": "", "input_extra": [{"text": "x"}], "n_predict": 0}
    async with gateway.session.post(f"{gateway.url}/infill", json=body) as response:
        assert (response.status, (await response.json())["content"]) == (200, "")
    assert await replica.seen() == []


async def test_health_of_llama_cpp(gateway: Running, table: Table) -> None:
    async with gateway.session.get(f"{gateway.url}/health") as response:
        assert response.status == 503
    table.serve()
    async with gateway.session.get(f"{gateway.url}/health") as response:
        assert (response.status, await response.json()) == (200, {"status": "ok"})


async def test_several_prompts_and_samples(gateway: Running, table: Table, start_replica: StartReplica) -> None:
    replica = start_replica("a")
    table.serve(replica.address)
    client = await gateway.client()
    one, two = script(a={"deltas": 1}), script(a={"deltas": 2})
    answer = await client.completions.create(model="any", prompt=[one, two], n=2, seed=5, temperature=1.0)
    assert [choice.text for choice in answer.choices] == ["a0 ", "a0 ", "a0 a1 ", "a0 a1 "]
    assert [choice.index for choice in answer.choices] == [0, 1, 2, 3]
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (14, 6)
    seeds = Counter(entry["body"]["sampling"]["seed"] for entry in await replica.seen())
    assert seeds == {5: 2, 6: 2}
    stream = await client.completions.create(model="any", prompt=[one, two], n=1, stream=True)
    texts: dict[int, str] = defaultdict(str)
    async for chunk in stream:
        for choice in chunk.choices:
            texts[choice.index] += choice.text
    assert dict(texts) == {0: "a0 ", 1: "a0 a1 "}
    echoed = await client.completions.create(model="any", prompt=one, echo=True)
    assert echoed.choices[0].text == one + "a0 "
    nothing = await client.completions.create(model="any", prompt=one, max_tokens=0)
    assert nothing.choices[0].text == ""


async def test_load_is_told_to_who_asks_since_a_second(
    gateway: Running, table: Table, start_replica: StartReplica
) -> None:
    table.serve(start_replica("a").address)
    await ask(gateway, script(a={"deltas": 1}))
    page = await load(gateway)
    assert page.uid
    assert page.deployments[0].bins
    later = await load(gateway, page.now + 5)
    assert later.deployments[0].bins == ()
    assert (later.uid, later.deployments[0].counters.arrivals) == (page.uid, 1)
    async with gateway.session.get(f"{gateway.internal}/load?since=yesterday") as response:
        assert response.status == 400


async def test_a_client_that_reads_slowly_gets_all(
    gateway: Running, table: Table, start_replica: StartReplica, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For much longer than one that reads nothing is waited for."""
    monkeypatch.setattr(connection, "STALL_SECONDS", 0.5)
    table.serve(start_replica("a" * 200).address)
    host, port = gateway.url.removeprefix("http://").split(":")
    body = json.dumps({"prompt": script(all_={"deltas": 30_000})}).encode()

    def read_slowly() -> bytes:
        with socket.socket() as client:
            # A small window, so that what is not read waits at the gateway.
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            client.connect((host, int(port)))
            head = (
                f"POST /v1/completions HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {len(body)}\r\n\r\n"
            )
            client.sendall(head.encode() + body)
            answer = b""
            while piece := client.recv(2**16):
                answer += piece
                time.sleep(len(piece) / 2e6)
            return answer

    began = time.monotonic()
    answer = (await asyncio.to_thread(read_slowly)).partition(b"\r\n\r\n")[2]
    print(f"{len(answer)} bytes in {time.monotonic() - began:.1f} s")
    assert json.loads(answer)["choices"][0]["text"]
    assert time.monotonic() - began > 2 * connection.STALL_SECONDS


async def test_a_client_that_reads_nothing_holds_nobody_up(
    gateway: Running, table: Table, start_replica: StartReplica, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More than all buffers between hold: the replica ends as fast as it can, and the connection is aborted."""
    # Longer than the replica takes for what the buffers do not hold: it ends before its client's connection does.
    monkeypatch.setattr(connection, "STALL_SECONDS", 8)
    replica = start_replica("a" * 200)
    table.serve(replica.address)
    host, port = gateway.url.removeprefix("http://").split(":")
    body = json.dumps({"prompt": script(all_={"deltas": 30_000}), "stream": True}).encode()
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.connect((host, int(port)))
        client.sendall(b"POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body))

        async def ended() -> bool:
            return "ended" in [entry["end"] for entry in await replica.seen()]

        await eventually(ended, 60)

        async def aborted() -> bool:
            return await gateway.metric("aixcoder_gateway_requests_in_flight") == 0

        await eventually(aborted, 30)
        client.settimeout(5)
        data = b""
        with contextlib.suppress(ConnectionResetError):
            while piece := await asyncio.to_thread(client.recv, 2**20):
                data += piece
        assert data
        assert b"[DONE]" not in data


async def test_who_asks_with_a_session_of_its_own(gateway: Running, table: Table, start_replica: StartReplica) -> None:
    """An editor's requests go to one replica, however many there are."""
    replicas = [start_replica(name) for name in ("a", "b", "c")]
    table.serve(*(replica.address for replica in replicas))
    await heard(gateway, 3)
    prompt = script(all_={"deltas": 1})
    async with aiohttp.ClientSession(headers={"x-editor-session": "me"}) as session:
        names: Counter[str] = Counter()
        for n in range(10):
            async with session.post(f"{gateway.url}/v1/completions", json={"prompt": prompt, "seed": n}) as response:
                names[(await response.json())["choices"][0]["text"][0]] += 1
    # One that comes before the last one's end was told may be one too many there.
    assert max(names.values()) >= 8


async def test_too_much_to_write_out_is_refused_at_once(gateway: Running, table: Table) -> None:
    """It would hold the gateway up for everybody else: two million ids, 64 times."""
    table.serve()
    for body in (
        {"prompt": [1] * 40_000},
        {"prompt": [1] * 32_000, "n": 128, "temperature": 0.8},
        {"prompt": "x" * 1_000_000, "n": 64, "temperature": 0.8},
    ):
        began = time.monotonic()
        async with gateway.session.post(f"{gateway.url}/v1/completions", json=body) as response:
            assert response.status == 400, sorted(body)
        print(f"refused after {(time.monotonic() - began) * 1000:.0f} ms")
