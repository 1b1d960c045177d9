"""Token ids back to text while they come, equal to decoding all of them at once.

A run of byte pieces is text only once the run has ended: valid UTF-8 is its characters, anything else is one U+FFFD for
each of its bytes. Nothing of a run is therefore shown before a piece of another kind, or the end, follows it.
"""

from __future__ import annotations

from collections.abc import Sequence

from aixcoder_serving.fim.vocabulary import Vocabulary


class TextStream:
    """Text of one completion."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._vocabulary = vocabulary
        self._pending: list[int] = []  # ids whose text has not been given out

    def push(self, ids: Sequence[int], held: int = 0) -> str:
        """Take new ids, return the text that is final now.

        The last `held` bytes of all text may turn out to belong to a stop string: tokens that hold them wait.
        """
        special, known = self._vocabulary.special_ids, len(self._vocabulary.token_bytes)
        # A padded model has ids beyond the tokenizer's: they are no text, as special ones are none.
        self._pending += [i for i in ids if i < known and i not in special]
        end = self._settled(held)
        text = self._vocabulary.decode(self._pending[:end])
        del self._pending[:end]
        return text

    def finish(self, trim: int = 0) -> str:
        """Return the rest of the text without its last `trim` bytes (a stop string and what follows it)."""
        cut = b""
        while trim > 0 and self._pending:
            cut = self._vocabulary.token_bytes[self._pending.pop()]
            keep = max(len(cut) - trim, 0)
            trim -= len(cut)
            cut = cut[:keep]
        text = self._vocabulary.decode(self._pending) + cut.decode(errors="replace")
        self._pending.clear()
        return text

    def _settled(self, held: int) -> int:
        """How many pending ids can be given out."""
        end, pending, v = len(self._pending), self._pending, self._vocabulary
        while end and held > 0:
            end -= 1
            held -= len(v.token_bytes[pending[end]])
        if end == len(pending) or v.byte_of(pending[end]) is not None:
            while end and v.byte_of(pending[end - 1]) is not None:
                end -= 1
        return end
