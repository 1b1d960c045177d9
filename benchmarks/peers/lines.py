"""How the harness talks to an engine: JSON objects, one a line, on standard input and output of the engine's driver.

To the driver:
  {"load": {…}}                             the fields of `Load`; answered by {"loaded": {"version", "settings", …}}
  {"run": [{…}, …], "limit_s": s, …}        the fields of `Run`, requests as those of `Request`
  {"stop": true}                            end the run that is going on; what is unfinished is `cancelled`
  {"reset": true}                           forget cached prompts; answered by {"reset": true}
  end of file                               quit
From the driver, in a run: {"request": {…}} with the fields of `Result` as each ends, then {"done": true}. What can not
be done is answered by {"error": "a sentence"}. Standard output belongs to these lines: what a library prints there goes
to standard error. Standard library only, since every engine's own environment imports it.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, Protocol, TextIO

End = Literal["length", "line", "cancelled", "failed"]
STOP_SECONDS = 10.0
"""How long cancelled requests may take to end."""


@dataclass(frozen=True)
class Load:
    """What to load and how; `threads` are for all ranks together. A token's keys and values take `cache_bytes`.

    `drafting`: tokens may be guessed ahead, from what the editor showed before too, where the engine can.
    `line_ends` and `blanks` are token ids: with a line end, of white space alone.
    """

    model: str
    dtype: str
    tensor_parallel: int
    threads: int
    sequences: int
    max_length: int
    cache_tokens: int
    cache_bytes: int
    prefix_caching: bool
    drafting: bool
    eos: int = 2
    line_ends: tuple[int, ...] = ()
    blanks: tuple[int, ...] = ()


@dataclass(frozen=True)
class Request:
    """`at` and `cancel_at` are seconds since the run began; `editor` says whose typing it is.

    `first_line`: end after the first line that is not blank, at the end of text or at `max_tokens`; else at
    `max_tokens` exactly, whatever is generated.
    """

    id: int
    prompt: tuple[int, ...]
    max_tokens: int
    at: float = 0.0
    cancel_at: float | None = None
    first_line: bool = False
    editor: int = 0


@dataclass(frozen=True)
class Result:
    """What became of one request; times are seconds since the run began.

    `times` has one entry a delivery of `counts` tokens. `cached` prompt tokens were not computed, where the engine says
    so. `end`: `line` is the end of the first line or of the text.
    """

    id: int
    end: End
    submitted: float
    ended: float
    times: tuple[float, ...] = ()
    counts: tuple[int, ...] = ()
    ids: tuple[int, ...] = ()
    cached: int | None = None
    error: str | None = None


@dataclass(frozen=True)
class Step:
    """Tokens as an engine hands them over, and when (`time.monotonic`)."""

    ids: tuple[int, ...]
    at: float = field(default_factory=time.monotonic)
    cached: int | None = None


class Driver(Protocol):
    """One engine, as its driver wraps it. `ends_lines`: it ends a request with its first line by itself."""

    ends_lines: bool

    async def load(self, options: Load) -> dict[str, Any]:
        """Load; gives `version` and `settings`, and `imports_mb`: `resident_mb` after its imports, tokenizer included.

        `started_imports_mb`: the same of the programs that it started, where that is another number.
        """
        ...

    def stream(self, request: Request) -> AsyncGenerator[Step, None]:
        """Run one request. Where the task that reads it is cancelled, the request is cancelled in the engine."""
        ...

    async def reset(self) -> None:
        """Forget cached prompts."""
        ...

    async def close(self) -> None:
        """End whatever was started."""
        ...


class Outbox:
    """From an engine's thread to its one reader, `async for`, in the event loop in which this was made."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._queue: asyncio.Queue[Step | Exception | None] = asyncio.Queue()

    def put(self, item: Step | Exception | None) -> None:
        """Pass tokens on; None ends, an exception is raised in the reader. From any thread."""
        with suppress(RuntimeError):  # the loop is closed: nobody reads
            self._loop.call_soon_threadsafe(self._queue.put_nowait, item)

    def __aiter__(self) -> Outbox:
        return self

    async def __anext__(self) -> Step:
        item = await self._queue.get()
        if item is None:
            raise StopAsyncIteration
        if isinstance(item, Exception):
            raise item
        return item


class LineEnd:
    """Whether the first line that is not blank is complete."""

    def __init__(self, options: Load) -> None:
        self._ends, self._blanks, self._eos = frozenset(options.line_ends), frozenset(options.blanks), options.eos
        self._began = False

    def push(self, token: int) -> bool:
        """True with the token that completes it: a line end after something, or the end of the text."""
        if token == self._eos or (self._began and token in self._ends):
            return True
        self._began = self._began or (token not in self._blanks and token not in self._ends)
        return False


