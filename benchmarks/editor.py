"""Typing in an editor that closes brackets and quotes: what is before and after the cursor at each key.

The rules are those of VS Code for Python: a bracket or quote is closed where white space, a closer or nothing follows
the cursor; a closer that the editor wrote is typed over; Enter between two brackets puts the closer on a line of its
own; a new line is indented. What the editor wrote and nobody wants is deleted.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

Cause = Literal["character", "pair opened", "closer typed over", "line break", "line break in a pair", "jump", "delete"]

_CLOSING = {"(": ")", "[": "]", "{": "}"}
_STRING_PREFIX = re.compile(r"(?:^|[^\w\"'])[fFrRbBuU]{0,2}$")
_TYPOS = "aehinorst"


@dataclass(frozen=True)
class Key:
    """The text around the cursor after a key, and what kind of key it was."""

    cause: Cause
    before: str
    after: str


def typing(before: str, wanted: str, after: str, rng: random.Random, typos: float = 0.0) -> Iterator[Key]:
    """Type `wanted` between `before` and `after`. The first key says "jump": the cursor has come here.

    `typos` is the share of letters before which a wrong one is typed and deleted.
    """
    done, end = before, before + wanted
    written = ""  # by the editor, behind the cursor
    yield Key("jump", done, after)
    while done != end:
        left = end[len(done) :]
        character = left[0]
        below = re.match(r"\n\s*(?=(\S))", written)
        cause: Cause = "character"
        if below and left.startswith(below[0] + below[1]):
            done, written, cause = done + below[0], written[below.end() :], "jump"
        elif character != "\n" and written.startswith(character):
            done, written, cause = done + character, written[1:], "closer typed over"
        elif character in written and character in ")]}\"'":
            written, cause = written[1:], "delete"
        elif character == "\n":
            indented = re.match(r"\n[ \t]*", left)
            opened = _CLOSING.get(done[-1:])
            cause = "line break"
            if opened and written.startswith(opened):
                line = done.rpartition("\n")[2]
                written = "\n" + line[: len(line) - len(line.lstrip())] + written
                cause = "line break in a pair"
            done += indented.group() if indented else character
        elif closer := _closer(done, character, written, after):
            done, written, cause = done + character, closer + written, "pair opened"
        else:
            if character.isalpha() and rng.random() < typos:
                yield Key("character", done + rng.choice(_TYPOS), written + after)
                yield Key("delete", done, written + after)
            done += character
        yield Key(cause, done, written + after)
    while written:
        written = written[1:]
        yield Key("delete", done, written + after)


def _closer(done: str, character: str, written: str, after: str) -> str:
    """What the editor writes behind `character`, or ""."""
    if not re.match(r"[\s)\]}\"'`:;,]|$", (written + after)[:1]):
        return ""
    if character in _CLOSING:
        return _CLOSING[character]
    line = done.rpartition("\n")[2]
    if character not in "\"'" or "#" in line or re.search(r"[\"']", written):
        return ""
    if done.endswith(character * 2) and not done.endswith(character * 3):
        return character * 3
    return character if _STRING_PREFIX.search(line) else ""
