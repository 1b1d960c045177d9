"""What one completion sends, given what its generation writes."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Literal

import pytest

from aixcoder_serving.engine.interface import Delta as Written
from aixcoder_serving.engine.interface import Finish, GenerationFailed
from aixcoder_serving.engine.interface import TokenLogprobs as Computed
from aixcoder_serving.engine.stops import Verdict
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

    def __init__(self, deltas: list[Written], *, fault: str | None = None, cached: int = 0) -> None:
        self._deltas = deltas
        self._cached = cached
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
        reason: Literal["cancelled", "length"] = "cancelled" if self.cancelled else "length"
        self.finish = Finish(reason, self._written, cached_tokens=self._cached)

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


PROMPT = Prompt((1, 300, 301, 302))


@pytest.mark.parametrize(
    ("written", "generated", "told"),
    [
        pytest.param([Written((700,), cached_tokens=3), Written((701,), cached_tokens=3)], [], [3, None], id="tokens"),
        pytest.param([Written((700,), cached_tokens=0)], [], [0], id="none were found"),
        pytest.param(
            [Written((), prompt_logprobs=(Computed(300, -1.0),) * 600), Written((700,))],
            [],
            [0, None, None],
            id="the prompt's logprobs",
        ),
        pytest.param([Written((702,), cached_tokens=5)], [700, 701], [4], id="what another one chose is no prompt"),
    ],
)
async def test_the_first_delta_tells_what_was_cached(
    vocabulary: Vocabulary, written: list[Written], generated: list[int], told: list[int | None]
) -> None:
    left: list[int | None] = []
    script = Script(written, cached=written[0].cached_tokens)
    made = Completion(vocabulary, PROMPT, script, generated=generated, ended=left.append)
    messages = [message async for message in made.messages()]
    assert [
        message.begun and message.begun.cached_tokens
        for message in messages
        if isinstance(message, Delta)
        if message.token_ids or message.prompt_logprobs
    ] == told
    assert isinstance(messages[-1], Finished)
    assert [messages[-1].cached_tokens] == told[:1] == left


@pytest.mark.parametrize(
    ("written", "token_ids"),
    [
        pytest.param([Written((700,), waited_ms=20.0), Written((701,))], [(700,), (701,)], id="with its first token"),
        pytest.param([Written((), waited_ms=20.0), Written((700,))], [(), (700,)], id="before it"),
        pytest.param(
            [Written((), prompt_logprobs=(Computed(300, -1.0),) * 600, waited_ms=20.0), Written((700,))],
            [(), (), (700,)],
            id="with the prompt's logprobs",
        ),
    ],
)
async def test_the_first_delta_tells_how_long_it_waited(
    vocabulary: Vocabulary, written: list[Written], token_ids: list[tuple[int, ...]]
) -> None:
    messages = [message async for message in completion(vocabulary, Script(written)).messages()]
    deltas = [message for message in messages if isinstance(message, Delta)][: len(token_ids)]
    assert [delta.token_ids for delta in deltas] == token_ids
    assert [delta.begun and delta.begun.waited_ms for delta in deltas] == [20.0] + [None] * (len(token_ids) - 1)


async def test_of_what_was_not_computed_nothing_was_cached(vocabulary: Vocabulary) -> None:
    left: list[int | None] = []
    async for _ in Completion(vocabulary, PROMPT, Script([]), ended=left.append).messages():
        pass
    assert left == [None]


@pytest.mark.parametrize(
    ("over", "text", "reason"),
    [
        pytest.param(Verdict("stop", len("return 1\n")), "self.queue\n    ", "stop", id="a stop string"),
        pytest.param(Verdict("stop"), "self.queue\n    return 1\n", "stop", id="a stop id"),
        pytest.param(Verdict("length"), "self.queue\n    return 1\n", "length", id="the length"),
    ],
)
@pytest.mark.parametrize("told", [0, 4])
async def test_one_that_was_over_tells_what_is_left_of_its_text(
    vocabulary: Vocabulary, over: Verdict, text: str, reason: str, told: int
) -> None:
    ids = vocabulary.encode("self.queue\n    return 1\n").ids
    made = Completion(vocabulary, PROMPT, Script([]), generated=ids, over=over, told_characters=told)
    _, delta, finished = [message async for message in made.messages()]
    assert isinstance(delta, Delta)
    assert isinstance(finished, Finished)
    assert (delta.text, delta.token_ids) == (text[told:], ())
    assert (finished.finish_reason, finished.completion_tokens) == (reason, len(ids))
