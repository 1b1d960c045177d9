"""llama.cpp's own server, which caches prompts by slot: the one that llama-cpp-python's sources build along."""

from __future__ import annotations

import asyncio
import json
import socket
import sys
import tempfile
from collections.abc import AsyncGenerator
from importlib.metadata import version
from pathlib import Path
from typing import IO, Any

import aiohttp
import llama_cpp  # type: ignore[import-not-found]

from benchmarks.peers.lines import Load, Request, Step, main, resident_mb
from benchmarks.peers.llamacpp.gguf_file import converted

PROGRAM = Path(llama_cpp.__file__).parent.parent / "bin" / "llama-server"
SLOTS = 8
"""The cache is by slot. With one an editor, six, whole prompts were computed anew where the last request was not over
yet, with sixteen where another slot was taken; with eight it was 18 tokens a key (p95), 1,822 and 1,079 with those."""
START_SECONDS, END_SECONDS, POLL_SECONDS = 120.0, 10.0, 0.1


class ServerDriver:
    """See `Driver`."""

    ends_lines = False

    def __init__(self) -> None:
        self._options: Load | None = None
        self._process: asyncio.subprocess.Process | None = None
        self._client: aiohttp.ClientSession | None = None
        self._log: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115  # as long as this

    async def load(self, options: Load) -> dict[str, Any]:
        """See `Driver`."""
        self._options = options
        settings = await self._start(options)
        return {"version": version("llama-cpp-python"), "settings": settings, "imports_mb": resident_mb()}

    async def stream(self, request: Request) -> AsyncGenerator[Step, None]:
        """See `Driver`. Closing the connection is how its clients cancel."""
        if self._client is None or self._options is None:
            raise RuntimeError("nothing is loaded")
        body = {
            "prompt": request.prompt,
            "n_predict": request.max_tokens,
            "temperature": 0.0,
            "repeat_penalty": 1.0,
            "ignore_eos": not request.first_line,
            "cache_prompt": self._options.prefix_caching,
            "stream": True,
            "return_tokens": True,
            "timings_per_token": True,
        }
        async with self._client.post("/completion", json=body) as answer:
            if answer.status != 200:
                raise RuntimeError(f"status {answer.status}: {(await answer.text())[:200]}")
            async for line in answer.content:
                if line.startswith(b"data: "):
                    event = json.loads(line.removeprefix(b"data: "))
                    yield Step(tuple(event.get("tokens", ())), cached=event.get("timings", {}).get("cache_n"))

    async def reset(self) -> None:
        """Start it anew: slots keep their prompts as long as it runs."""
        if self._options is not None:
            await self._end()
            await self._start(self._options)

    async def close(self) -> None:
        """See `Driver`."""
        await self._end()

    async def _start(self, options: Load) -> dict[str, Any]:
        """Start it; gives its settings, by option."""
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        kind = "f32" if options.dtype == "float32" else "f16"
        slots = min(options.sequences, SLOTS)
        settings = {
            "--parallel": slots,
            "--ctx-size": slots * options.max_length,
            "--threads": options.threads,
            "--threads-batch": options.threads,
            "--cache-type-k": kind,
            "--cache-type-v": kind,
        }
        fixed = ["--model", converted(Path(options.model)), "--host", "127.0.0.1", "--port", port, "--no-ui"]
        self._process = await asyncio.create_subprocess_exec(
            PROGRAM,
            *map(str, [*fixed, *(word for pair in settings.items() for word in pair)]),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=self._log,
            stderr=self._log,
        )
        self._client = aiohttp.ClientSession(
            f"http://127.0.0.1:{port}",
            timeout=aiohttp.ClientTimeout(total=None),
            connector=aiohttp.TCPConnector(limit=0),
        )
        async with asyncio.timeout(START_SECONDS):
            while not await self._healthy():
                if self._process.returncode is not None:
                    raise RuntimeError(f"llama-server ended with {self._process.returncode}: {self._last_words()}")
                await asyncio.sleep(POLL_SECONDS)
        return settings

    async def _healthy(self) -> bool:
        if self._client is None:
            return False
        try:
            async with self._client.get("/health") as answer:
                return answer.status == 200
        except aiohttp.ClientError:
            return False

    async def _end(self) -> None:
        if self._client is not None:
            await self._client.close()
        if self._process is not None and self._process.returncode is None:
            self._process.terminate()
            try:
                await asyncio.wait_for(self._process.wait(), END_SECONDS)
            except TimeoutError:
                self._process.kill()
                await self._process.wait()

    def _last_words(self) -> str:
        self._log.seek(0)
        lines = self._log.read().decode(errors="replace").strip().splitlines()
        return lines[-1][:200] if lines else "it said nothing"


if __name__ == "__main__":
    if not PROGRAM.is_file():
        sys.exit(f"{PROGRAM.name} is not among the installed files: it was not built along")
    main(ServerDriver())
