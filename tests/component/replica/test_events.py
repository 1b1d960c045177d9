"""What a replica tells gateways of its load, what it refuses, and how it goes on with what another one began."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from aixcoder_serving.engine.watchdog import Heartbeat
from aixcoder_serving.protocol import Delta, Finished, LoadReport, Started
from tests.component.replica.conftest import (
    LONG,
    ONE_LOOP,
    PREFIX,
    SUFFIX,
    Replica,
    finished,
    ids_of,
    settings,
    start,
    text_of,
)

pytestmark = ONE_LOOP


class Listening:
    """One stream of reports."""

    def __init__(self, answer: aiohttp.ClientResponse) -> None:
        self._answer = answer
        self.reports: list[LoadReport] = []
        self.times: list[float] = []

    async def next(self) -> LoadReport | None:
        line = await asyncio.wait_for(self._answer.content.readline(), 10)
        if not line:
            return None
        self.reports.append(LoadReport.model_validate_json(line))
        self.times.append(asyncio.get_running_loop().time())
        return self.reports[-1]

    async def until(self, **expected: Any) -> LoadReport:
        while True:
            report = await self.next()
            assert report is not None, "the stream ended"
            if report.model_dump() | expected == report.model_dump():
                return report


def heartbeats(pid: int) -> list[Heartbeat]:
    """The pages by which an engine's process and its ranks show that they move."""
    files = [file for file in Path(f"/proc/{pid}/fd").iterdir() if "memfd:heartbeat" in os.readlink(file)]
    return [Heartbeat(os.open(file, os.O_RDWR)) for file in files]


@asynccontextmanager
async def seeming_to_live(pid: int) -> AsyncIterator[None]:
    """Stop an engine's process, but beat in its place."""
    pages = heartbeats(pid)

    async def beat() -> None:
        while True:
            for heartbeat in pages:
                heartbeat.beat()
            await asyncio.sleep(0.1)

    os.kill(pid, signal.SIGSTOP)
    beating = asyncio.create_task(beat())
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)
        beating.cancel()
        for heartbeat in pages:
            heartbeat.close()


@asynccontextmanager
async def listening(replica: Replica) -> AsyncIterator[Listening]:
    async with replica.client.get(f"{replica.url}/events") as answer:
        assert answer.status == 200
        yield Listening(answer)


async def test_the_first_report_comes_at_once_and_one_each_second(shared: Replica) -> None:
    async with listening(shared) as stream:
        first = await stream.next()
        assert first is not None
        assert (first.slots, first.running, first.tokens, first.draining) == (2, 0, 0, False)
        assert first.room > 0
        await stream.next()
        await stream.next()
    assert all(0.5 < later - one < 1.5 for one, later in zip(stream.times[1:], stream.times[2:], strict=False))


async def test_a_request_is_in_the_report_that_its_first_message_names(shared: Replica) -> None:
    async with listening(shared) as stream, shared.post(**LONG) as answer:
        started = Started.model_validate_json(await answer.content.readline())
        while (report := await stream.next()) is not None and report.number < started.report:
            assert report.tokens == 0
        assert report is not None
        assert report.tokens == 3 + 1900
        answer.close()
        gone = await stream.until(tokens=0)
        assert gone.number > report.number


async def test_one_too_many_is_refused_at_once(shared: Replica) -> None:
    async with listening(shared) as stream, shared.post(**LONG) as first, shared.post(**LONG) as second:
        await first.content.readline()
        await second.content.readline()
        full = await stream.until(room=0)
        assert full.tokens == 2 * 1903
        async with shared.post(**LONG) as third:
            assert third.status == 429
            assert "no room" in await third.text()
        first.close()
        await stream.until(tokens=1903)
        second.close()
        await stream.until(tokens=0)


async def test_a_long_prompt_keeps_others_away_until_it_is_computed(client: aiohttp.ClientSession) -> None:
    replica = await start(settings(max_concurrent_sequences=16), client)
    try:
        await replica.service.loaded()
        prompts = [{"prompt_token_ids": [1, *range(300 + n, 300 + n + 1700)]} for n in range(16)]
        answers = await asyncio.gather(
            *(replica.client.post(f"{replica.url}/generate", json={"id": "x", **p}) for p in prompts)
        )
        statuses = [answer.status for answer in answers]
        print(f"taken at once: {statuses.count(200)} of 16 prompts of 1,700 tokens")
        assert 1 <= statuses.count(200) < 16
        assert set(statuses) == {200, 429}
        for answer in answers:
            answer.close()
    finally:
        await replica.stop()


async def test_another_replica_goes_on_where_one_ended(shared: Replica) -> None:
    request: dict[str, Any] = {"prefix": PREFIX, "suffix": SUFFIX, "sampling": {"max_tokens": 30, "stop": ["\n\n"]}}
    whole = await shared.generate(**request)
    deltas = [message for message in whole if isinstance(message, Delta)]
    for count in (1, 4, len(deltas) - 2):
        begun = deltas[:count]
        ids = [i for delta in begun for i in delta.token_ids]
        told = "".join(delta.text for delta in begun)
        rest = await shared.generate(**request, generated_token_ids=ids, told_characters=len(told))
        assert ids + ids_of(rest) == ids_of(whole)
        assert told + text_of(rest) == text_of(whole)
        end, expected = finished(rest), finished(whole)
        assert (end.finish_reason, end.completion_tokens) == (expected.finish_reason, expected.completion_tokens)


