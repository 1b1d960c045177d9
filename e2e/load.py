"""A steady load of completions while something happens to the cluster: what failed, what was cut, the longest gap."""

from __future__ import annotations

import asyncio
import itertools
import json
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

import aiohttp

REQUEST_SECONDS = 120.0
"""When one request counts as hung."""
PROMPTS = (
    "def _qsize(self):\n    ",
    "class PriorityQueue(Queue):\n    def _init(self, maxsize):\n        ",
    "def insort_left(a, x, lo=0, hi=None):\n    ",
    "import os\n\ndef walk(top):\n    ",
)
LONG = {
    "prompt": "def f(self):\n    x = ",
    "max_tokens": 3500,
    "stream": True,
    # The model would end within some hundred tokens, and what it repeats would be guessed.
    "ignore_eos": True,
    "temperature": 2.0,
    "seed": 1,
}
"""A stream that the tiny model writes for some seconds: longer than a replica that ends takes new requests."""


@dataclass
class Tally:
    """Counts of one load.

    `failed`: an error status, or a broken connection before any byte; `cut`: a stream that began and did not end as
    complete, or is complete and has another text than the long one of before: it has a seed.
    """

    unary: int = 0
    streams: int = 0
    failed: int = 0
    cut: int = 0
    longest_gap_s: float = 0.0
    """The longest time in which no request of any client was completed."""
    reasons: Counter[str] = field(default_factory=Counter)

    @property
    def completed(self) -> int:
        """Requests that ended as they should."""
        return self.unary + self.streams

    def line(self, what: str) -> str:
        """As one JSON line, for the record."""
        # Not asdict: it makes a Counter of pairs out of a Counter (Python 3.11).
        seen = {name: getattr(self, name) for name in ("unary", "streams", "failed", "cut", "longest_gap_s")}
        return json.dumps({"load": what, "completed": self.completed, **seen, "reasons": dict(self.reasons)})


class Load:
    """Clients that ask one completion after another, from `__enter__` to `__exit__`: unary, short and long streams."""

    def __init__(
        self, url: str, *, model: str | None = None, clients: int = 3, max_tokens: int = 32, pause_s: float = 0.1
    ) -> None:
        """`model` is needed where there is more than one."""
        self.tally = Tally()
        self._named = {} if model is None else {"model": model}
        self._url = f"{url}/v1/completions"
        self._clients = clients
        self._max_tokens = max_tokens
        self._pause_s = pause_s
        self._stop = threading.Event()
        self._last = 0.0
        self._long = ""
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), name="load")

    def __enter__(self) -> Load:
        """Start; requests are under way when it returns."""
        self._last = time.monotonic()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Let the requests under way end, then stop."""
        self._stop.set()
        self._thread.join(REQUEST_SECONDS + 10)

    def wait_for(self, count: int, *, seconds: float = 60.0) -> None:
        """Wait until `count` more requests were completed. TimeoutError where they were not."""
        goal, deadline = self.tally.completed + count, time.monotonic() + seconds
        while self.tally.completed < goal:
            if time.monotonic() > deadline:
                raise TimeoutError(f"{count} completions took more than {seconds} s: {self.tally.line('waiting')}")
            time.sleep(0.05)

    async def _run(self) -> None:
        timeout = aiohttp.ClientTimeout(total=REQUEST_SECONDS)
        # A connection a request: kept ones would hide which gateway answers, and pin all clients to one.
        async with aiohttp.ClientSession(timeout=timeout, connector=aiohttp.TCPConnector(force_close=True)) as session:
            await asyncio.gather(*(self._client(session, index) for index in range(self._clients)))

    async def _client(self, session: aiohttp.ClientSession, index: int) -> None:
        for count in itertools.count():
            if self._stop.is_set():
                return
            short = {
                "prompt": PROMPTS[(index + count) % len(PROMPTS)],
                "suffix": "\n",
                "max_tokens": self._max_tokens,
                "stream": index % 3 == 1,
            }
            await self._ask(session, LONG if index % 3 == 2 else short)
            await asyncio.sleep(self._pause_s)

    async def _ask(self, session: aiohttp.ClientSession, body: dict[str, Any]) -> None:
        begun = False
        try:
            async with session.post(self._url, json=body | self._named) as response:
                if response.status != 200:
                    self._fail(f"{response.status} {(await response.text())[:200]}")
                    return
                begun = body["stream"]
                text = await response.text()
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            if begun:
                self._cut(repr(error))
            else:
                self._fail(repr(error))
            return
        if not body["stream"]:
            self.tally.unary += 1
        elif text.rstrip().endswith("data: [DONE]"):
            if body is LONG and not self._same(text):
                self._cut("another text than before")
                return
            self.tally.streams += 1
        else:
            self._cut(text[-200:])
            return
        now = time.monotonic()
        self.tally.longest_gap_s = max(self.tally.longest_gap_s, round(now - self._last, 2))
        self._last = now

    def _same(self, stream: str) -> bool:
        """Whether the long stream has the text that it had the first time."""
        events = [json.loads(line[6:]) for line in stream.splitlines() if line.startswith("data: {")]
        text = "".join(choice["text"] for event in events for choice in event["choices"])
        self._long = self._long or text
        return text == self._long

    def _fail(self, reason: str) -> None:
        self.tally.failed += 1
        self.tally.reasons[reason] += 1

    def _cut(self, reason: str) -> None:
        self.tally.cut += 1
        self.tally.reasons[f"cut: {reason}"] += 1
