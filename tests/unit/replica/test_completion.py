"""What one completion sends, given what its generation writes."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from aixcoder_serving.engine.interface import Delta as Written
from aixcoder_serving.engine.interface import Finish
from aixcoder_serving.fim.prompt import Prompt
from aixcoder_serving.fim.vocabulary import Vocabulary
from aixcoder_serving.protocol import Delta, Finished
from aixcoder_serving.replica.service import Completion

TINY = Path(__file__).parents[3] / "models" / "tiny"


@pytest.fixture(scope="module")
def vocabulary() -> Vocabulary:
    return Vocabulary.load(TINY)


class Script:
    """A generation that writes one token a step and ends when it is cancelled."""

    def __init__(self, ids: list[int]) -> None:
        self._ids = ids
        self._written = 0
        self.cancelled = False
        self.finish: Finish | None = None

    async def __aiter__(self) -> AsyncIterator[Written]:
        while self._written < len(self._ids) and not self.cancelled:
            self._written += 1
            yield Written((self._ids[self._written - 1],))
        self.finish = Finish("cancelled" if self.cancelled else "length", self._written)

    def cancel(self) -> None:
        self.cancelled = True


@pytest.mark.parametrize(
    ("rest", "text", "reason", "all_written"),
    [
        ("", "self.queue)\n    return 1\n", "length", True),
        (")\n", "self.queue", "stop", False),
        (");\n", "self.queue", "stop", False),
        ("\n", "self.queue)\n    return 1", "length", True),
    ],
)
async def test_the_rest_of_the_line_ends_it(
    vocabulary: Vocabulary, rest: str, text: str, reason: str, all_written: bool
) -> None:
    ids = vocabulary.encode("self.queue)\n    return 1\n").ids
    generation = Script(ids)
    messages = [message async for message in Completion(vocabulary, Prompt((1,), rest=rest), generation).messages()]
    deltas = [message for message in messages if isinstance(message, Delta)]
    assert "".join(delta.text for delta in deltas) == text
    finished = messages[-1]
    assert isinstance(finished, Finished)
    assert finished.finish_reason == reason
    assert generation.cancelled == (not all_written), "what cannot be shown is not written"
    assert [n for delta in deltas for n in delta.token_ids] == ids[: finished.completion_tokens]
    assert (finished.completion_tokens == len(ids)) == all_written
