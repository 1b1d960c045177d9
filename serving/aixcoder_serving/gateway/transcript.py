"""What a replica has said to one request so far, kept so that each reader goes at its own pace.

A slow client never holds the replica up: it reads what has come since as one delta. Identical requests share one
transcript. It is bounded by what a completion may be.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass

from aixcoder_serving.gateway.problems import Problem
from aixcoder_serving.protocol import Delta, Finished, Started, TokenLogprobs


@dataclass(frozen=True, slots=True)
class Piece:
    """What came since the last one, merged. `finished` with the last."""

    text: str
    logprobs: tuple[TokenLogprobs, ...] = ()
    prompt_logprobs: tuple[TokenLogprobs, ...] = ()
    finished: Finished | None = None


class Transcript:
    """Messages in order. Written by one task, read by any number."""

    def __init__(self) -> None:
        self.token_ids: list[int] = []
        self.characters = 0
        """Of the text so far."""
        self.seen = False
        """Whether any reader has taken text: from then on the answer can not begin anew."""
        self._deltas: list[Delta] = []
        self._finished: Finished | None = None
        self._problem: Problem | None = None
        self._changed = asyncio.Event()

    @property
    def over(self) -> bool:
        """Whether nothing more will come."""
        return self._finished is not None or self._problem is not None

    def add(self, message: Started | Delta | Finished) -> None:
        """Append a message."""
        match message:
            case Started():
                return  # nothing for a client
            case Delta():
                self._deltas.append(message)
                self.token_ids += message.token_ids
                self.characters += len(message.text)
            case Finished():
                self._finished = message
        self._wake()

    def restart(self) -> None:
        """Forget what came: another replica begins anew. Only while no reader has taken text."""
        self._deltas.clear()
        self.token_ids.clear()
        self.characters = 0

    def fail(self, problem: Problem) -> None:
        """It ends in an error."""
        self._problem = problem
        self._wake()

    async def read(self) -> AsyncGenerator[Piece]:
        """Pieces from the beginning to the end.

        Raises:
            Problem: it failed; what came before has been read.

        """
        position = 0
        while True:
            changed, finished = self._changed, self._finished
            fresh = self._deltas[position:]
            text = "".join(delta.text for delta in fresh)
            useful = bool(text) or any(delta.logprobs or delta.prompt_logprobs for delta in fresh)
            if useful or finished is not None:
                position = len(self._deltas)
                self.seen = self.seen or useful
                yield Piece(
                    text,
                    tuple(entry for delta in fresh for entry in delta.logprobs),
                    tuple(entry for delta in fresh for entry in delta.prompt_logprobs),
                    finished,
                )
                if finished is not None:
                    return
            elif self._problem is not None:
                raise self._problem
            else:
                await changed.wait()

    async def whole(self) -> Piece:
        """All of it, once it is complete. Until then the answer can begin anew.

        Raises:
            Problem: it failed.

        """
        while not self.over:
            await self._changed.wait()
        if self._problem is not None:
            raise self._problem
        async with aclosing(self.read()) as pieces:
            return await anext(pieces)

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()
