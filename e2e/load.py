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
from typing import Any, ClassVar

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
    # The model would end within some hundred tokens, and what it repeats would be guessed.
    "ignore_eos": True,
    "temperature": 2.0,
}
"""What the tiny model writes for some seconds: longer than a replica that ends takes new requests."""


@dataclass
class Tally:
    """Counts of one load.

    `failed`: an error status, or a broken connection before any byte; `cut`: a stream that began and did not end as
    complete, or an answer that seems complete and has another text than the same request's before.
    """

    unary: int = 0
    streams: int = 0
    failed: int = 0
    cut: int = 0
    longest_gap_s: float = 0.0
    """The longest time in which no request of any client was completed."""
    longest_s: float = 0.0
    """The longest time that one of them took."""
    reasons: Counter[str] = field(default_factory=Counter)

    @property
    def completed(self) -> int:
        """Requests that ended as they should."""
        return self.unary + self.streams

    @property
    def requests(self) -> int:
        """All that have ended."""
        return self.completed + self.failed + self.cut

    def line(self, what: str) -> str:
        """As one JSON line, for the record."""
        # Not asdict: it makes a Counter of pairs out of a Counter (Python 3.11).
        names = ("unary", "streams", "failed", "cut", "longest_gap_s", "longest_s")
        seen = {name: getattr(self, name) for name in names}
        return json.dumps({"load": what, "completed": self.completed, **seen, "reasons": dict(self.reasons)})


class Load:
    """Clients that ask one completion after another, from `__enter__` to `__exit__`.

    The first one's are unary, the second one's streams, the third one's long streams, the fourth one's long and unary.
    """

    _texts: ClassVar[dict[tuple[object, ...], str]] = {}
    """Of all loads: what is asked has a seed, so that its text is the same each time."""

    def __init__(
        self,
        url: str,
        *,
        model: str | None = None,
        clients: int = 3,
        max_tokens: int = 32,
        pause_s: float = 0.1,
        patience_s: float | None = None,
    ) -> None:
        """`model` is needed where there is more than one. `patience_s`: how long a client waits for a place."""
        self.tally = Tally()
        self._named = {} if model is None else {"model": model}
        self._url = f"{url}/v1/completions"
        self._headers = {} if patience_s is None else {"x-patience-ms": f"{patience_s * 1000:.0f}"}
        self._clients = clients
        self._max_tokens = max_tokens
        self._pause_s = pause_s
        self._stop = threading.Event()
        self._last = 0.0
        # What no text holds makes requests of its own of each load's: a gateway refuses, for ten minutes, one that was
        # in flight at two deaths.
        self._stop_text = f"load {time.time_ns()}"
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
            }
            how = {"stream": index % 4 in (1, 2), "seed": index, "stop": [self._stop_text]}
            began = time.monotonic()
            await self._ask(session, (LONG if index % 4 >= 2 else short) | how)
            # As long again, so that a long one leaves the machine half of its time for what the test is about.
            await asyncio.sleep(max(self._pause_s, time.monotonic() - began))

    async def _ask(self, session: aiohttp.ClientSession, body: dict[str, Any]) -> None:
        begun, start = False, time.monotonic()
        try:
            async with session.post(self._url, json=body | self._named, headers=self._headers) as response:
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
        if body["stream"] and not text.rstrip().endswith("data: [DONE]"):
            self._cut(text[-200:])
            return
        if not self._same(body, text):
            self._cut("another text than before")
            return
        if body["stream"]:
            self.tally.streams += 1
        else:
            self.tally.unary += 1
        now = time.monotonic()
        self.tally.longest_s = max(self.tally.longest_s, round(now - start, 2))
        if not self._stop.is_set():  # at the end only long ones are left, and each takes its time
            self.tally.longest_gap_s = max(self.tally.longest_gap_s, round(now - self._last, 2))
        self._last = now

    def _same(self, body: dict[str, Any], answer: str) -> bool:
        """Whether a complete answer has the text that the same request's had the first time."""
        parts = [line.removeprefix("data: ") for line in answer.splitlines()] if body["stream"] else [answer]
        events = [json.loads(part) for part in parts if part.startswith("{")]
        text = "".join(choice["text"] for event in events for choice in event["choices"])
        asked = (*self._named.values(), body["prompt"], body["max_tokens"], body["seed"])
        return self._texts.setdefault(asked, text) == text

    def _fail(self, reason: str) -> None:
        self.tally.failed += 1
        self.tally.reasons[reason] += 1

    def _cut(self, reason: str) -> None:
        self.tally.cut += 1
        self.tally.reasons[f"cut: {reason}"] += 1
