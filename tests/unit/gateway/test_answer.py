"""What is written, once it is there."""

import asyncio
from types import SimpleNamespace
from typing import cast

import pytest

from aixcoder_serving.gateway import answer, problems
from aixcoder_serving.gateway.flight import Flight
from aixcoder_serving.gateway.problems import Problem
from aixcoder_serving.gateway.transcript import Transcript


async def test_the_first_that_fails_ends_the_answer() -> None:
    """Though one before it is still written: the others' places are not kept for what nobody gets."""
    transcripts = [Transcript(), Transcript()]
    flights = [cast(Flight, SimpleNamespace(transcript=each)) for each in transcripts]
    reading = asyncio.create_task(answer._wholes(flights))
    await asyncio.sleep(0)
    transcripts[1].fail(problems.replica_lost())
    with pytest.raises(Problem, match="went away"):
        await asyncio.wait_for(reading, 1)
    assert asyncio.all_tasks() == {asyncio.current_task()}
