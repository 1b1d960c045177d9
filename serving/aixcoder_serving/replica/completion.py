"""One completion: from what a request asks to what the engine is told, from the engine's tokens to messages."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable

from aixcoder_serving.engine.interface import Generation, GenerationFailed
from aixcoder_serving.engine.interface import Sampling as EngineSampling
from aixcoder_serving.engine.interface import TokenLogprobs as EngineLogprobs
from aixcoder_serving.fim.detokenize import TextStream
from aixcoder_serving.fim.overlap import Trim
from aixcoder_serving.fim.prompt import Prompt
from aixcoder_serving.fim.vocabulary import Vocabulary
from aixcoder_serving.protocol import Delta, Failed, Finished, LikelyToken, Sampling, Started, TokenLogprobs

_PROMPT_LOGPROBS = 512
"""Most entries in one message: with 20 likeliest each, about a megabyte. Readers bound a message's length."""


def engine_sampling(wish: Sampling, vocabulary: Vocabulary) -> EngineSampling:
    """What a request wishes, as the engine takes it. `ignore_eos` leaves the request's own stop ids, as in vLLM."""
    stop_ids = frozenset(wish.stop_token_ids)
    return EngineSampling(
        max_tokens=wish.max_tokens,
        min_tokens=wish.min_tokens,
        temperature=wish.temperature,
        top_p=wish.top_p,
        top_k=wish.top_k,
        min_p=wish.min_p,
        seed=wish.seed,
        presence_penalty=wish.presence_penalty,
        frequency_penalty=wish.frequency_penalty,
        repetition_penalty=wish.repetition_penalty,
        logit_bias=wish.logit_bias,
        logprobs=wish.logprobs,
        prompt_logprobs=wish.prompt_logprobs,
        stop_ids=stop_ids if wish.ignore_eos else stop_ids | vocabulary.stop_ids,
        stop=wish.stop,
        first_line=wish.first_line,
        n_indent=wish.n_indent,
        deadline_ms=wish.deadline_ms,
        max_predict_ms=wish.max_predict_ms,
    )


class Completion:
    """A request that the engine has; `messages` is to be iterated once."""

    def __init__(
        self, vocabulary: Vocabulary, prompt: Prompt, generation: Generation, engine_lost: Callable[[], bool]
    ) -> None:
        self._vocabulary = vocabulary
        self._prompt = prompt
        self._generation = generation
        self._engine_lost = engine_lost
        self._abandoned = False

    def abandon(self) -> None:
        """The client is gone: end it within one step."""
        self._abandoned = True
        self._generation.cancel()

    async def messages(self) -> AsyncIterator[Started | Delta | Finished | Failed]:
        """The protocol's messages, `Finished` or `Failed` last; nothing more once abandoned."""
        yield Started(prompt_tokens=len(self._prompt.ids), truncated=self._prompt.truncated)
        text, trim = TextStream(self._vocabulary), Trim(self._prompt.rest)
        try:
            async for delta in self._generation:
                for start in range(0, len(delta.prompt_logprobs), _PROMPT_LOGPROBS):
                    part = delta.prompt_logprobs[start : start + _PROMPT_LOGPROBS]
                    yield Delta(text="", token_ids=(), prompt_logprobs=self._logprobs(part))
                if delta.token_ids:
                    shown = trim.push(text.push(delta.token_ids, delta.held_bytes))
                    yield Delta(text=shown, token_ids=delta.token_ids, logprobs=self._logprobs(delta.logprobs))
                if trim.done:
                    self._generation.cancel()
        except GenerationFailed as fault:
            # With the engine gone nothing was wrong with the request: another replica may complete it.
            yield Failed(status=503 if self._engine_lost() else 500, message=str(fault))
            return
        finish = self._generation.finish
        if self._abandoned or finish is None:
            return
        if finish.reason == "cancelled" and not trim.done:
            yield Failed(status=503, message="the replica stopped before the completion ended: send it again")
            return
        if rest := trim.push(text.finish(finish.trim_bytes)) + trim.finish():
            yield Delta(text=rest, token_ids=())
        yield Finished(
            finish_reason="stop" if finish.reason == "cancelled" else finish.reason,
            prompt_tokens=len(self._prompt.ids),
            completion_tokens=finish.completion_tokens,
            cached_tokens=finish.cached_tokens,
        )

    def _logprobs(self, found: tuple[EngineLogprobs, ...]) -> tuple[TokenLogprobs, ...]:
        return tuple(
            TokenLogprobs(
                token_id=token.token_id,
                text=self._text_of(token.token_id),
                logprob=token.logprob,
                top=tuple(LikelyToken(token_id=i, text=self._text_of(i), logprob=value) for i, value in token.top),
            )
            for token in found
        )

    def _text_of(self, token_id: int) -> str:
        return self._vocabulary.bytes_of(token_id).decode(errors="replace")
