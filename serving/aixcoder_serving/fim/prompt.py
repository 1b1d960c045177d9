"""The prompt as token ids, built piece by piece.

Suffix first (spm), so that typing only appends:
  <s> PRE POST {suffix} MIDDLE {other files}{path line}{language line}{prefix}
prefix first (psm):
  <s> PRE {other files}{path line}{language line}{prefix} POST {suffix} MIDDLE
and without a suffix, plain continuation:
  <s> {other files}{path line}{language line}{prefix}

The order is by how seldom a part changes while somebody types: what a key changes comes last, at the cursor. Of the
other files the most volatile ones come last.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from aixcoder_serving.fim import truncate
from aixcoder_serving.fim.languages import header
from aixcoder_serving.fim.overlap import rest_of_line
from aixcoder_serving.fim.vocabulary import Vocabulary

_CONTEXT_SHARE = 4
"""This part of the room, at most, is for other files."""


class NoRoom(ValueError):
    """The tokens left for the prompt do not even hold its sentinels."""


@dataclass(frozen=True)
class Prompt:
    """Token ids to run; `truncated` where something of the context was left out.

    `rest` is the part of the suffix that the model was left to write: `overlap.Trim` takes it off the completion.
    """

    ids: tuple[int, ...]
    truncated: bool = False
    rest: str = ""


def build(
    vocabulary: Vocabulary,
    *,
    prefix: str,
    suffix: str | None,
    path: str | None = None,
    language: str | None = None,
    context: Sequence[tuple[str, str]] = (),
    order: Literal["spm", "psm"] = "spm",
    room: int,
    post_process: bool = False,
) -> Prompt:
    """Build a prompt of at most `room` tokens. Raises `NoRoom`.

    `suffix` None: no fill in the middle; "" is a suffix like any other. Path and language become comment lines before
    the prefix; they are left out where they would take more than half of the room. `post_process`: the suffix of an spm
    prompt may begin at the next line (`overlap.rest_of_line`); without it, it begins at the cursor, as in training.
    `context`: path and text of parts of other files; they have a quarter of the room, the last ones first.
    """
    sentinels = 1 if suffix is None else 4
    budget = room - sentinels
    if budget < 0:
        raise NoRoom(f"a prompt needs at least {sentinels} tokens and {max(room, 0)} are left for it")
    lines = header(path, language)
    truncated = False
    if lines and len(vocabulary.encode(lines).ids) > budget // 2:
        lines, truncated = "", True
    other, left_out = _other_files(vocabulary, context, budget // _CONTEXT_SHARE)
    budget -= len(other)
    rest = rest_of_line(suffix) if suffix and post_process and order == "spm" else ""
    before, after, cut = _fit(vocabulary, lines, prefix, (suffix or "")[len(rest) :], budget)
    ids = _arrange(vocabulary, [*other, *before], None if suffix is None else after, order)
    return Prompt(tuple(ids), truncated or cut or left_out, rest)


def _other_files(vocabulary: Vocabulary, context: Sequence[tuple[str, str]], budget: int) -> tuple[list[int], bool]:
    """Ids of the last whole parts that have at most `budget` together; and whether any was left out."""
    ids: list[int] = []
    for path, text in reversed(context):
        part = truncate.whole(vocabulary.encode, header(path, None) + text.rstrip("\n") + "\n", budget - len(ids))
        if part is None:
            return ids, True
        ids = part + ids
    return ids, False


def _fit(
    vocabulary: Vocabulary, lines: str, prefix: str, suffix: str, budget: int
) -> tuple[list[int], list[int], bool]:
    """Ids of header and prefix, ids of the suffix, at most `budget` together; and whether something was cut."""
    encode = vocabulary.encode
    before = truncate.whole(encode, lines + prefix, budget)
    length = budget if before is None else len(before)
    after = truncate.whole(encode, suffix, budget - length)
    if before is not None and after is not None:
        return before, after, False
    after = truncate.head(encode, suffix, truncate.suffix_share(budget, length))
    room = budget - len(after)
    if before is None or len(before) > room:
        before = truncate.tail(encode, prefix, room, lines).ids
    return before, after, True


def _arrange(vocabulary: Vocabulary, before: list[int], after: list[int] | None, order: str) -> list[int]:
    v = vocabulary
    if after is None:
        return [v.bos, *before]
    if order == "psm":
        return [v.bos, v.pre, *before, v.post, *after, v.middle]
    return [v.bos, v.pre, v.post, *after, v.middle, *before]
