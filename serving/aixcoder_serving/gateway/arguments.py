"""What arguments of the command line are read as."""

from __future__ import annotations


def names(text: str) -> tuple[str, ...]:
    """A list of names, "a, b"."""
    return tuple(name for name in (part.strip() for part in text.split(",")) if name)