def resident_mb() -> float:
    """Megabytes (10^6 bytes) that this process has in memory, with what it maps from files."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def main(driver: Driver) -> None:
    """Serve standard input until it ends."""
    out = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    asyncio.run(_serve(driver, out))


Commands = asyncio.Queue[dict[str, Any] | None]
Tell = Callable[..., None]


async def _serve(driver: Driver, out: TextIO) -> None:
    def tell(**message: Any) -> None:
        out.write(json.dumps(message) + "\n")

    commands: Commands = asyncio.Queue()
    reading = asyncio.create_task(_read(commands))
    options: Load | None = None
    try:
        while (command := await commands.get()) is not None:
            try:
                if "load" in command:
                    options = Load(**command["load"])
                    tell(loaded=await driver.load(options))
                elif "reset" in command:
                    await driver.reset()
                    tell(reset=True)
                elif "run" in command:
                    if options is None:
                        raise RuntimeError("a run is asked for before anything is loaded")
                    await _run(driver, options, command, commands, tell)
                    tell(done=True)
            except Exception as error:
                tell(error=sentence(error))
    finally:
        reading.cancel()
        await driver.close()


async def _read(commands: Commands) -> None:
    """Pass on the lines of standard input as they come, then None."""
    reader = asyncio.StreamReader(limit=1 << 30)
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := await reader.readline():
        commands.put_nowait(json.loads(line))
    commands.put_nowait(None)


async def _run(driver: Driver, options: Load, command: dict[str, Any], commands: Commands, tell: Tell) -> None:
    """Start each request at its time, until all ended, the limit is over or another command comes."""
    begin = time.monotonic()
    tasks = [asyncio.create_task(_one(driver, options, Request(**request), begin, tell)) for request in command["run"]]
    if not tasks:
        return
    interrupt = asyncio.create_task(commands.get())
    deadline = begin + command["limit_s"]
    unfinished = set(tasks)
    while unfinished and not interrupt.done() and (left := deadline - time.monotonic()) > 0:
        _, pending = await asyncio.wait({*unfinished, interrupt}, timeout=left, return_when=asyncio.FIRST_COMPLETED)
        unfinished &= pending
    if interrupt.done() and (other := interrupt.result()) != {"stop": True}:
        commands.put_nowait(other)
    interrupt.cancel()
    for task in unfinished:
        task.cancel()
    _, stuck = await asyncio.wait(tasks, timeout=STOP_SECONDS)
    if stuck:
        raise RuntimeError(f"{len(stuck)} cancelled requests did not end within {STOP_SECONDS:.0f} s")
    for task in tasks:
        if not task.cancelled() and (error := task.exception()) is not None:
            raise error


async def _one(driver: Driver, options: Load, request: Request, begin: float, tell: Tell) -> None:
    """Run one request and tell its result. Says nothing of one that was cancelled before its time came."""
    await asyncio.sleep(begin + request.at - time.monotonic())
    submitted = time.monotonic() - begin
    times: list[float] = []
    counts: list[int] = []
    ids: list[int] = []
    cached: int | None = None
    line_end = LineEnd(options) if request.first_line else None
    end: End = "failed"
    error: str | None = "it ended before its length was reached"
    stream = driver.stream(request)
    try:
        async with asyncio.timeout(None if request.cancel_at is None else begin + request.cancel_at - time.monotonic()):
            async for step in stream:
                cached = step.cached if step.cached is not None else cached
                if step.ids:
                    times.append(step.at - begin)
                    counts.append(len(step.ids))
                    ids += step.ids
                if line_end is not None and any(map(line_end.push, step.ids)):
                    end, error = "line", None
                elif end == "failed" and len(ids) >= request.max_tokens:
                    end, error = "length", None
                if end == "line" and not driver.ends_lines:
                    break
    except TimeoutError:
        end, error = "cancelled", None
    except asyncio.CancelledError:
        end, error = "cancelled", None
        raise
    except Exception as fault:
        end, error = "failed", sentence(fault)
    finally:
        ended = time.monotonic() - begin
        result = Result(request.id, end, submitted, ended, tuple(times), tuple(counts), tuple(ids), cached, error)
        tell(request=asdict(result))
        await stream.aclose()


def sentence(error: Exception) -> str:
    """What went wrong, in one line that is not too long for one."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:300]
