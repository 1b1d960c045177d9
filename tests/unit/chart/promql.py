"""What a PromQL expression names: its series with their matchers, and the labels that it groups by."""

from __future__ import annotations

import re
from dataclasses import dataclass

_GROUPING = re.compile(r"\b(?:by|without|on|ignoring|group_left|group_right)\s*\(([^()]*)\)")
_RANGE = re.compile(r"\[[^\]]*\]")
_NAME = re.compile(r"(?<![\w:.$])([a-zA-Z_:][\w:]*)\s*(\{[^{}]*\})?(?!\s*\()(?![\w:])")
_MATCHER = re.compile(r'(\w+)\s*(=~|!~|!=|=)\s*"([^"]*)"')
_WORDS = frozenset({"and", "or", "unless", "bool", "offset"})


@dataclass(frozen=True, slots=True)
class Selector:
    """One series that is asked for. `matchers`: label, operator, value."""

    name: str
    matchers: tuple[tuple[str, str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Names:
    """All that an expression names."""

    selectors: tuple[Selector, ...]
    groupings: frozenset[str]


def names(expression: str) -> Names:
    """Read an expression. Matchers' values hold no braces and no parentheses, and no string stands elsewhere."""
    groupings = {label.strip() for group in _GROUPING.findall(expression) for label in group.split(",")}
    bare = _RANGE.sub("", _GROUPING.sub("", expression))
    selectors = tuple(
        Selector(name, tuple(_MATCHER.findall(matchers)))
        for name, matchers in _NAME.findall(bare)
        if name not in _WORDS
    )
    return Names(selectors, frozenset(groupings))
