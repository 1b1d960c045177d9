"""Replicas that only keep time, behind the protocol: `python -m benchmarks.routing.replica COUNT` prints their ports.

Their prompts say how many tokens they have and what they are to be answered with: see `prompt`. `GET /waits` on any of
them tells what each request of all replicas waited, in seconds, and where it ran.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time

from aiohttp import web

from aixcoder_serving.engine.interface import EngineStats
from aixcoder_serving.protocol import CompletionRequest, Delta, Finished, LoadReport, Message, Refused, Started
from aixcoder_serving.replica.admission import Admission
from benchmarks.routing.simulate import PREFILL_TOKENS_PER_S, SLOTS, TOKEN_S, TOKEN_S_PER_REQUEST

BYTES_PER_TOKEN = 3.2
"""Of the prompts made here, about what the gateway expects."""


def prompt(tokens: int, output: int, editor: str) -> str:
    """A prompt of so many tokens, sent now. Clocks of one machine agree."""
    head = f"{tokens} {output} {time.monotonic():.6f} {editor}\n"
    return head + "x = 1\n" * max(round((tokens * BYTES_PER_TOKEN - len(head)) / 6), 0)


class Replica:
    """One replica. Prompts are computed one after the other, tokens at the pace of as many as run."""

    def __init__(self, name: int, waits: list[tuple[int, str, float]]) -> None:
        self._name = name
        self._waits = waits
        self._admission = Admission(SLOTS)
        self._submitted = 0
        self._running = 0
        self._busy_until = 0.0
        self._number = 0
        self._changed = asyncio.Event()

    def application(self) -> web.Application:
        """Its HTTP interface."""
        found = web.Application(client_max_size=2**24)
        found.add_routes([web.post("/generate", self._generate), web.get("/events", self._events)])
        found.add_routes([web.get("/waits", self._told)])
        return found

    async def _told(self, _request: web.Request) -> web.Response:
        return web.json_response(self._waits)

    def _room(self) -> int:
        waiting_ms = max(self._busy_until - time.monotonic(), 0.0) * 1000
        return self._admission.room(
            EngineStats(
                prefill_waiting_ms=waiting_ms,
                prefill_ms_per_token=1000 / PREFILL_TOKENS_PER_S,
                submitted=self._submitted,
            )
        )

    def _change(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    async def _events(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        while True:
            changed = self._changed
            self._number += 1
            report = LoadReport(
                number=self._number,
                slots=SLOTS,
                running=len(self._admission),
                waiting=0,
                room=self._room(),
                tokens=self._admission.tokens,
                blocks_free=1,
                steps=self._number,
            )
            await response.write(report.model_dump_json().encode() + b"\n")
            await asyncio.sleep(0.02)
            # The prompts that wait get fewer by themselves: there may be room again without any event.
            later = 0.02 if self._busy_until > time.monotonic() else 0.98
            await asyncio.wait([asyncio.ensure_future(changed.wait())], timeout=later)

    async def _generate(self, request: web.Request) -> web.StreamResponse:
        asked = CompletionRequest.model_validate_json(await request.read())
        tokens, output, sent, editor = (asked.prefix or "").split("\n", 1)[0].split(" ")
        if self._room() == 0:
            return web.Response(status=429, text=Refused(message="full").model_dump_json())
        accepted = self._admission.accept(int(tokens), int(output))
        self._submitted += 1
        self._admission.submitted(accepted, int(tokens))
        try:
            now = time.monotonic()
            begin = max(self._busy_until, now)
            self._waits.append((self._name, editor, begin - float(sent)))
            self._busy_until = begin + int(tokens) / PREFILL_TOKENS_PER_S
            self._change()
            response = web.StreamResponse()
            await response.prepare(request)

            async def say(message: Message) -> None:
                await response.write(message.model_dump_json().encode() + b"\n")

            await say(Started(prompt_tokens=int(tokens), report=self._number + 1))
            await asyncio.sleep(self._busy_until - now)
            self._running += 1
            try:
                await asyncio.sleep(int(output) * (TOKEN_S + TOKEN_S_PER_REQUEST * self._running))
            finally:
                self._running -= 1
            await say(Delta(text="x", token_ids=(5,) * int(output)))
            await say(
                Finished(
                    finish_reason="stop", prompt_tokens=int(tokens), completion_tokens=int(output), cached_tokens=0
                )
            )
            await response.write_eof()
            return response
        finally:
            self._admission.ended(accepted, 0)
            self._change()


async def serve(count: int) -> None:
    """Serve until killed."""
    waits: list[tuple[int, str, float]] = []
    ports = []
    for number in range(count):
        runner = web.AppRunner(Replica(number, waits).application(), handler_cancellation=True)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        ports.append(runner.addresses[0][1])
    print(json.dumps(ports), flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1])))
