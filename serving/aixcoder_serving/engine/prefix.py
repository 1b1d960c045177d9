"""Which pages of the cache can be read again: full ones by hash, then one that is partly equal, by token.

`PrefixIndex` knows published pages and nothing of who uses them; `blocks.BlockPool` does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from aixcoder_serving.engine.prefix_hash import extend_hash

CANDIDATES = 16
"""How many pages of one parent and one first token are looked at for a partial match, the latest ones first."""

_NONE = -1


class IntegrityError(RuntimeError):
    """The bookkeeping of the cache contradicts itself; the message names the rule that is broken."""


@dataclass(frozen=True, slots=True)
class Match:
    """The longest cached prefix of some tokens: `tokens` of them.

    `blocks` hold full pages. `partial` is (block, n): the first n tokens of that page come next, it is to be copied.
    `moment` is the index's at the time of the match: a page removed later makes the match worthless.
    """

    blocks: tuple[int, ...]
    partial: tuple[int, int] | None
    tokens: int
    moment: int = 0

    @property
    def sources(self) -> tuple[int, ...]:
        """All blocks that must stay until the match was made use of."""
        return self.blocks if self.partial is None else (*self.blocks, self.partial[0])

    def without_partial(self) -> Match:
        """The same match without the page to be copied, which costs a block until the copy was made."""
        return self if self.partial is None else replace(self, partial=None, tokens=self.tokens - self.partial[1])


NO_MATCH = Match((), None, 0)


class _Page(NamedTuple):
    digest: bytes
    parent: bytes
    tokens: tuple[int, ...]


class PrefixIndex:
    """Published pages. At most one has a given full hash; any number have the same parent.

    A full page that was computed while another block was published with its hash is a duplicate: remembered, not
    matched, and published on `settle` where the other is gone by then.

    One list for each property instead of an object for each page: 100,000 objects would be walked by each full garbage
    collection. Pages of equal parent and first token are linked, the latest published, read or released one first.
    """

    def __init__(self, total: int, block_size: int) -> None:
        self._block_size = block_size
        self._by_hash: dict[bytes, int] = {}
        self._hash: list[bytes | None] = [None] * total  # None: not published, or not full
        self._parent: list[bytes | None] = [None] * total  # None: not published
        self._tokens: list[tuple[int, ...]] = [()] * total
        self._latest: dict[tuple[bytes, int], int] = {}
        self._older = [_NONE] * total
        self._newer = [_NONE] * total
        self._duplicates: dict[int, _Page] = {}
        self._removed_at = [0] * total
        self._moment = 0

    def find(self, digest: bytes) -> int | None:
        """The block of the full page with that hash."""
        return self._by_hash.get(digest)

    def hash_of(self, block: int) -> bytes | None:
        """The page's hash; None where it is not full or not published."""
        return self._hash[block]

    def parent_of(self, block: int) -> bytes | None:
        """The hash of the page before; None where this one is neither published nor a duplicate."""
        duplicate = self._duplicates.get(block)
        return duplicate.parent if duplicate else self._parent[block]

    def published(self, block: int) -> bool:
        """Whether the block's page can be matched."""
        return self._parent[block] is not None

    def original(self, block: int) -> int | None:
        """The block that is published with the hash of this duplicate; None where it is none, or that one is gone."""
        duplicate = self._duplicates.get(block)
        return None if duplicate is None else self._by_hash.get(duplicate.digest)

    def duplicate(self, block: int) -> bool:
        """Whether the block's page is one that another block was published with before."""
        return block in self._duplicates

    def current(self, match: Match) -> bool:
        """Whether all pages of the match have been published ever since."""
        moment = match.moment
        return all(self._parent[b] is not None and self._removed_at[b] <= moment for b in match.sources)

    def put(self, block: int, digest: bytes | None, parent: bytes, tokens: tuple[int, ...]) -> None:
        """Publish a page, or more of it; `digest` None: it is not full. Raises ValueError where it was another page."""
        old_digest, old_parent, old_tokens = self._duplicates.get(block) or (
            self._hash[block],
            self._parent[block],
            self._tokens[block],
        )
        grown = tokens[: len(old_tokens)] == old_tokens
        if not grown or old_parent not in (None, parent) or old_digest not in (None, digest):
            raise ValueError(f"block {block} was published as another page: a page can only grow")
        if old_digest is not None:
            return
        if digest is not None and digest in self._by_hash:
            if self.published(block):
                self.remove(block)
            self._duplicates[block] = _Page(digest, parent, tokens)
            return
        if self.published(block):
            self._tokens[block] = tokens
        else:
            self._parent[block], self._tokens[block] = parent, tokens
            self._link(block)
        if digest is not None:
            self._hash[block] = digest
            self._by_hash[digest] = block

    def settle(self, block: int) -> int | None:
        """Nobody uses the block any more: which one is to keep its page? None where there is nothing to keep.

        Itself, or the one that was published with the same hash, or one that holds all tokens of a partial page.
        """
        duplicate = self._duplicates.pop(block, None)
        if duplicate is not None:
            indexed = self._by_hash.get(duplicate.digest)
            if indexed is not None:
                self.refresh(indexed)
                return indexed
            self.put(block, *duplicate)
        parent = self._parent[block]
        if parent is None:
            return None
        self.refresh(block)
        tokens = self._tokens[block]
        if len(tokens) < self._block_size:
            for other in self.siblings(parent, tokens[0]):
                if other != block and self._tokens[other][: len(tokens)] == tokens:
                    self.remove(block)
                    self.refresh(other)
                    return other
        return block

    def covered_by(self, block: int) -> list[int]:
        """Published partial pages whose tokens are all in this one."""
        tokens = self._tokens[block]
        return [
            b
            for b in self.siblings(*self._key(block))
            if b != block and self._tokens[b] == tokens[: len(self._tokens[b])]
        ]

    def remove(self, block: int) -> bytes | None:
        """Forget a published page; returns its hash."""
        self._unlink(block)
        digest = self._hash[block]
        if digest is not None:
            del self._by_hash[digest]
        self._hash[block] = self._parent[block] = None
        self._tokens[block] = ()
        self._moment += 1
        self._removed_at[block] = self._moment
        return digest

    def refresh(self, block: int) -> None:
        """Make it the latest of its siblings."""
        if self._newer[block] != _NONE:
            self._unlink(block)
            self._link(block)

    def siblings(self, parent: bytes, first: int) -> list[int]:
        """The latest pages with that parent and first token, at most `CANDIDATES`."""
        found: list[int] = []
        block = self._latest.get((parent, first), _NONE)
        while block != _NONE and len(found) < CANDIDATES:
            found.append(block)
            block = self._older[block]
        return found

    def match(self, tokens: Sequence[int], hashes: Sequence[bytes], root: bytes, limit: int) -> Match:
        """The longest published prefix of `tokens`, at most `limit` of them; `hashes` are those of its full pages."""
        blocks: list[int] = []
        for digest in hashes[: max(limit, 0) // self._block_size]:
            block = self._by_hash.get(digest)
            if block is None:
                break
            blocks.append(block)
        full = len(blocks)
        start = full * self._block_size
        wanted = tuple(tokens[start : min(start + self._block_size, limit)]) if start < limit else ()
        partial = None
        if wanted:
            whole = self._by_hash.get(hashes[full]) if full < len(hashes) else None
            if whole is not None:  # the limit cuts into a page that is there
                partial = (whole, len(wanted))
            else:
                partial = self._most_shared(hashes[full - 1] if full else root, wanted)
        return Match(tuple(blocks), partial, start + (partial[1] if partial else 0), self._moment)

    def _most_shared(self, parent: bytes, wanted: tuple[int, ...]) -> tuple[int, int] | None:
        best = None
        most = 0
        for block in self.siblings(parent, wanted[0]):
            shared = _shared(self._tokens[block], wanted)
            if shared > most:
                best, most = (block, shared), shared
                if most == len(wanted):
                    break
        return best

    def _link(self, block: int) -> None:
        key = self._key(block)
        older = self._latest.get(key, _NONE)
        self._older[block] = older
        if older != _NONE:
            self._newer[older] = block
        self._latest[key] = block

    def _unlink(self, block: int) -> None:
        older, newer = self._older[block], self._newer[block]
        if older != _NONE:
            self._newer[older] = newer
        if newer != _NONE:
            self._older[newer] = older
        elif older != _NONE:
            self._latest[self._key(block)] = older
        else:
            del self._latest[self._key(block)]
        self._older[block] = self._newer[block] = _NONE

    def _key(self, block: int) -> tuple[bytes, int]:
        parent = self._parent[block]
        if parent is None:
            raise IntegrityError(f"block {block} is not published and has no siblings")
        return parent, self._tokens[block][0]

    def check_integrity(self) -> None:
        """Raises `IntegrityError` unless hashes, pages and the lists of siblings agree."""
        for digest, block in self._by_hash.items():
            if self._hash[block] != digest:
                raise IntegrityError(f"the index finds block {block} under a hash that it is not published with")
        for block, parent in enumerate(self._parent):
            self._check_page(block, parent)
        for block in self._duplicates:
            if self.published(block):
                raise IntegrityError(f"block {block} is a duplicate and published itself")
        self._check_siblings()

    def _check_page(self, block: int, parent: bytes | None) -> None:
        digest, tokens = self._hash[block], self._tokens[block]
        if parent is None:
            if digest is not None or tokens:
                raise IntegrityError(f"block {block} is not published and has a hash or tokens")
        elif digest is None:
            if not 0 < len(tokens) < self._block_size:
                raise IntegrityError(f"block {block} is published as partial and has {len(tokens)} tokens")
        else:
            if self._by_hash.get(digest) != block:
                raise IntegrityError(f"block {block} is published and not found under its hash")
            if len(tokens) != self._block_size or digest != extend_hash(parent, tokens):
                raise IntegrityError(f"block {block} has a hash that is not that of its parent and tokens")

    def _check_siblings(self) -> None:
        linked = 0
        for key, latest in self._latest.items():
            block, newer = latest, _NONE
            while block != _NONE:
                if self._parent[block] is None or self._key(block) != key:
                    raise IntegrityError(f"block {block} is listed as the child of a parent or token that it has not")
                if self._newer[block] != newer:
                    raise IntegrityError(f"block {block} is not linked back to the sibling before it")
                linked += 1
                block, newer = self._older[block], block
        published = sum(parent is not None for parent in self._parent)
        if linked != published:
            raise IntegrityError(f"{published} blocks are published and {linked} are listed as children")


def _shared(page: tuple[int, ...], wanted: tuple[int, ...]) -> int:
    shared = 0
    for a, b in zip(page, wanted, strict=False):
        if a != b:
            break
        shared += 1
    return shared
