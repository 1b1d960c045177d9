"""What of prefix and suffix fits: whole lines nearest to the cursor, within a budget of tokens."""

from __future__ import annotations

from collections.abc import Callable

from aixcoder_serving.fim.vocabulary import Encoded

Encode = Callable[[str], Encoded]

SUFFIX_SHARE = 0.25
"""Part of the budget that the suffix may claim against a longer prefix: what is before the cursor tells more."""

_CHARACTERS_PER_TOKEN = 8  # first guess of the window that is worth encoding; it grows where it is too small


def split(budget: int, prefix: int, suffix: int) -> tuple[int, int]:
    """Tokens for prefix and suffix, given how many each has; what one leaves over goes to the other."""
    if prefix + suffix <= budget:
        return prefix, suffix
    for_suffix = min(suffix, max(int(budget * SUFFIX_SHARE), budget - prefix))
    return min(prefix, budget - for_suffix), for_suffix


def tail(encode: Encode, text: str, budget: int) -> str:
    """The last whole lines of `text` that have at most `budget` tokens; of a longer last line, its end."""
    if budget <= 0:
        return ""
    reach = budget * _CHARACTERS_PER_TOKEN
    while True:
        window = text if reach >= len(text) else text[_line_start(text, len(text) - reach) :]
        encoded = encode(window)
        if len(encoded.ids) > budget or len(window) == len(text):
            break
        reach *= 4
    while len(encoded.ids) > budget:
        cut = _character_start(encoded.starts, len(encoded.ids) - budget)
        start = _line_start(window, cut)
        window = window[start if start < len(window) else cut :]
        encoded = encode(window)
    return window


def head(encode: Encode, text: str, budget: int) -> str:
    """The first whole lines of `text` that have at most `budget` tokens; of a longer first line, its start."""
    if budget <= 0:
        return ""
    reach = budget * _CHARACTERS_PER_TOKEN
    while True:
        window = text[:reach]
        encoded = encode(window)
        if len(encoded.ids) > budget or len(window) == len(text):
            break
        reach *= 4
    while len(encoded.ids) > budget:
        cut = encoded.starts[budget]
        end = window.rfind("\n", 0, cut) + 1
        # Re-encoded alone, a cut text can have a token more: then go on with one character less at least.
        window = window[: end or min(cut, len(window) - 1)]
        encoded = encode(window)
    return window


def _line_start(text: str, position: int) -> int:
    """The first start of a line at or after `position`, or the end of `text`."""
    if position == 0:
        return 0
    newline = text.find("\n", position - 1)
    return len(text) if newline < 0 else newline + 1


def _character_start(starts: list[int], token: int) -> int:
    """Where the first character begins that lies wholly in the tokens from `token` on; at least 1."""
    here = starts[token]
    if starts[token - 1] == here:  # `token` is inside a character that fell apart into bytes
        return here + 1
    return max(here, 1)
