"""What of prefix and suffix fits a budget of tokens, so that typing leaves the cuts where they are.

An engine keeps what it computed of a prompt up to the first token that differs from the prompt before. The suffix is
therefore cut by count from its own start, and its share hangs on quarters of the budget. The prefix begins at an
anchor, which hangs on the lines before the cursor's: where they outgrow their window, it moves on by about a quarter of
itself and then stays for as many tokens. All of it is a function of the text; nothing is remembered.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from aixcoder_serving.fim.vocabulary import Encoded

Encode = Callable[[str], Encoded]

_CHARACTERS_PER_TOKEN = 4  # first guess of how much of a long text is worth encoding; doubled where it is too little
_TORN = 32  # tokens, more than a word adds that is torn where the encoding begins
_LINE_SHARE = 16  # this part of the prefix window is left for the cursor's line to grow in


def whole(encode: Encode, text: str, budget: int) -> list[int] | None:
    """Ids of `text`, or None where they are more than `budget`; a text much longer than that is not encoded whole."""
    reach = (budget + _TORN) * _CHARACTERS_PER_TOKEN
    while reach < len(text):
        if len(encode(text[-reach:]).ids) > budget + _TORN:
            return None
        reach *= 2
    ids = encode(text).ids
    return ids if len(ids) <= budget else None


def suffix_share(budget: int, prefix: int) -> int:
    """Tokens for the suffix where both do not fit, for a prefix of so many: what it leaves in whole quarters.

    A quarter at least: what is before the cursor tells more. In quarters, because a suffix that gives way token by
    token would change all that follows it at each key.
    """
    quarter = budget // 4
    if quarter == 0:
        return max(budget - prefix, 0)
    return budget - quarter * min(-(-prefix // quarter), 3)


def head(encode: Encode, text: str, budget: int) -> list[int]:
    """Ids of the first whole lines of `text` that have at most `budget` tokens; of a longer first line, its start."""
    if budget <= 0:
        return []
    reach = budget * _CHARACTERS_PER_TOKEN
    while True:
        part = text[:reach]
        encoded = encode(part)
        if len(encoded.ids) > budget or len(part) == len(text):
            break
        reach *= 2
    while len(encoded.ids) > budget:
        cut = encoded.starts()[budget]
        end = part.rfind("\n", 0, cut) + 1
        # Re-encoded alone, a cut text can have a token more: then go on with one character less at least.
        part = part[: end or min(cut, len(part) - 1)]
        encoded = encode(part)
    return encoded.ids


class Tail(NamedTuple):
    """What is kept of a text: the index at which it starts, and its ids with those of the header before it."""

    start: int
    ids: list[int]


def tail(encode: Encode, text: str, budget: int, header: str = "") -> Tail:
    """The end of `text`, from an anchor on, that has at most `budget` tokens behind `header`, which has fewer.

    Anchors are a quarter of the window apart, counted in characters from the start of `text`; each is moved on to the
    next start of a line, or stays in the middle of one that is longer than a quarter. Taken is the first after which
    the lines before the cursor's fit, with a sixteenth of the window to spare for the cursor's own.
    """
    # Header and text are encoded as one, as in training; that can be a token more than apart: the end tells.
    window = budget - (len(encode(header).ids) if header else 0)
    if window <= 0:
        return Tail(len(text), encode(header).ids if header else [])
    line = text.rfind("\n") + 1
    spare = window // _LINE_SHARE
    fits = _last(encode, text[:line], window - spare)
    if whole(encode, text[line:], spare) is None:
        fits = max(fits, _last(encode, text, window))
    step = _quarter(encode, text, window)
    anchor = fits // step
    while True:
        start = _position(text, anchor, step)
        if start >= fits:
            ids = encode(header + text[start:]).ids
            if len(ids) <= budget or start == len(text):
                return Tail(start, ids)
        anchor += 1


def _last(encode: Encode, text: str, tokens: int) -> int:
    """Where the last `tokens` tokens of `text` begin; 0 where it has no more."""
    reach = tokens * _CHARACTERS_PER_TOKEN
    while True:
        offset = max(len(text) - reach, 0)
        encoded = encode(text[offset:])
        if len(encoded.ids) > tokens:
            return max(offset + encoded.starts()[-tokens], 1)
        if offset == 0:
            return 0
        reach *= 2


def _quarter(encode: Encode, text: str, budget: int) -> int:
    """A quarter of `budget` tokens in characters, as many to a token as at the start of `text`, where nobody types."""
    sample = text[:budget]
    return max(len(sample) * budget // (4 * max(len(encode(sample).ids), 1)), 1)


def _position(text: str, anchor: int, step: int) -> int:
    """Where an anchor is: at the first start of a line within `step` characters, else where it was counted."""
    at = anchor * step
    newline = text.find("\n", at - 1, at + step - 1) if at else -1
    return min(at if newline < 0 else newline + 1, len(text))
