"""The prompt as token ids, built piece by piece.

Suffix first (spm), so that typing only appends:
  <s> PRE POST {suffix} MIDDLE {path line}{language line}{prefix}
prefix first (psm):
  <s> PRE {path line}{language line}{prefix} POST {suffix} MIDDLE
and without a suffix, plain continuation:
  <s> {path line}{language line}{prefix}
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from aixcoder_serving.fim import truncate
from aixcoder_serving.fim.languages import header
from aixcoder_serving.fim.vocabulary import Vocabulary

_CHARACTERS_PER_TOKEN = 8  # more than code has on average


class NoRoom(ValueError):
    """The tokens left for the prompt do not even hold its sentinels."""


@dataclass(frozen=True)
class Prompt:
    """Token ids to run; `truncated` where something of the context was left out."""

    ids: tuple[int, ...]
    truncated: bool = False


def build(
    vocabulary: Vocabulary,
    *,
    prefix: str,
    suffix: str | None,
    path: str | None = None,
    language: str | None = None,
    order: Literal["spm", "psm"] = "spm",
    room: int,
) -> Prompt:
    """Build a prompt of at most `room` tokens. Raises `NoRoom`.

    `suffix` None: no fill in the middle; "" is a suffix like any other. Path and language become comment lines before
    the prefix; they are left out where they would take more than half of the room.
    """
    sentinels = 1 if suffix is None else 4
    budget = room - sentinels
    if budget < 0:
        raise NoRoom(f"a prompt needs at least {sentinels} tokens and {max(room, 0)} are left for it")
    lines = header(path, language)
    truncated = False
    if lines and len(vocabulary.encode(lines).ids) > budget // 2:
        lines, truncated = "", True

    before, after = prefix, suffix or ""
    reserved = len(vocabulary.encode(lines).ids) if lines else 0
    # What is surely too long is cut before it is encoded whole.
    fits = len(before) + len(after) <= budget * _CHARACTERS_PER_TOKEN
    while True:
        if not fits:
            before, after = _fit(vocabulary, before, after, budget - reserved)
        before_ids, after_ids = vocabulary.encode(lines + before).ids, vocabulary.encode(after).ids
        over = len(before_ids) + len(after_ids) - budget
        if over <= 0:
            break
        if fits:
            fits = False
        else:
            # Header and prefix are encoded as one text, as in training; that can cost a token more than apart.
            reserved += over
    truncated = truncated or before != prefix or after != (suffix or "")
    return Prompt(tuple(_arrange(vocabulary, before_ids, None if suffix is None else after_ids, order)), truncated)


def _fit(vocabulary: Vocabulary, prefix: str, suffix: str, budget: int) -> tuple[str, str]:
    """Cut both texts so that they have at most `budget` tokens together."""
    encode = vocabulary.encode
    before, after = truncate.tail(encode, prefix, budget), truncate.head(encode, suffix, budget)
    n_before, n_after = len(encode(before).ids), len(encode(after).ids)
    if n_before + n_after <= budget:
        return before, after
    for_before, for_after = truncate.split(budget, n_before, n_after)
    return truncate.tail(encode, before, for_before), truncate.head(encode, after, for_after)


def _arrange(vocabulary: Vocabulary, before: list[int], after: list[int] | None, order: str) -> list[int]:
    v = vocabulary
    if after is None:
        return [v.bos, *before]
    if order == "psm":
        return [v.bos, v.pre, *before, v.post, *after, v.middle]
    return [v.bos, v.pre, v.post, *after, v.middle, *before]
