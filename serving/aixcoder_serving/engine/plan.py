"""What the scheduler tells the ranks to do in one step, and what comes back: the chosen ids, which the next plan needs.

A rank keeps for each slot the tokens so far and the table of blocks; a plan only adds to them. Every rank gets the same
plan, samples the same tokens and writes them after the last one of the slot itself.
"""

from __future__ import annotations

from dataclasses import dataclass

from aixcoder_serving.engine.interface import Sampling, TokenLogprobs


@dataclass(frozen=True, slots=True)
class Admission:
    """A request gets a slot: what was there before is forgotten. `seed` is what `sampling.seed` None became."""

    slot: int
    prompt: tuple[int, ...]
    sampling: Sampling
    seed: int


@dataclass(frozen=True, slots=True)
class Work:
    """Consecutive positions of one slot: `start` to `start + count - 1`, the last `len(draft)` of them drafts.

    `blocks` are appended to the slot's table before. Where `sample` is true, the last position that is no draft and
    each draft give a token: 1 + len(draft) of them.
    """

    slot: int
    start: int
    count: int
    sample: bool
    draft: tuple[int, ...] = ()
    blocks: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Plan:
    """One step. `copies` are (from, to) block pairs, done before anything is computed; a source stays as it is."""

    step: int
    admissions: tuple[Admission, ...]
    copies: tuple[tuple[int, int], ...]
    work: tuple[Work, ...]


@dataclass(frozen=True, slots=True)
class Sampled:
    """What one `Work` with `sample` gave: the accepted drafts and one more token.

    `logprobs` is empty or has one entry a token. `prompt_logprobs`: of the prompt tokens at `start + 1` and after.
    `broken`: the model gave no distribution to choose the next token from (NaN); `token_ids` is what came before.
    """

    token_ids: tuple[int, ...]
    logprobs: tuple[TokenLogprobs, ...] = ()
    prompt_logprobs: tuple[TokenLogprobs, ...] = ()
    broken: bool = False


NOTHING = Sampled(())
"""What a `Work` gives that asks for no token."""


@dataclass(frozen=True, slots=True)
class StepResult:
    """One entry for each `Work` of the plan, in its order; `token_ids` is empty where nothing was sampled."""

    sampled: tuple[Sampled, ...]
