"""One completion between gateway and replica: what is asked, and the stream that answers.

A replica answers `POST /generate` (body: `CompletionRequest`) with NDJSON: one `Started`, any number of `Delta`, then
one `Finished` or `Failed`. A stream that ends without either was cut.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, TypeAdapter, model_validator

from aixcoder_serving.protocol.message import Message, Versioned

TokenId = Annotated[int, Field(ge=0)]
Penalty = Annotated[float, Field(ge=-2.0, le=2.0, allow_inf_nan=False)]
Milliseconds = Annotated[float, Field(gt=0.0, allow_inf_nan=False)]
Likeliest = Annotated[int, Field(ge=0, le=20)]


class Sampling(Message):
    """How to choose tokens and when to stop. Temperature 0 is greedy; a seed that is None is a new one each time.

    Bias, penalties and filters act in the order of vLLM: bias and `min_tokens`, penalties, temperature, min-p, top-k,
    top-p. `top_k` 0: all tokens. `logprobs` n: those of each token and of the n likeliest in its place, of the model's
    own distribution; `prompt_logprobs` n: the same for each token of the prompt but the first.

    The text ends before a stop string; with `first_line` at the end of the first line that has more than white space;
    with `n_indent` at the first later line that is indented by fewer characters. A token of `stop_token_ids` ends it as
    the model's own end does, which `ignore_eos` takes away. `deadline_ms` counts from the replica's acceptance and ends
    it wherever it is; `max_predict_ms` from the first token, once a line is complete.
    """

    max_tokens: int = Field(default=256, ge=0)
    min_tokens: int = Field(default=0, ge=0)
    temperature: float = Field(default=0.0, ge=0.0, le=2.0, allow_inf_nan=False)
    top_p: float = Field(default=1.0, gt=0.0, le=1.0, allow_inf_nan=False)
    top_k: int = Field(default=0, ge=0)
    min_p: float = Field(default=0.0, ge=0.0, le=1.0, allow_inf_nan=False)
    seed: int | None = Field(default=None, ge=-(2**63), lt=2**63)
    presence_penalty: Penalty = 0.0
    frequency_penalty: Penalty = 0.0
    repetition_penalty: float = Field(default=1.0, ge=0.01, le=100.0, allow_inf_nan=False)
    logit_bias: tuple[tuple[TokenId, Annotated[float, Field(ge=-100.0, le=100.0, allow_inf_nan=False)]], ...] = Field(
        default=(), max_length=1024
    )
    logprobs: Likeliest | None = None
    prompt_logprobs: Likeliest | None = None
    stop: tuple[Annotated[str, Field(min_length=1, max_length=256)], ...] = Field(default=(), max_length=16)
    stop_token_ids: tuple[TokenId, ...] = Field(default=(), max_length=1024)
    ignore_eos: bool = False
    first_line: bool = False
    n_indent: int = Field(default=0, ge=0)
    deadline_ms: Milliseconds | None = None
    max_predict_ms: Milliseconds | None = None


class ContextFile(Message):
    """A part of another file that tells something of the one at the cursor."""

    path: str = Field(max_length=4096)
    text: str


class CompletionRequest(Versioned):
    """What is before and after the cursor, or token ids as they are.

    Exactly one of `prefix` and `prompt_token_ids` is set. `suffix` None: plain continuation (`<s>` + prefix); "" or
    more: fill in the middle. Token ids are run untouched, no bos is added, and they exclude `suffix`.

    `post_process`: the text is fit to go in at the cursor as it is. Where an editor closed brackets or quotes behind
    it, the model is left to write the rest of the cursor's line, and that is taken off. Without it, prompt and text are
    the reference's own.

    `context`: of other files, what seldom changes first; what does not fit is left out from the beginning on.

    `generated_token_ids`: another replica chose these, the first ones of the completion, and told `told_characters` of
    their text. It goes on behind them, and only what follows is told; `sampling` is that of the whole.

    `draft_token_ids`: what the completion probably begins with, such as what is left of the editor's last one; a right
    guess is fast, a wrong one changes nothing. Only requests with the same `cache_salt` share what is computed of a
    common beginning.
    """

    id: str = Field(min_length=1, max_length=128)
    prefix: str | None = None
    suffix: str | None = None
    prompt_token_ids: tuple[TokenId, ...] | None = None
    path: str | None = Field(default=None, max_length=4096)
    language: str | None = Field(default=None, max_length=64)
    order: Literal["spm", "psm"] = "spm"
    post_process: bool = False
    sampling: Sampling = Sampling()
    context: tuple[ContextFile, ...] = Field(default=(), max_length=256)
    generated_token_ids: tuple[TokenId, ...] = ()
    told_characters: int = Field(default=0, ge=0)
    draft_token_ids: tuple[TokenId, ...] = ()
    cache_salt: str = Field(default="", max_length=256)

    @model_validator(mode="after")
    def _one_prompt(self) -> CompletionRequest:
        if (self.prefix is None) == (self.prompt_token_ids is None):
            raise ValueError("exactly one of prefix and prompt_token_ids must be given")
        if self.prompt_token_ids is not None and self.suffix is not None:
            raise ValueError("suffix goes with a text prompt: token ids are run as they are")
        return self


FinishReason = Literal["stop", "length"]


class Started(Versioned):
    """The prompt was accepted and has `prompt_tokens` tokens; `truncated` where context was cut to fit.

    The replica's load reports count it from number `report` on.
    """

    type: Literal["started"] = "started"
    prompt_tokens: int = Field(ge=0)
    truncated: bool = False
    report: int = Field(default=0, ge=0)


class LikelyToken(Message):
    """A token, what it adds to the text, and the natural logarithm of its probability.

    What are no whole characters of the text, bytes of a longer one, is U+FFFD; special tokens add nothing.
    """

    token_id: int
    text: str
    logprob: float


class TokenLogprobs(LikelyToken):
    """A token of the prompt or the completion, with the likeliest ones in its place, the likeliest first."""

    top: tuple[LikelyToken, ...] = ()


class Begun(Message):
    """The first step of a prompt is done: it was begun `waited_ms` after `Started`.

    `cached_tokens` is what `Finished` will say: a stream can be cut before.
    """

    cached_tokens: int = Field(ge=0)
    waited_ms: float = Field(ge=0)


class Delta(Message):
    """Newly generated tokens and the text they add; text may lag behind while bytes of a character are missing.

    `logprobs` has one entry for each token where they were asked for; `prompt_logprobs` come before the first token.
    The first delta of a stream comes with the first step of its prompt, with tokens or not, and alone has `begun`.
    """

    type: Literal["delta"] = "delta"
    text: str
    token_ids: tuple[int, ...]
    logprobs: tuple[TokenLogprobs, ...] = ()
    prompt_logprobs: tuple[TokenLogprobs, ...] = ()
    begun: Begun | None = None


class Finished(Message):
    """The completion ended as it should. `completion_tokens` counts the stop token, where one ended it.

    `cached_tokens` of the prompt were not computed but found in the replica's cache.
    """

    type: Literal["finished"] = "finished"
    finish_reason: FinishReason
    prompt_tokens: int = Field(ge=0)
    completion_tokens: int = Field(ge=0)
    cached_tokens: int = Field(default=0, ge=0)


class Failed(Message):
    """The completion failed after it had started; `status` is the HTTP status it would have had.

    `leaving`: nothing is wrong with the request; its replica was told to end, and waited for it as long as it may.
    """

    type: Literal["failed"] = "failed"
    status: int = Field(ge=400, le=599)
    message: str
    leaving: bool = False


StreamMessage = Annotated[Started | Delta | Finished | Failed, Field(discriminator="type")]
STREAM_MESSAGE: TypeAdapter[Started | Delta | Finished | Failed] = TypeAdapter(StreamMessage)


class Refused(Message):
    """Body of a 4xx or 5xx answer of a replica: what was wrong, where, and what to do."""

    message: str
    param: str | None = None