async def test_one_that_was_over_ends_at_once(shared: Replica) -> None:
    suffix = "\n    def _put(self, item):\n        heappush(self.queue, item)\n"
    request: dict[str, Any] = {"prefix": PREFIX, "suffix": suffix, "sampling": {"max_tokens": 200}}
    whole = await shared.generate(**request)
    assert ids_of(whole)[-1] == 2
    told = len(text_of(whole)) - 1
    rest = await shared.generate(**request, generated_token_ids=ids_of(whole), told_characters=told)
    assert (ids_of(rest), text_of(rest)) == ([], text_of(whole)[told:])
    assert finished(rest).finish_reason == "stop"
    assert finished(rest).completion_tokens == finished(whole).completion_tokens


async def test_one_that_a_stop_string_ended_ends_at_once(shared: Replica) -> None:
    request: dict[str, Any] = {"prefix": PREFIX, "suffix": SUFFIX, "sampling": {"max_tokens": 30, "stop": ["(self"]}}
    whole = await shared.generate(**request)
    assert (finished(whole).finish_reason, text_of(whole)) == ("stop", "        return len")
    before = await shared.stats()
    for told in (0, 5, len(text_of(whole))):
        rest = await shared.generate(**request, generated_token_ids=ids_of(whole), told_characters=told)
        assert (ids_of(rest), text_of(rest)) == ([], text_of(whole)[told:])
        end, expected = finished(rest), finished(whole)
        assert (end.finish_reason, end.completion_tokens) == (expected.finish_reason, expected.completion_tokens)
    after = await shared.stats()
    assert after["steps"] == before["steps"], "nothing is computed"


async def test_a_stop_string_over_the_border_is_found(shared: Replica) -> None:
    request: dict[str, Any] = {"prefix": PREFIX, "suffix": SUFFIX, "sampling": {"max_tokens": 12}}
    free = [message for message in await shared.generate(**request) if isinstance(message, Delta)]
    text = "".join(delta.text for delta in free)
    stop = text[len(free[0].text) + len(free[1].text) + len(free[2].text) - 3 :][:5]
    request["sampling"] = {"max_tokens": 12, "stop": [stop]}
    whole = await shared.generate(**request)
    deltas = [message for message in whole if isinstance(message, Delta)]
    for count in range(1, len(ids_of(whole))):
        ids, told = ids_of(whole)[:count], ""
        taken = 0
        for delta in deltas:
            taken += len(delta.token_ids)
            if taken > count:
                break
            told += delta.text
        rest = await shared.generate(**request, generated_token_ids=ids, told_characters=len(told))
        assert told + text_of(rest) == text_of(whole)


async def test_who_drains_says_so(replica: Replica) -> None:
    async with listening(replica) as stream:
        await stream.next()
        replica.service.begin_drain()
        report = await stream.until(draining=True)
        assert report.room == 0


async def test_the_end_of_the_engine_is_the_end_of_the_stream(replica: Replica) -> None:
    async with listening(replica) as stream, replica.post(**LONG) as answer:
        await answer.content.readline()
        pid = replica.engine
        began = asyncio.get_running_loop().time()
        os.kill(pid, signal.SIGSTOP)
        try:
            while await stream.next() is not None:
                pass
        finally:
            os.kill(pid, signal.SIGCONT)
        seconds = asyncio.get_running_loop().time() - began
        print(f"a frozen engine ends the stream after {seconds:.2f} s")
        status, page = await replica.get("/ready")
        assert (status, page["phase"]) == (503, "failed")


async def test_an_engine_that_makes_no_step_is_noticed_though_it_seems_to_live(replica: Replica) -> None:
    """The steps alone tell."""
    async with listening(replica) as stream, replica.post(**LONG) as answer:
        await answer.content.readline()
        await stream.until(running=1)
        async with seeming_to_live(replica.engine):
            stopped = asyncio.get_running_loop().time()
            while await stream.next() is not None:
                pass
            print(f"no step ends the stream after {asyncio.get_running_loop().time() - stopped:.2f} s")
            assert len({report.steps for report in stream.reports[-4:]}) == 1
            status, page = await replica.get("/ready")
            assert (status, page["message"]) == (503, "the engine has made no step for 2 s, with work to do")
            async with replica.client.get(f"{replica.url}/events") as again:
                assert await again.read() == b"", "nothing is told while it stands still"
            assert replica.service.engine_failure is None
        await replica.until("/ready", phase="ready")
    async with listening(replica) as stream:
        await stream.until(running=0, tokens=0)


async def test_a_finished_request_leaves_its_room(shared: Replica) -> None:
    async with listening(shared) as stream:
        messages = await shared.generate(prefix=PREFIX, suffix=SUFFIX, sampling={"max_tokens": 4})
        assert isinstance(messages[-1], Finished)
        report = await stream.until(tokens=0)
        assert report.running + report.waiting == 0


@pytest.mark.parametrize("method", ["POST", "PUT"])
async def test_events_are_read(shared: Replica, method: str) -> None:
    async with shared.client.request(method, f"{shared.url}/events") as answer:
        assert answer.status == 405
