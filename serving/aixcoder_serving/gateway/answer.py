"""From the flights of one request to the bytes of its answer, in one piece or as a stream."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterable, Sequence
from contextlib import aclosing

from aixcoder_serving.gateway.account import Account
from aixcoder_serving.gateway.dialects import Answer, Ask, Usage, Writer
from aixcoder_serving.gateway.exchange import Exchange
from aixcoder_serving.gateway.flight import Flight
from aixcoder_serving.gateway.problems import Problem
from aixcoder_serving.gateway.transcript import Piece
from aixcoder_serving.protocol import Finished, TokenLogprobs

OUTCOME_HEADER = "x-aixcoder-outcome"
# Proxies in front must pass each piece on at once.
_UNBUFFERED = (("cache-control", "no-store"), ("x-accel-buffering", "no"))


async def whole(flights: Sequence[Flight], ask: Ask, writer: Writer, exchange: Exchange, account: Account) -> None:
    """Answer in one piece, once all of it is there.

    Raises:
        Problem: one of the completions failed.

    """
    answers, finishes = [], []
    for n, piece in enumerate(await _wholes(flights)):
        if piece.finished is None:
            raise RuntimeError("a transcript that is whole has an end")
        prompt = ask.prompts[n // ask.samples]
        shown = prompt if ask.echo and isinstance(prompt, str) else ""
        answers.append(Answer(n, piece, piece.finished, shown))
        finishes.append(piece.finished)
    account.first_byte()
    usage = total(finishes, ask.samples)
    await exchange.whole(200, writer.whole(best(answers, ask), usage), account.headers)
    account.completed(usage)


async def stream(flights: Sequence[Flight], ask: Ask, writer: Writer, exchange: Exchange, account: Account) -> None:
    """Answer piece by piece. The head waits for the first piece, so that what fails before it can still be an error.

    Raises:
        Problem: one of the completions failed before anything was sent.

    """
    finishes: dict[int, Finished] = {}
    try:
        async with aclosing(_merged(flights)) as pieces:
            async for index, piece in pieces:
                if not exchange.begun:
                    account.first_byte()
                    await exchange.start(200, writer.stream_type, [*_UNBUFFERED, *account.headers])
                data = writer.delta(index, piece) if piece.text or piece.logprobs or piece.prompt_logprobs else b""
                if piece.finished is not None:
                    finishes[index] = piece.finished
                    data += writer.finish(index, piece.finished)
                if data:
                    await exchange.write(data)
        usage = total([finishes[index] for index in sorted(finishes)], ask.samples)
        await exchange.write(writer.end(usage), last=True)
        account.completed(usage)
    except Problem as problem:
        if not exchange.begun or exchange.complete:
            raise
        account.ended(problem)
        await exchange.write(writer.broken(problem), last=True)


async def _wholes(flights: Sequence[Flight]) -> list[Piece]:
    """What each brings, once all have ended, or the first that fails has."""
    try:
        async with asyncio.TaskGroup() as group:
            reading = [group.create_task(flight.transcript.whole()) for flight in flights]
    except ExceptionGroup as failed:
        raise failed.exceptions[0] from None
    return [one.result() for one in reading]


async def empty(ask: Ask, writer: Writer, exchange: Exchange, account: Account) -> None:
    """Answer with empty completions: nothing was asked for, or nobody looks at them any more."""
    finished = Finished(finish_reason="stop", prompt_tokens=0, completion_tokens=0)
    count = len(ask.prompts) * ask.n
    superseded = [(OUTCOME_HEADER, account.outcome)] if account.flights else []
    headers = [*account.headers, *superseded]
    if not ask.stream:
        answers = [Answer(n, Piece(""), finished) for n in range(count)]
        await exchange.whole(200, writer.whole(answers, Usage()), headers)
        return
    await exchange.start(200, writer.stream_type, [*_UNBUFFERED, *headers])
    ends = b"".join(writer.finish(n, finished) for n in range(count))
    await exchange.write(ends + writer.end(Usage()), last=True)


def best(answers: Sequence[Answer], ask: Ask) -> list[Answer]:
    """Of each prompt's samples the `n` with the highest mean of logprobs, numbered anew."""
    chosen: list[Answer] = []
    for start in range(0, len(answers), ask.samples):
        samples = list(answers[start : start + ask.samples])
        if ask.best_of > ask.n:
            samples.sort(key=lambda answer: _mean(answer.piece.logprobs), reverse=True)
        chosen += samples[: ask.n]
    return [Answer(n, answer.piece, answer.finished, answer.prompt) for n, answer in enumerate(chosen)]


def total(finishes: Sequence[Finished], samples: int) -> Usage:
    """What a request used. The samples of one prompt share it."""
    prompts = finishes[::samples]
    return Usage(
        sum(finished.prompt_tokens for finished in prompts),
        sum(finished.completion_tokens for finished in finishes),
        sum(finished.cached_tokens for finished in prompts),
    )


def _mean(logprobs: Sequence[TokenLogprobs]) -> float:
    return sum(entry.logprob for entry in logprobs) / len(logprobs) if logprobs else -float("inf")


async def _merged(flights: Sequence[Flight]) -> AsyncGenerator[tuple[int, Piece]]:
    """Pieces of all transcripts as they come, with the number of the flight."""
    if len(flights) == 1:
        async with aclosing(flights[0].transcript.read()) as pieces:
            async for piece in pieces:
                yield 0, piece
        return
    readers = [flight.transcript.read() for flight in flights]
    pending: dict[asyncio.Future[Piece], int] = {
        asyncio.ensure_future(anext(reader)): n for n, reader in enumerate(readers)
    }
    try:
        while pending:
            done, _ = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
            for task in _in_order(done, pending):
                n = pending.pop(task)
                piece = task.result()
                yield n, piece
                if piece.finished is None:
                    pending[asyncio.ensure_future(anext(readers[n]))] = n
    finally:
        for task in pending:
            task.cancel()
        await asyncio.gather(*pending, return_exceptions=True)
        for reader in readers:
            await reader.aclose()


def _in_order(
    done: Iterable[asyncio.Future[Piece]], numbers: dict[asyncio.Future[Piece], int]
) -> list[asyncio.Future[Piece]]:
    return sorted(done, key=lambda task: numbers[task])
