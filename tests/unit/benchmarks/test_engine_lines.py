"""The loop that all drivers share, around an engine that is a list of times."""

import asyncio
import time
from collections.abc import AsyncGenerator
from typing import Any

import pytest

from benchmarks.peers import lines
from benchmarks.peers.lines import LineEnd, Load, Request, Step
from benchmarks.peers.thread import EngineThread, Given

OPTIONS = Load(
    model="",
    dtype="float32",
    tensor_parallel=1,
    threads=1,
    sequences=4,
    max_length=100,
    cache_tokens=100,
    cache_bytes=1,
    prefix_caching=False,
    drafting=False,
    eos=500,
    line_ends=(10, 11),
    blanks=(20,),
)


class Counting:
    """Gives 1, 2, 3, … a token each `seconds`; a prompt that begins with 99 fails at its second token."""

    def __init__(self, seconds: float = 0.001, ends_lines: bool = False) -> None:
        self.ends_lines = ends_lines
        self.dropped = 0
        self._seconds = seconds

    async def load(self, options: Load) -> dict[str, Any]:
        return {}

    async def stream(self, request: Request) -> AsyncGenerator[Step, None]:
        try:
            for n in range(1, request.max_tokens + 1):
                await asyncio.sleep(self._seconds)
                if n == 2 and request.prompt[0] == 99:
                    raise RuntimeError("lost\nits device")
                yield Step((n,), cached=5)
        finally:
            self.dropped += 1

    async def reset(self) -> None: ...

    async def close(self) -> None: ...


async def run(
    driver: lines.Driver, *requests: dict[str, Any], limit_s: float = 5.0, then: dict[str, Any] | None = None
) -> list[dict[str, Any]]:
    told: list[dict[str, Any]] = []
    commands: lines.Commands = asyncio.Queue()
    if then is not None:
        commands.put_nowait(then)
    command = {"run": list(requests), "limit_s": limit_s}
    await lines._run(driver, OPTIONS, command, commands, lambda **message: told.append(message["request"]))
    return told


def asked(number: int = 0, max_tokens: int = 3, first: int = 1, **more: Any) -> dict[str, Any]:
    return {"id": number, "prompt": [first], "max_tokens": max_tokens, **more}


async def test_a_request_has_a_time_for_each_token() -> None:
    (result,) = await run(Counting(), asked())
    assert (result["end"], result["ids"], result["counts"], result["cached"]) == ("length", (1, 2, 3), (1, 1, 1), 5)
    assert result["submitted"] < result["times"][0] < result["times"][1] < result["times"][2] <= result["ended"]


async def test_requests_start_at_their_times() -> None:
    results = await run(Counting(), asked(1, at=0.05), asked(2))
    assert [result["id"] for result in results] == [2, 1]
    assert results[1]["submitted"] >= 0.05


async def test_a_request_is_cancelled_at_its_time() -> None:
    driver = Counting(seconds=0.02)
    (result,) = await run(driver, asked(max_tokens=1000, cancel_at=0.05))
    assert (result["end"], driver.dropped) == ("cancelled", 1)
    assert 0.05 <= result["ended"] < 1.0


async def test_one_that_fails_fails_alone() -> None:
    results = await run(Counting(), asked(1, first=99), asked(2))
    by_id = {result["id"]: result for result in results}
    assert (by_id[1]["end"], by_id[1]["error"]) == ("failed", "RuntimeError: lost its device")
    assert by_id[2]["end"] == "length"


async def test_what_ends_early_has_failed() -> None:
    class Short(Counting):
        async def stream(self, request: Request) -> AsyncGenerator[Step, None]:
            yield Step((1,))

    (result,) = await run(Short(), asked())
    assert (result["end"], result["error"]) == ("failed", "it ended before its length was reached")


@pytest.mark.parametrize(("ends_lines", "expected"), [(False, 10), (True, 12)])
async def test_a_first_line_ends_a_request(ends_lines: bool, expected: int) -> None:
    driver = Counting(ends_lines=ends_lines)
    (result,) = await run(driver, asked(max_tokens=12, first_line=True))
    assert (result["end"], len(result["ids"]), driver.dropped) == ("line", expected, 1)


async def test_the_limit_ends_what_runs_and_forgets_what_waits() -> None:
    start = time.monotonic()
    results = await run(Counting(seconds=0.02), asked(1, max_tokens=1000), asked(2, at=1000), limit_s=0.1)
    assert [(result["id"], result["end"]) for result in results] == [(1, "cancelled")]
    assert time.monotonic() - start < 2


async def test_stop_ends_a_run() -> None:
    results = await run(Counting(seconds=10), asked(), then={"stop": True})
    assert [result["end"] for result in results] == ["cancelled"]


async def test_no_requests_are_a_run_too() -> None:
    assert await run(Counting()) == []


@pytest.mark.parametrize(
    ("name", "tokens", "expected"),
    [
        ("text, then a line end", [5, 10], [False, True]),
        ("another line end", [5, 11], [False, True]),
        ("blank lines first", [10, 20, 11, 5, 10], [False, False, False, False, True]),
        ("end of text", [500], [True]),
        ("no end", [5, 20, 5], [False, False, False]),
    ],
)
def test_where_the_first_line_is_complete(name: str, tokens: list[int], expected: list[bool]) -> None:
    line_end = LineEnd(OPTIONS)
    assert [line_end.push(token) for token in tokens] == expected, name


class Stepping:
    """A `Stepped` engine: a step gives each request one token."""

    def __init__(self) -> None:
        self.left: dict[int, int] = {}

    def add(self, number: int, request: Request) -> None:
        if not request.prompt:
            raise ValueError("an empty prompt")
        self.left[number] = request.max_tokens

    def drop(self, number: int) -> None:
        self.left.pop(number, None)

    def step(self) -> list[Given]:
        given: list[Given] = []
        for number in list(self.left):
            self.left[number] -= 1
            given.append((number, Step((number,))))
            if not self.left[number]:
                del self.left[number]
                given.append((number, None))
        return given


async def test_an_engine_thread_steps_while_there_is_work() -> None:
    thread, engine = EngineThread(), Stepping()
    await thread.start(lambda: engine)

    async def collect(tokens: int) -> list[int]:
        return [token async for step in thread.stream(Request(0, (1,), tokens)) for token in step.ids]

    assert list(await asyncio.gather(collect(2), collect(1))) == [[1, 1], [2]]
    with pytest.raises(ValueError, match="an empty prompt"):
        _ = [step async for step in thread.stream(Request(0, (), 1))]
    stream = thread.stream(Request(0, (1,), 1 << 60))
    assert (await anext(stream)).ids == (4,)
    await stream.aclose()
    await thread.call(lambda: None)
    assert engine.left == {}
    await thread.close()


async def test_a_step_that_fails_ends_its_requests() -> None:
    class Failing(Stepping):
        def step(self) -> list[Given]:
            raise RuntimeError("no memory")

    thread = EngineThread()
    await thread.start(Failing)
    for _ in range(2):
        with pytest.raises(RuntimeError, match="no memory"):
            _ = [step async for step in thread.stream(Request(0, (1,), 1))]
    await thread.close()
