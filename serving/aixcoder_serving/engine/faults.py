"""Faults in words."""

from __future__ import annotations


def first_line(error: BaseException) -> str:
    """A fault's first line, or its type where it has no text."""
    return next(iter(str(error).splitlines()), "") or type(error).__name__
