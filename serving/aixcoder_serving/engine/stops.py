"""Where a completion ends, decided on its bytes while tokens come: where tokens begin and end does not matter.

Three automata read the bytes: stop strings, the end of the first line, and a line that is indented too little. Each
ends the text at the first byte that decides it; where several decide at one byte, the one that trims most counts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, NamedTuple, Protocol

from aixcoder_serving.engine.interface import Sampling

_WHITE = b" \t\r\n\f\v"
_INDENTATION = b" \t"


@dataclass(frozen=True, slots=True)
class Verdict:
    """Why a completion ends with this token; its last `trim_bytes` bytes are no part of the answer."""

    reason: Literal["stop", "length"]
    trim_bytes: int = 0


class Ending:
    """All reasons of its own for which a request ends; deadlines and cancelling are the scheduler's.

    The first `min_tokens` tokens end nothing by what they spell: a stop string must be complete after them, as in
    vLLM; one that begins in them counts. Stop ids count always: the sampler keeps them away before `min_tokens`.
    """

    def __init__(self, sampling: Sampling, token_bytes: Sequence[bytes]) -> None:
        """`token_bytes`: what each id stands for; an id beyond the table stands for nothing."""
        self.tokens = 0
        self.held_bytes = 0
        """How many of the last bytes may yet be trimmed; after a verdict its `trim_bytes`."""
        self._sampling = sampling
        self._stop_ids = frozenset[int]() if sampling.ignore_eos else sampling.stop_ids
        self._token_bytes = token_bytes
        self._automata: list[_Automaton] = []
        if sampling.stop:
            self._automata.append(StopMatcher(sampling.stop))
        if sampling.first_line:
            self._automata.append(_FirstLine())
        if sampling.n_indent > 0:
            self._automata.append(_Indentation(sampling.n_indent))
        self._late_ms: float | None = None  # when max_predict_ms is over, on the caller's clock
        self._line_ended = False

    def resume(self, token_ids: Sequence[int]) -> None:
        """Read tokens that were generated before, none of which was the last; lengths begin behind them."""
        for token_id in token_ids:
            new = self._bytes(token_id)
            for automaton in self._automata:
                automaton.scan(new, counts=False)
            self._line_ended = self._line_ended or b"\n" in new

    def push(self, token_id: int, elapsed_ms: float) -> Verdict | None:
        """Take the next token; the verdict if it is the last one.

        Checked in this order: where the text ends (stop strings, `first_line`, `n_indent`), stop ids, `max_tokens`,
        `max_predict_ms`. `elapsed_ms` is a reading of any clock that only goes forward; it counts from the first push.
        """
        self.tokens += 1
        trim = self._read(token_id) if self._automata else None
        # A stop id may spell the end of a stop string: that is trimmed all the same.
        if trim is not None or token_id in self._stop_ids:
            self.held_bytes = trim or 0
            return Verdict("stop", self.held_bytes)
        if self.tokens >= self._sampling.max_tokens or self._is_late(token_id, elapsed_ms):
            self.held_bytes = 0
            return Verdict("length")
        return None

    def _read(self, token_id: int) -> int | None:
        """Feed the automata; how many bytes to trim where one of them ends the text."""
        new = self._bytes(token_id)
        counts = self.tokens > self._sampling.min_tokens
        cuts = [cut for automaton in self._automata if (cut := automaton.scan(new, counts)) is not None]
        self.held_bytes = max(automaton.held for automaton in self._automata)
        return len(new) - min(cuts).start if cuts else None

    def _is_late(self, token_id: int, elapsed_ms: float) -> bool:
        """Whether `max_predict_ms` is over and a line end was generated, this token's included.

        So says llama.cpp's documentation of `t_max_predict_ms`; its server waits for one more line end.
        """
        if self._sampling.max_predict_ms is None:
            return False
        if self._late_ms is None:
            self._late_ms = elapsed_ms + self._sampling.max_predict_ms
        self._line_ended = self._line_ended or b"\n" in self._bytes(token_id)
        return self._line_ended and elapsed_ms > self._late_ms

    def _bytes(self, token_id: int) -> bytes:
        return self._token_bytes[token_id] if token_id < len(self._token_bytes) else b""


def ended(sampling: Sampling, token_bytes: Sequence[bytes], token_ids: Sequence[int]) -> Verdict | None:
    """The verdict on the last of a completion's tokens, all of which are there; None where it goes on behind it.

    `sampling` is that of the whole. None of the tokens before can have ended it: whoever chose them stopped there.
    """
    if not token_ids:
        return None
    ending = Ending(sampling, token_bytes)
    ending.resume(token_ids[:-1])
    ending.tokens = len(token_ids) - 1
    return ending.push(token_ids[-1], 0.0)


class _Cut(NamedTuple):
    """Offsets in the bytes just read: behind the byte that decides, and where the answer ends (< 0: before them)."""

    end: int
    start: int


class _Automaton(Protocol):
    """Reads one completion. `held`: how many of the last bytes it may yet cut off."""

    held: int

    def scan(self, new: bytes, counts: bool = True) -> _Cut | None:
        """Take the next bytes; where the text ends in them. Without `counts` they end nothing."""
        ...


class StopMatcher:
    """Finds the stop string that is complete first; of two at the same byte, the longer one."""

    def __init__(self, stop: Sequence[str]) -> None:
        self._trie = _trie(tuple(stop))
        self._state = 0
        self.held = 0

    def scan(self, new: bytes, counts: bool = True) -> _Cut | None:
        """See `_Automaton.scan`."""
        children, fallback, ends = self._trie.children, self._trie.fallback, self._trie.ends
        state = self._state
        for i, byte in enumerate(new):
            while byte not in children[state] and state:
                state = fallback[state]
            state = children[state].get(byte, 0)
            if ends[state] and counts:
                return _Cut(i + 1, i + 1 - ends[state])
        self._state = state
        self.held = self._trie.held[state]
        return None


class _Trie(NamedTuple):
    """Stop strings by their bytes (Aho and Corasick, 1975). A state is a beginning of one or more, 0 the empty one."""

    children: list[dict[int, int]]
    fallback: list[int]
    """The longest state that is a proper end of this one."""
    ends: list[int]
    """Length of the longest stop string with which this state ends, or 0."""
    held: list[int]
    """Length of the longest end of this state that a stop string can go on from."""


@lru_cache(maxsize=64)  # clients send the same few stop strings with each request
def _trie(stop: tuple[str, ...]) -> _Trie:
    trie = _Trie([{}], [0], [0], [0])
    # JSON can bring half a surrogate pair: no text has its bytes.
    for text in [text.encode(errors="surrogatepass") for text in stop]:
        state = 0
        for byte in text:
            if byte not in trie.children[state]:
                trie.children[state][byte] = len(trie.children)
                trie.children.append({})
                trie.fallback.append(0)
                trie.ends.append(0)
                trie.held.append(0)
            state = trie.children[state][byte]
        trie.ends[state] = len(text)
    level, depth = [0], 0
    while level:  # by depth: a fallback is shorter than its state, so it is complete
        depth += 1
        for parent in level:
            for byte, state in trie.children[parent].items():
                shorter = trie.fallback[parent]
                while byte not in trie.children[shorter] and shorter:
                    shorter = trie.fallback[shorter]
                target = trie.children[shorter].get(byte, 0) if parent else 0
                trie.fallback[state] = target
                trie.ends[state] = trie.ends[state] or trie.ends[target]
                trie.held[state] = depth if trie.children[state] else trie.held[target]
        level = [state for parent in level for state in trie.children[parent].values()]
    return trie


class _FirstLine:
    """Ends the text at the first line end that has anything but ASCII white space before it; trims from there on."""

    def __init__(self) -> None:
        self.held = 0
        self._begun = False

    def scan(self, new: bytes, counts: bool = True) -> _Cut | None:
        """See `_Automaton.scan`."""
        begin = 0
        if not self._begun:
            begin = len(new) - len(new.lstrip(_WHITE))
            self._begun = begin < len(new)
        if not self._begun:
            return None
        at = new.find(b"\n", begin)
        if at >= 0 and counts:
            return _Cut(at + 1, at - _carriage_return(new, at, self.held))
        self.held = _carriage_return(new, len(new), self.held)
        return None


class _Indentation:
    """Ends the text before a line, but the first, that begins with fewer than `least` spaces and tabs.

    This is `n_indent` of llama.cpp's server (`process_token` in tools/server/server-context.cpp, read in 2026): only
    lines after a generated line end are looked at; a tab counts as one; a line is judged by its first byte that is
    neither space nor tab. A line end is such a byte, so an empty line ends the text too. Two differences: there the
    line end and the indentation before that byte stay, here they are trimmed, because an editor would show them; and
    there it counts as a limit, here as a stop, because the answer is complete.
    """

    def __init__(self, least: int) -> None:
        self.held = 0
        self._least = least
        self._indent: int | None = None  # of the line that begins; None once judged, and in the first line

    def scan(self, new: bytes, counts: bool = True) -> _Cut | None:
        """See `_Automaton.scan`."""
        position = 0
        while position < len(new):
            if self._indent is None:
                at = new.find(b"\n", position)
                if at < 0:
                    self.held = _carriage_return(new, len(new), self.held)
                    return None
                self.held = 1 + _carriage_return(new, at, self.held)
                self._indent = 0
                position = at + 1
            while position < len(new) and self._indent < self._least and new[position] in _INDENTATION:
                self._indent += 1
                self.held += 1
                position += 1
            if self._indent >= self._least:
                self._indent, self.held = None, 0
            elif position < len(new):
                if counts:
                    return _Cut(position + 1, position - self.held)
                self._indent, self.held = None, 0
        return None


def _carriage_return(new: bytes, at: int, before: int) -> int:
    """1 if the byte before `at` is a carriage return, part of the line end there; `before` tells it where `at` is 0."""
    return int(new[at - 1] == 0x0D) if at else before
