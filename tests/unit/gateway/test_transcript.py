"""What a replica said, read at any pace."""

import asyncio

import pytest

from aixcoder_serving.gateway import problems
from aixcoder_serving.gateway.problems import Problem
from aixcoder_serving.gateway.transcript import Piece, Transcript
from aixcoder_serving.protocol import Delta, Finished, Started

STARTED = Started(prompt_tokens=5)
FINISHED = Finished(finish_reason="stop", prompt_tokens=5, completion_tokens=3)


def delta(text: str, *ids: int) -> Delta:
    return Delta(text=text, token_ids=ids)


async def read(transcript: Transcript) -> list[Piece]:
    return [piece async for piece in transcript.read()]


async def test_a_reader_that_is_late_gets_all_in_one() -> None:
    transcript = Transcript()
    for message in (STARTED, delta("a", 1), delta("", 2), delta("b", 3), FINISHED):
        transcript.add(message)
    assert await read(transcript) == [Piece("ab", finished=FINISHED)]
    assert transcript.token_ids == [1, 2, 3]


async def test_a_reader_that_keeps_up_gets_each_piece_and_no_empty_one() -> None:
    transcript = Transcript()
    reading = asyncio.create_task(read(transcript))
    for message in (STARTED, delta("a", 1), delta("", 2), delta("b", 3), FINISHED):
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        transcript.add(message)
    assert [piece.text for piece in await reading] == ["a", "b", ""]


async def test_readers_go_at_their_own_pace() -> None:
    transcript = Transcript()
    early = asyncio.create_task(read(transcript))
    transcript.add(delta("a", 1))
    await asyncio.sleep(0.01)
    transcript.add(delta("b", 2))
    late = asyncio.create_task(read(transcript))
    await asyncio.sleep(0.01)
    transcript.add(FINISHED)
    assert ["".join(piece.text for piece in pieces) for pieces in await asyncio.gather(early, late)] == ["ab", "ab"]


async def test_what_came_before_a_failure_is_read_first() -> None:
    transcript = Transcript()
    transcript.add(delta("a", 1))
    transcript.fail(problems.replica_lost())
    pieces = transcript.read()
    assert (await anext(pieces)).text == "a"
    with pytest.raises(Problem, match="went away"):
        await anext(pieces)


async def test_it_begins_anew_while_nobody_has_read() -> None:
    transcript = Transcript()
    whole = asyncio.create_task(transcript.whole())
    transcript.add(delta("a", 1))
    await asyncio.sleep(0.01)
    assert not transcript.seen
    transcript.restart()
    transcript.add(delta("b", 2))
    transcript.add(FINISHED)
    assert (await whole).text == "b"
    assert transcript.seen


async def test_whole_fails_with_it() -> None:
    transcript = Transcript()
    transcript.add(delta("a", 1))
    transcript.fail(problems.no_replica())
    with pytest.raises(Problem, match="No replica"):
        await transcript.whole()


async def test_what_ends_while_a_piece_is_written_is_read_too() -> None:
    transcript = Transcript()
    transcript.add(delta("a", 1))
    pieces = []
    async for piece in transcript.read():
        pieces.append(piece)
        if len(pieces) == 1:
            transcript.add(delta("b", 2))
            transcript.add(FINISHED)
    assert [(piece.text, piece.finished) for piece in pieces] == [("a", None), ("b", FINISHED)]
