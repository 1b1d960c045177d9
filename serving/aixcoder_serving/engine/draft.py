"""What a request will probably generate next: ids that one step verifies together, so that right ones cost no step.

They come from the request's own `draft` (the rest of the editor's last completion) while the output agrees with it,
else from what followed the last ids where they occur earlier, in the prompt or the output (prompt lookup, Saxena 2023).
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence

_FIRST = 16  # ids of the typed draft before any was right: all of a long one, wrong, would delay the first token
_WINDOW = 32  # ids of the typed draft, and generated ones, in which agreement is looked for again
_LOOKBACK = 16384  # ids that a lookup searches: bounds its time
_MISSES = 3  # after as many in a row, 2 equal ids are not enough


class Drafter:
    """Proposes drafts for one request. What it proposes changes no output, only how many steps it takes."""

    def __init__(self, prompt: Sequence[int], typed: Sequence[int] = (), enabled: bool = True) -> None:
        """`typed`: ids that the completion probably begins with. Nothing is copied or indexed before it is needed."""
        self._prompt = prompt
        self._enabled = enabled
        self._generated: list[int] = []
        self._typed = _Typed(tuple(typed))
        self._lookup: _Lookup | None = None
        self._looked_up = False  # whether the last proposal came from the lookup
        self._right = 1  # of the last proposal of the lookup
        self._misses = 0  # proposals of the lookup in a row of which nothing was right

    def propose(self, limit: int) -> tuple[int, ...]:
        """At most `limit` ids that may follow now. May be called again, and its result be cut or dropped.

        A looked up draft has one id more than twice what was right of the last one: a wrong id costs its computation.
        """
        if not self._enabled or limit <= 0:
            return ()
        draft = self._typed.propose(limit)
        self._looked_up = not draft
        if draft:
            return draft
        if self._lookup is None:
            self._lookup = _Lookup([*self._prompt, *self._generated])
        start = self._lookup.behind(3)
        if start is None and self._misses < _MISSES:
            start = self._lookup.behind(2)
        return () if start is None else self._lookup.follow(start, min(limit, 1 + 2 * self._right))

    def push(self, token_ids: Sequence[int]) -> None:
        """Take the ids that were generated, in order."""
        if not self._enabled:
            return
        for token_id in token_ids:
            self._generated.append(token_id)
            self._typed.push(self._generated)
            if self._lookup is not None:
                self._lookup.push(token_id)

    def accepted(self, proposed: int, accepted: int) -> None:
        """Of the last proposal, `proposed` ids were verified and the first `accepted` of them were right."""
        if self._looked_up and proposed > 0:
            self._right = accepted
            self._misses = 0 if accepted else self._misses + 1


class _Typed:
    """The request's own draft, and where in it the output stands."""

    def __init__(self, ids: tuple[int, ...]) -> None:
        self._ids = ids
        self._next: int | None = 0 if ids else None  # index of the id that should come; None: they disagree
        self._agreed: int | None = None  # ids that agreed since they did not; None: they always did
        self._lost_at = 0
        self._lost_for = _WINDOW

    def propose(self, limit: int) -> tuple[int, ...]:
        """All that is left once the output agrees; less before, and as much as the agreement since is worth after."""
        if self._next is None:
            return ()
        if self._agreed is not None:
            limit = min(limit, 4 * self._agreed)
        elif self._next == 0:
            limit = min(limit, _FIRST)
        return self._ids[self._next : self._next + limit]

    def push(self, generated: Sequence[int]) -> None:
        """Follow the output by its last id."""
        at = self._next
        if at is None:
            if self._lost_for < _WINDOW:
                self._lost_for += 1
                self._find(generated)
        elif at < len(self._ids) and self._ids[at] == generated[-1]:
            self._next = at + 1
            if self._agreed is not None:
                self._agreed += 1
        else:
            self._next, self._lost_at, self._lost_for = None, at, 0

    def _find(self, generated: Sequence[int]) -> None:
        """Look a little further on for the last 3 ids, then for the last 2."""
        for n in (3, 2):
            last = tuple(generated[-n:])
            for start in range(max(self._lost_at - 1, 0), min(self._lost_at + _WINDOW, len(self._ids) - n)):
                if self._ids[start : start + n] == last:
                    self._next, self._agreed = start + n, n
                    return


class _Lookup:
    """Where the last ids occur before, searched in their bytes.

    In a prompt of 8k ids a search takes about 10 µs. A table of all runs of ids would answer in one, but takes 2 ms
    and 1 MB to make: more than the searches of a completion take, and most requests are cancelled before many.
    """

    def __init__(self, ids: Sequence[int]) -> None:
        self._bytes = bytearray(_pack(ids))

    def push(self, token_id: int) -> None:
        """Append one id."""
        self._bytes += _pack([token_id])

    def behind(self, count: int) -> int | None:
        """Index behind the last earlier occurrence of the last `count` ids."""
        size = count * _SIZE
        if len(self._bytes) <= size:
            return None
        last = self._bytes[-size:]
        first, end = max(0, len(self._bytes) - _LOOKBACK * _SIZE), len(self._bytes) - _SIZE
        while (at := self._bytes.rfind(last, first, end)) % _SIZE:  # between two ids; -1 is such a place too
            if at < 0:
                return None
            end = at + size - 1
        return at // _SIZE + count

    def follow(self, start: int, count: int) -> tuple[int, ...]:
        """`count` ids from `start` on; behind the last id it goes on with what it gave, as a repetition would."""
        found = _unpack(self._bytes[start * _SIZE : (start + count) * _SIZE])
        return tuple(found[i % len(found)] for i in range(count))


_SIZE = array("I").itemsize


def _pack(ids: Sequence[int]) -> bytes:
    return array("I", ids).tobytes()


def _unpack(data: bytes | bytearray) -> array[int]:
    return array("I", bytes(data))
