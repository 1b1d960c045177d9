"""What one completion sends, given what its generation writes."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from aixcoder_serving.engine.interface import Delta as Written
from aixcoder_serving.engine.interface import Finish, GenerationFailed
from aixcoder_serving.engine.interface import TokenLogprobs as Computed
from aixcoder_serving.fim.prompt import Prompt
from aixcoder_serving.fim.vocabulary import Vocabulary
from aixcoder_serving.protocol import Delta, Failed, Finished, LikelyToken, TokenLogprobs
from aixcoder_serving.replica.completion import Completion

TINY = Path(__file__).parents[3] / "models" / "tiny"


@pytest.fixture(scope="module")
def vocabulary() -> Vocabulary:
    return Vocabulary.load(TINY)


class Script:
    """A generation that writes one delta a step and ends when it is cancelled, or by a fault."""

    def __init__(self, deltas: list[Written], *, fault: str | None = None) -> None:
        self._deltas = deltas
        self._written = 0
        self._fault = fault
        self.cancelled = False
        self.finish: Finish | None = None

    async def __aiter__(self) -> AsyncIterator[Written]:
        while self._written < len(self._deltas) and not self.cancelled:
            self._written += 1
            yield self._deltas[self._written - 1]
        if self._fault is not None:
            raise GenerationFailed(self._fault)
        self.finish = Finish("cancelled" if self.cancelled else "length", self._written)

    def cancel(self) -> None:
        self.cancelled = True


def completion(vocabulary: Vocabulary, script: Script, *, rest: str = "", engine_lost: bool = False) -> Completion:
    return Completion(vocabulary, Prompt((1,), rest=rest), script, engine_lost=lambda: engine_lost)


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
    generation = Script([Written((i,)) for i in ids])
    messages = [message async for message in completion(vocabulary, generation, rest=rest).messages()]
    deltas = [message for message in messages if isinstance(message, Delta)]
    assert "".join(delta.text for delta in deltas) == text
    finished = messages[-1]
    assert isinstance(finished, Finished)
    assert finished.finish_reason == reason
    assert generation.cancelled == (not all_written), "what cannot be shown is not written"
    assert [n for delta in deltas for n in delta.token_ids] == ids[: finished.completion_tokens]
    assert (finished.completion_tokens == len(ids)) == all_written


@pytest.mark.parametrize(("engine_lost", "status"), [(False, 500), (True, 503)])
async def test_a_fault_is_the_requests_own_or_the_engines(
    vocabulary: Vocabulary, engine_lost: bool, status: int
) -> None:
    script = Script([Written((700,))], fault="why")
    messages = [message async for message in completion(vocabulary, script, engine_lost=engine_lost).messages()]
    assert messages[-1] == Failed(status=status, message="why")
    assert isinstance(messages[-2], Delta)


async def test_logprobs_carry_the_tokens_text(vocabulary: Vocabulary) -> None:
    (word,) = vocabulary.encode("return").ids[-1:]
    half = 3 + "é".encode()[0]  # a byte piece
    computed = Computed(word, -0.5, ((word, -0.5), (half, -1.5), (vocabulary.eos, -2.5), (vocabulary.size + 1, -3.5)))
    messages = [m async for m in completion(vocabulary, Script([Written((word,), logprobs=(computed,))])).messages()]
    text = vocabulary.bytes_of(word).decode()
    (delta,) = [message for message in messages if isinstance(message, Delta)]
    assert delta.logprobs == (
        TokenLogprobs(
            token_id=word,
            text=text,
            logprob=-0.5,
            top=(
                LikelyToken(token_id=word, text=text, logprob=-0.5),
                LikelyToken(token_id=half, text="\ufffd", logprob=-1.5),
                LikelyToken(token_id=vocabulary.eos, text="", logprob=-2.5),
                LikelyToken(token_id=vocabulary.size + 1, text="", logprob=-3.5),
            ),
        ),
    )


async def test_a_long_prompts_logprobs_come_in_several_messages(vocabulary: Vocabulary) -> None:
    computed = tuple(Computed(300 + i % 100, -float(i)) for i in range(1100))
    script = Script([Written((), prompt_logprobs=computed), Written((700,))])
    messages = [message async for message in completion(vocabulary, script).messages()]
    deltas = [message for message in messages if isinstance(message, Delta)]
    assert [len(delta.prompt_logprobs) for delta in deltas] == [512, 512, 76, 0]
    assert [found.logprob for delta in deltas for found in delta.prompt_logprobs] == [-float(i) for i in range(1100)]
    assert [delta.token_ids for delta in deltas] == [(), (), (), (700,)]
