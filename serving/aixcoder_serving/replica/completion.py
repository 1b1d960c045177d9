"""One completion: from what a request asks to what the engine is told, from the engine's tokens to messages."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence

from aixcoder_serving.engine.interface import Generation, GenerationFailed
from aixcoder_serving.engine.interface import Sampling as EngineSampling
from aixcoder_serving.engine.interface import TokenLogprobs as EngineLogprobs
from aixcoder_serving.engine.stops import Verdict
from aixcoder_serving.fim.detokenize import TextStream
from aixcoder_serving.fim.overlap import Trim
from aixcoder_serving.fim.prompt import Prompt
from aixcoder_serving.fim.vocabulary import Vocabulary
from aixcoder_serving.protocol import Begun, Delta, Failed, Finished, LikelyToken, Sampling, Started, TokenLogprobs

_PROMPT_LOGPROBS = 512
"""Most entries in one message: with 20 likeliest each, about a megabyte. Readers bound a message's length."""


def engine_sampling(wish: Sampling, vocabulary: Vocabulary, resumed: int = 0) -> EngineSampling:
    """What a request wishes, as the engine takes it. `ignore_eos` leaves the request's own stop ids, as in vLLM.

    `resumed`: tokens of the completion that were generated before.
    """
    stop_ids = frozenset(wish.stop_token_ids)
    return EngineSampling(
        max_tokens=max(wish.max_tokens - resumed, 0),
        min_tokens=max(wish.min_tokens - resumed, 0),
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
        resumed=resumed,
    )


class Completion:
    """A request that the engine has; `messages` is to be iterated once."""

    def __init__(
        self,
        vocabulary: Vocabulary,
        prompt: Prompt,
        generation: Generation,
        *,
        report: int = 0,
        generated: Sequence[int] = (),
        over: Verdict | None = None,
        told_characters: int = 0,
        moved: Callable[[], None] = lambda: None,
        ended: Callable[[int | None], None] = lambda cached: None,
        engine_lost: Callable[[], bool] = lambda: False,
    ) -> None:
        """`report`: the first load report that counts it. `generated`: what another replica chose before.

        `told_characters`: how much of its text that one has told; `over`: how its last token ends the completion, where
        it does.

        `moved` is called when it gets its first tokens, `ended` when it is over, with the prompt's tokens that were in
        the cache, where it was computed and that is known.
        """
        self._vocabulary = vocabulary
        self._prompt = prompt
        self._generation = generation
        self._report = report
        self._generated = generated
        self._over = over
        self._told_characters = told_characters
        self._moved = moved
        self._ended = ended
        self._engine_lost = engine_lost
        self._abandoned = False

    @property
    def prompt_tokens(self) -> int:
        """Of the prompt that was built."""
        return len(self._prompt.ids)

    def abandon(self) -> None:
        """The client is gone: end it within one step."""
        self._abandoned = True
        self._generation.cancel()
        self._ended(None)

    async def messages(self) -> AsyncIterator[Started | Delta | Finished | Failed]:
        """The protocol's messages, `Finished` or `Failed` last; nothing more once abandoned."""
        yield Started(prompt_tokens=len(self._prompt.ids), truncated=self._prompt.truncated, report=self._report)
        text, trim = TextStream(self._vocabulary), Trim(self._prompt.rest)
        told = self._told_characters
        if self._generated:  # another replica told most of it; how much it held back is not known here
            trim.push(text.push(self._generated, sum(len(self._vocabulary.bytes_of(i)) for i in self._generated)))
        moved = begun = False
        try:
            async for delta in self._generation:
                first: Begun | None = None
                if not begun:
                    begun = True
                    first = Begun(cached_tokens=self._cached(delta.cached_tokens), waited_ms=delta.waited_ms or 0.0)
                for start in range(0, len(delta.prompt_logprobs), _PROMPT_LOGPROBS):
                    part = self._logprobs(delta.prompt_logprobs[start : start + _PROMPT_LOGPROBS])
                    yield Delta(text="", token_ids=(), prompt_logprobs=part, begun=first)
                    first = None
                if first is not None and not delta.token_ids:
                    yield Delta(text="", token_ids=(), begun=first)
                if delta.token_ids:
                    if not moved:
                        moved = True
                        self._moved()
                    shown = trim.push(text.push(delta.token_ids, delta.held_bytes))
                    shown, told = shown[told:], max(told - len(shown), 0)
                    logprobs = self._logprobs(delta.logprobs)
                    yield Delta(text=shown, token_ids=delta.token_ids, logprobs=logprobs, begun=first)
                if trim.done:
                    self._generation.cancel()
        except GenerationFailed as fault:
            # With the engine gone nothing was wrong with the request: another replica may complete it.
            yield Failed(status=503 if self._engine_lost() else 500, message=str(fault))
            return
        finish = self._generation.finish
        self._ended(self._cached(finish.cached_tokens) if finish is not None and begun else None)
        if self._abandoned or finish is None:
            return
        if finish.reason == "cancelled" and not trim.done:
            stopped = "the replica stopped before the completion ended: send it again"
            yield Failed(status=503, message=stopped, leaving=True)
            return
        trim_bytes = finish.trim_bytes if self._over is None else self._over.trim_bytes
        if rest := (trim.push(text.finish(trim_bytes)) + trim.finish())[told:]:
            yield Delta(text=rest, token_ids=())
        reason = finish.reason if self._over is None else self._over.reason
        yield Finished(
            finish_reason="stop" if reason == "cancelled" else reason,
            prompt_tokens=len(self._prompt.ids),
            completion_tokens=len(self._generated) + finish.completion_tokens,
            cached_tokens=self._cached(finish.cached_tokens),
        )

    def _cached(self, tokens: int) -> int:
        """Of the prompt: the engine's own goes on with what was generated elsewhere, and may find that too."""
        return min(tokens, len(self._prompt.ids))

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
