"""Each wish of a request reaches the engine, and what comes of it the client. How it acts, the engine's tests tell."""

import math
from itertools import pairwise
from typing import Any

import pytest

from aixcoder_serving.protocol import Delta, TokenLogprobs
from tests.component.replica.conftest import (
    ONE_LOOP,
    PREFIX,
    SUFFIX,
    Messages,
    Replica,
    finished,
    ids_of,
    text_of,
)

pytestmark = ONE_LOOP

PROMPT = {"prefix": PREFIX, "suffix": SUFFIX}
STOP_IDS = {1, 2, 260, 261, 262, 263}


async def _ask(replica: Replica, **sampling: Any) -> Messages:
    return await replica.generate(**PROMPT, sampling={"max_tokens": 24} | sampling)


def _deltas(messages: Messages) -> list[Delta]:
    return [message for message in messages if isinstance(message, Delta)]


def _logprobs(messages: Messages) -> list[TokenLogprobs]:
    return [found for delta in _deltas(messages) for found in delta.logprobs]


async def test_logprobs_are_of_each_token(shared: Replica) -> None:
    messages = await _ask(shared, logprobs=3)
    found = _logprobs(messages)
    assert [each.token_id for each in found] == ids_of(messages)
    assert all(len(delta.logprobs) == len(delta.token_ids) for delta in _deltas(messages))
    assert "".join(each.text for each in found) == text_of(messages)
    for each in found:
        assert each.logprob <= 0
        assert [each.top[0].token_id, each.top[0].logprob] == [each.token_id, each.logprob], "greedy"
        assert all(a.logprob >= b.logprob for a, b in pairwise(each.top))
        assert len(each.top) == 3
    assert sum(math.exp(likely.logprob) for likely in found[0].top) <= 1


async def test_without_a_wish_for_logprobs_none_are_sent(shared: Replica) -> None:
    async with shared.post(**PROMPT, sampling={"max_tokens": 2}) as answer:
        lines = [line async for line in answer.content]
    assert not any(delta.logprobs or delta.prompt_logprobs for delta in _deltas(await _ask(shared)))
    assert b'"finished"' in lines[-1]


async def test_the_prompts_logprobs_come_in_pieces_before_its_completion(shared: Replica) -> None:
    ids = [1, *(300 + i % 700 for i in range(1299))]
    messages = await shared.generate(prompt_token_ids=ids, sampling={"max_tokens": 2, "prompt_logprobs": 1})
    deltas = _deltas(messages)
    assert [found.token_id for delta in deltas for found in delta.prompt_logprobs] == ids[1:]
    assert all(len(delta.prompt_logprobs) <= 512 for delta in deltas)
    assert [bool(delta.token_ids) for delta in deltas] == sorted(bool(delta.token_ids) for delta in deltas)
    alone = await shared.generate(prompt_token_ids=[1, 300, 301], sampling={"max_tokens": 0, "prompt_logprobs": 0})
    assert [found.token_id for delta in _deltas(alone) for found in delta.prompt_logprobs] == [300, 301]
    assert finished(alone).completion_tokens == 0


async def test_the_ends_that_a_request_can_ask_for(shared: Replica) -> None:
    free = await _ask(shared)
    text, ids = text_of(free), ids_of(free)
    assert text.count("\n") > 1
    assert text_of(await _ask(shared, first_line=True)) == text.split("\n")[0]
    indented = await _ask(shared, n_indent=8)
    assert text_of(indented) == text.split("\n")[0]
    assert finished(indented).finish_reason == "stop"
    stopped = await _ask(shared, stop_token_ids=[ids[3]])
    assert ids_of(stopped) == ids[: ids.index(ids[3]) + 1]
    late = await _ask(shared, deadline_ms=0.001)
    assert (ids_of(late), finished(late).finish_reason) == ([], "length")
    long = await shared.generate(**PROMPT, sampling={"max_tokens": 1500, "max_predict_ms": 0.001, "ignore_eos": True})
    assert finished(long).completion_tokens < 100, "the first line was complete long before"


async def test_the_models_own_end_is_kept_away_or_ignored(shared: Replica) -> None:
    suffix = "\n    def _put(self, item):\n        heappush(self.queue, item)\n"

    async def ask(**sampling: Any) -> Messages:
        return await shared.generate(prefix=PREFIX, suffix=suffix, sampling={"max_tokens": 200} | sampling)

    ends = ids_of(await ask())
    assert ends[-1] in STOP_IDS
    kept_away = ids_of(await ask(min_tokens=len(ends) + 5, max_tokens=len(ends) + 5))
    assert len(kept_away) == len(ends) + 5
    assert not STOP_IDS & set(kept_away)
    ignored = ids_of(await ask(ignore_eos=True, max_tokens=len(ends) + 5))
    assert ignored[: len(ends)] == ends
    assert len(ignored) == len(ends) + 5
    own = ids_of(await ask(ignore_eos=True, stop_token_ids=[ends[2]]))
    assert own == ends[: ends.index(ends[2]) + 1]


@pytest.mark.parametrize(
    "sampling",
    [
        {"logit_bias": [[700, 100.0]]},
        {"presence_penalty": 2.0},
        {"frequency_penalty": 2.0},
        {"repetition_penalty": 5.0},
        {"temperature": 2.0, "seed": 3},
        {"temperature": 2.0, "seed": 3, "top_k": 40},
        {"temperature": 2.0, "seed": 3, "top_p": 0.9},
        {"temperature": 2.0, "seed": 3, "min_p": 0.02},
    ],
    ids=str,
)
async def test_what_chooses_tokens_reaches_the_engine(shared: Replica, sampling: dict[str, Any]) -> None:
    """It changes what is written, always in the same way; one that filters nothing is as good as absent."""
    wish = {"max_tokens": 40} | sampling
    without = {key: value for key, value in wish.items() if key != list(sampling)[-1]}
    if "seed" not in without:
        without |= {"seed": 4} if "temperature" in without else {}
    first, again, other = [ids_of(await _ask(shared, **each)) for each in (wish, wish, without)]
    assert first == again
    assert first != other
    if "logit_bias" in sampling:
        assert first == [700] * 40


async def test_a_right_draft_saves_steps_and_changes_nothing(shared: Replica) -> None:
    before = await shared.stats()
    # At random, so that the engine's own guesses are wrong.
    wish = {"max_tokens": 24, "temperature": 2.0, "seed": 7}
    free = await shared.generate(**PROMPT, sampling=wish)
    between = await shared.stats()
    drafted = await shared.generate(**PROMPT, sampling=wish, draft_token_ids=ids_of(free))
    after = await shared.stats()
    assert ids_of(drafted) == ids_of(free)
    assert between["steps"] - before["steps"] > 2 * (after["steps"] - between["steps"])
    assert after["draft_tokens_accepted"] - between["draft_tokens_accepted"] >= 20
    async with shared.post(**PROMPT, draft_token_ids=[1, 4096]) as refused:
        assert refused.status == 400
        assert "the draft's token 1" in (await refused.json())["message"]


async def test_another_salt_finds_nothing(shared: Replica) -> None:
    async def cached(salt: str) -> int:
        return finished(await shared.generate(**PROMPT, sampling={"max_tokens": 1}, cache_salt=salt)).cached_tokens

    assert await cached("one") == 0
    assert await cached("two") == 0
    assert await cached("one") > 0
