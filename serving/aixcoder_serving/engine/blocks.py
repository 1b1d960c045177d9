"""The paged cache's bookkeeping: who uses which block, what can be matched again, what is evicted next.

A block is empty, cached (free, and holds a published page that can still be matched) or used (references >= 1, whether
published or not). Free blocks are the empty and the cached ones; a reservation is a number of free blocks promised to
a request, not yet chosen. A cached block is evicted only where no empty one is left, the least recently used first.

A page without its parent cannot be reached, so a child is evicted before its parent: `release` takes the last page
first, and whoever uses a page uses all pages before it too. Where these pages were computed twice, the user's own ones
are duplicates, or withdrawn: then the indexed ones are moved as if they had been used.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sequence

from aixcoder_serving.engine.prefix import NO_MATCH, IntegrityError, Match, PrefixIndex
from aixcoder_serving.engine.prefix_hash import chain_hashes, extend_hash, root_hash

EVICTED_REMEMBERED = 4
"""For how many evicted pages, as a multiple of the blocks, it is remembered that they were once computed."""


class BlockPool:
    """`total` blocks of `block_size` tokens. With `caching` false nothing is matched and nothing kept.

    The life of a request: `match`, `can_reserve`, `acquire`, `reserve`, then `allocate` as it grows and `publish` as
    pages are computed, at last `unreserve` and `release`. Wrong use raises ValueError and changes nothing but what
    came before in the same list.
    """

    def __init__(self, total: int, block_size: int, *, caching: bool = True) -> None:
        if total < 1 or block_size < 1:
            raise ValueError(f"a cache of {total} blocks of {block_size} tokens holds nothing: both must be at least 1")
        self.total = total
        self.block_size = block_size
        self.caching = caching
        self._references = [0] * total
        self._empty = list(range(total - 1, -1, -1))
        self._cached: OrderedDict[int, None] = OrderedDict()  # least recently used first
        self._index = PrefixIndex(total, block_size)
        self._evicted: OrderedDict[bytes, None] = OrderedDict()  # oldest first
        self._withdrawn: dict[int, bytes] = {}  # used blocks, with the hash that their full page had
        self._reserved = 0
        self._evictions = 0

    @property
    def used(self) -> int:
        """Blocks with references."""
        return self.total - self.free

    @property
    def cached(self) -> int:
        """Free blocks that can still be matched."""
        return len(self._cached)

    @property
    def free(self) -> int:
        """Blocks without references: empty or cached, reserved or not."""
        return len(self._empty) + len(self._cached)

    @property
    def reserved(self) -> int:
        """Free blocks that are promised."""
        return self._reserved

    @property
    def evictions(self) -> int:
        """Cached pages that were given up for new ones, so far."""
        return self._evictions

    def users(self, block: int) -> int:
        """How many references the block has."""
        return self._references[block]

    def root(self, salt: str) -> bytes:
        """The parent hash of first pages under that salt."""
        return root_hash(salt)

    def extend_hash(self, parent: bytes, tokens: Sequence[int]) -> bytes:
        """The hash of one full page behind `parent`."""
        return extend_hash(parent, tokens)

    def hashes(self, tokens: Sequence[int], salt: str) -> list[bytes]:
        """The hash of each full page of `tokens`."""
        return chain_hashes(root_hash(salt), tokens, self.block_size)

    def match(self, tokens: Sequence[int], hashes: Sequence[bytes], root: bytes, limit: int) -> Match:
        """The longest cached prefix of `tokens`, of at most `limit` tokens. `hashes` and `root` are those of `tokens`.

        A prompt's limit is its length less one: the last token must run to give the next. Changes nothing.
        """
        return self._index.match(tokens, hashes, root, limit) if self.caching else NO_MATCH

    def is_current(self, match: Match) -> bool:
        """Whether the match, made earlier, can still be acquired: none of its pages was evicted since."""
        return self._index.current(match)

    def can_reserve(self, count: int, match: Match = NO_MATCH) -> bool:
        """Whether `acquire(match)` and then `reserve(count)` can be had.

        A page to be copied costs a block until `release_source`; where that is too much, try `without_partial()`.
        """
        return self._reserved + count + self._free_of(match) <= self.free

    def acquire(self, match: Match) -> None:
        """Take a reference on each block of the match, the page to be copied included."""
        if not self._index.current(match):
            raise ValueError("the match is out of date: a page of it was evicted since; match again")
        if not self.can_reserve(0, match):
            raise ValueError(f"the match needs blocks that are reserved: {self._reserved} of {self.free} free ones are")
        for block in match.sources:
            if not self._references[block]:
                del self._cached[block]
            self._references[block] += 1

    def release_source(self, block: int) -> None:
        """Give back the page of `Match.partial`, once its copy was made."""
        parent = self._index.parent_of(block)
        self._drop_reference(block)
        # The pages before it may be free already: then they are to be evicted after it.
        while parent is not None and (above := self._index.find(parent)) is not None and above in self._cached:
            self._cached.move_to_end(above)
            parent = self._index.parent_of(above)

    def reserve(self, count: int) -> None:
        """Promise `count` free blocks to the caller."""
        if count < 0 or not self.can_reserve(count):
            raise ValueError(
                f"{count} blocks cannot be reserved: {self.free} of {self.total} are free and {self._reserved} of these"
                " reserved"
            )
        self._reserved += count

    def unreserve(self, count: int) -> None:
        """Give back `count` promised blocks that were not allocated."""
        if not 0 <= count <= self._reserved:
            raise ValueError(f"{count} blocks cannot be unreserved: {self._reserved} are reserved")
        self._reserved -= count

    def allocate(self) -> int:
        """One of the reserved blocks, with one reference and nothing published."""
        if not self._reserved:
            raise ValueError("no block is reserved: reserve before allocating")
        self._reserved -= 1
        block = self._empty.pop() if self._empty else self._evict()
        self._references[block] = 1
        return block

    def publish(self, block: int, hash: bytes, parent: bytes, tokens: Sequence[int]) -> None:
        """The used block's full page is computed: `tokens` behind `parent`. Publish a request's pages in order.

        Where another block is published with that hash, that one stays the one that is matched.
        """
        self._check_publishable(block)
        if len(tokens) != self.block_size:
            raise ValueError(f"a full page has {self.block_size} tokens: {len(tokens)} are published in block {block}")
        if self.caching:
            self._index.put(block, hash, parent, tuple(tokens))
            self._evicted.pop(hash, None)

    def publish_partial(self, block: int, parent: bytes, tokens: Sequence[int]) -> None:
        """The used block's page holds `tokens` so far, not all of a page: they can be matched to be copied."""
        self._check_publishable(block)
        if not 0 < len(tokens) < self.block_size:
            raise ValueError(
                f"a partial page has 1 to {self.block_size - 1} tokens: {len(tokens)} are published in block {block}"
            )
        if self.caching:
            self._index.put(block, None, parent, tuple(tokens))

    def release(self, blocks_in_order: Sequence[int]) -> None:
        """Drop one reference of each block of a request, given in the order of their positions."""
        for block in reversed(blocks_in_order):
            self._drop_reference(block)

    def withdraw(self, blocks: Iterable[int]) -> None:
        """What these blocks hold is wrong: nothing finds it any more, whoever uses it."""
        for block in blocks:
            if not self._index.published(block):
                continue
            digest = self._index.remove(block)
            if block in self._cached:
                del self._cached[block]
                self._empty.append(block)
            elif digest is not None:
                self._withdrawn[block] = digest

    def was_evicted(self, hash: bytes) -> bool:
        """Whether a page with that hash was evicted and not published since (of late: the memory is bounded)."""
        return hash in self._evicted

    def _free_of(self, match: Match) -> int:
        references = self._references
        return sum(not references[block] for block in match.sources)

    def _check_publishable(self, block: int) -> None:
        if not self._references[block]:
            raise ValueError(f"block {block} is in nobody's use: publish before releasing")

    def _drop_reference(self, block: int) -> None:
        if not self._references[block]:
            raise ValueError(f"block {block} is released more often than it was taken")
        self._references[block] -= 1
        if self._references[block]:
            # Who leaves may have pages behind this one, which are reached through the one that is published.
            original = self._index.original(block)
            if original is not None and original in self._cached:
                self._cached.move_to_end(original)
            return
        keeper = self._index.settle(block)
        if block in self._withdrawn:
            keeper = self._index.find(self._withdrawn.pop(block))
        if keeper != block:
            self._empty.append(block)
            if keeper is not None and keeper in self._cached:
                self._cached.move_to_end(keeper)
            return
        self._cached[block] = None
        digest = self._index.hash_of(block)
        if digest is not None:
            self._evicted.pop(digest, None)
        # Typing leaves a longer tail page with each key: the latest one is enough.
        for covered in self._index.covered_by(block):
            if covered in self._cached:
                del self._cached[covered]
                self._index.remove(covered)
                self._empty.append(covered)

    def _evict(self) -> int:
        block, _ = self._cached.popitem(last=False)
        self._evictions += 1
        digest = self._index.remove(block)
        if digest is not None:
            self._evicted[digest] = None
            if len(self._evicted) > EVICTED_REMEMBERED * self.total:
                self._evicted.popitem(last=False)
        return block

    def check_integrity(self) -> None:
        """Raises `IntegrityError`, naming the rule that is broken. Takes a look at every block."""
        self._index.check_integrity()
        empty = set(self._empty)
        if len(empty) != len(self._empty):
            raise IntegrityError("a block is listed twice as empty")
        for block, references in enumerate(self._references):
            self._check_block(block, references, block in empty)
        if not 0 <= self._reserved <= self.free:
            raise IntegrityError(f"{self._reserved} blocks are reserved and {self.free} are free")
        if len(self._evicted) > EVICTED_REMEMBERED * self.total:
            raise IntegrityError(f"{len(self._evicted)} evicted pages are remembered for {self.total} blocks")
        if any(self._index.find(digest) is not None for digest in self._evicted):
            raise IntegrityError("a published page is remembered as evicted")
        self._check_order()

    def _check_block(self, block: int, references: int, empty: bool) -> None:
        cached, published = block in self._cached, self._index.published(block)
        if references < 0:
            raise IntegrityError(f"block {block} has {references} references")
        if (references > 0) + empty + cached != 1:
            state = f"{references} references, empty: {empty}, cached: {cached}"
            raise IntegrityError(f"block {block} is not in exactly one state: {state}")
        if published and (empty or not self.caching):
            raise IntegrityError(f"block {block} is published and empty, or caching is off")
        if cached and not published:
            raise IntegrityError(f"block {block} is cached and not published")
        if self._index.duplicate(block) and not references:
            raise IntegrityError(f"block {block} is a duplicate and not used")
        if block in self._withdrawn and (published or not references):
            raise IntegrityError(f"block {block} is withdrawn and published, or not used")

    def _check_order(self) -> None:
        position = {block: place for place, block in enumerate(self._cached)}
        for block, place in position.items():
            parent = self._index.parent_of(block)
            above = None if parent is None else self._index.find(parent)
            if above is not None and position.get(above, place + 1) < place:
                raise IntegrityError(f"block {above} would be evicted before block {block}, which comes after it")
