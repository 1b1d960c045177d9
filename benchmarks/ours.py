"""Our engine's driver: `EngineClient` as the benchmarks talk to it, with drafts from what an editor was shown."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import asdict
from importlib.metadata import version
from typing import Any

from aixcoder_serving.engine.client import EngineClient
from aixcoder_serving.engine.interface import EngineSettings, Sampling
from aixcoder_serving.fim.vocabulary import Vocabulary
from benchmarks.peers.lines import Load, Request, Step, main, resident_mb


def imports_mb() -> float:
    """What the engine's process has in memory after its imports."""
    code = "import aixcoder_serving.engine.process, benchmarks.peers.lines as lines; print(lines.resident_mb())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return float(done.stdout)


class Proposals:
    """What each editor was last shown, as bytes: the draft of a request is the part that was not typed yet.

    That is what a client, or the server on its behalf, knows without running anything.
    """

    def __init__(self, encode: Callable[[str], Sequence[int]], token_bytes: Sequence[bytes], middle: int) -> None:
        self._encode = encode
        self._token_bytes = token_bytes
        self._middle = middle
        self._shown: dict[int, tuple[bytes, bytes]] = {}  # by editor: before the cursor, proposed there

    def draft(self, editor: int, prompt: Sequence[int]) -> tuple[int, ...]:
        """Ids of the rest of the last proposal where what was typed since agrees with it, else none."""
        if editor not in self._shown:
            return ()
        before, proposed = self._shown[editor]
        now = self._before_cursor(prompt)
        typed = now[len(before) :]
        if not now.startswith(before) or not proposed.startswith(typed):
            return ()
        try:
            rest = proposed[len(typed) :].decode()
        except UnicodeDecodeError:  # the cursor is inside a character, or the proposal ends in one
            return ()
        return tuple(self._encode(rest))

    def shown(self, editor: int, prompt: Sequence[int], output: Sequence[int]) -> None:
        """Take what came back; nothing came back from a request that was cancelled early."""
        if output:
            self._shown[editor] = self._before_cursor(prompt), self._text(output)

    def _before_cursor(self, prompt: Sequence[int]) -> bytes:
        """The prompt behind the sentinel that separates the suffix from it."""
        return self._text(prompt[prompt.index(self._middle) + 1 :] if self._middle in prompt else prompt)

    def _text(self, ids: Sequence[int]) -> bytes:
        return b"".join(self._token_bytes[i] if i < len(self._token_bytes) else b"" for i in ids)


class OurDriver:
    """See `Driver`."""

    ends_lines = True

    def __init__(self, *, drafts: bool = True) -> None:
        """Without `drafts` nothing is guessed ahead, whatever is asked for."""
        self._drafts = drafts
        self._client: EngineClient | None = None
        self._proposals: Proposals | None = None
        self._eos = 0
        self._salt = 0

    async def load(self, options: Load) -> dict[str, Any]:
        """See `Driver`."""
        vocabulary = Vocabulary.load(options.model)
        own_mb = resident_mb()
        drafting = options.drafting and self._drafts
        settings = EngineSettings(
            model_path=options.model,
            device="cpu",
            dtype=options.dtype,  # type: ignore[arg-type]  # checked by the harness
            tensor_parallel_size=options.tensor_parallel,
            max_model_length=options.max_length,
            max_concurrent_sequences=options.sequences,
            cache_tokens=options.cache_tokens,
            prefix_caching=options.prefix_caching,
            drafting=drafting,
            threads=options.threads,
        )
        if drafting:
            self._proposals = Proposals(
                lambda text: vocabulary.encode(text).ids, vocabulary.token_bytes, vocabulary.middle
            )
        self._eos = options.eos
        self._client = EngineClient(settings, vocabulary.token_bytes)
        await asyncio.to_thread(self._client.load)
        told = {name: value for name, value in asdict(settings).items() if name != "model_path"}
        return {
            "version": version("aixcoder"),
            "settings": told,
            "imports_mb": own_mb,
            "started_imports_mb": await asyncio.to_thread(imports_mb),
        }

    async def stream(self, request: Request) -> AsyncGenerator[Step, None]:
        """See `Driver`."""
        if self._client is None:
            raise RuntimeError("nothing is loaded")
        sampling = Sampling(
            max_tokens=request.max_tokens,
            ignore_eos=not request.first_line,
            stop_ids=frozenset({self._eos}),
            first_line=request.first_line,
        )
        draft = self._proposals.draft(request.editor, request.prompt) if self._proposals else ()
        generation = self._client.submit(request.prompt, sampling, draft=draft, cache_salt=str(self._salt))
        output: list[int] = []
        try:
            async for delta in generation:
                output += delta.token_ids
                yield Step(delta.token_ids)
            if generation.finish is not None:
                yield Step((), cached=generation.finish.cached_tokens)
        finally:
            generation.cancel()
            if self._proposals is not None:
                self._proposals.shown(request.editor, request.prompt, output)

    async def reset(self) -> None:
        """See `Driver`: what has another salt is not found again."""
        self._salt += 1

    async def close(self) -> None:
        """See `Driver`."""
        if self._client is not None:
            await asyncio.to_thread(self._client.close)


if __name__ == "__main__":
    main(OurDriver(drafts="no-drafts" not in sys.argv[1:]))
