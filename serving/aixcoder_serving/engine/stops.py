"""Stop strings over a stream of bytes: where tokens begin and end does not matter."""

from __future__ import annotations

from collections.abc import Sequence


class StopMatcher:
    """Finds the first stop string in the bytes of one completion."""

    def __init__(self, stop: Sequence[str]) -> None:
        self._stops = [text.encode() for text in stop]
        self._reach = max((len(text) for text in self._stops), default=1) - 1
        self._tail = b""  # the last bytes, as many as can be the start of a match

    def push(self, new: bytes) -> int | None:
        """Take the next token's bytes; once a stop string is complete, the number of bytes from its start to the end.

        Of several the one that starts first counts.
        """
        window = self._tail + new
        starts = [start for text in self._stops if (start := window.find(text)) >= 0]
        self._tail = window[-self._reach :] if self._reach else b""
        return len(window) - min(starts) if starts else None

    @property
    def held(self) -> int:
        """Length of the longest end of the bytes so far that begins a stop string."""
        for n in range(len(self._tail), 0, -1):
            if any(text.startswith(self._tail[-n:]) for text in self._stops):
                return n
        return 0
