"""Any order of requests, cancels and evictions, against a model that holds each page as a tuple of tokens.

The model has a device too: each place of a block holds the salt and all tokens up to it, which is what keys and values
depend on. What a request reads there must be its own tokens at any time.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from aixcoder_serving.engine.blocks import BlockPool
from aixcoder_serving.engine.prefix import Match

SIZE = 3
SALTS = st.sampled_from(["", "", "other"])
LONG = (0, 1, 1, 0, 0, 1, 0, 1, 1, 1, 0)
TOKENS = st.builds(
    lambda length, end: LONG[:length] + end,  # much in common, else little would be found
    st.integers(0, len(LONG)),
    st.sampled_from([(0,), (1,), (0, 1), (1, 0, 1, 1)]),
)
ANY = st.integers(0, 99)

Text = tuple[int, ...]
Prefix = tuple[str, Text]
"""A salt and all tokens from the first one on."""


@dataclass
class Request:
    """One in a slot: `computed` of its tokens are on the device, `published` of its pages are matchable."""

    salt: str
    tokens: Text
    blocks: list[int]
    reserved: int
    computed: int
    published: int
    sources: list[int] = field(default_factory=list)

    def page(self, index: int, end: int | None = None) -> Prefix:
        """What the page stands for, up to its own end or to `end`."""
        return self.salt, self.tokens[: min((index + 1) * SIZE, len(self.tokens)) if end is None else end]


class AnyOrder(RuleBasedStateMachine):
    """`indexed` and `partial` are what is matchable; `users` are references."""

    @initialize(total=st.integers(3, 9))
    def start(self, total: int) -> None:
        self.pool = BlockPool(total, SIZE)
        self.device: list[list[Prefix | None]] = [[None] * SIZE for _ in range(total)]
        self.running: list[Request] = []
        self.indexed: dict[Prefix, int] = {}
        self.partial: dict[int, Prefix] = {}
        self.duplicates: dict[int, Prefix] = {}
        self.users: dict[int, int] = {}
        self.evicted: set[Prefix] = set()
        self.evictions = 0
        self.kept: list[tuple[Match, Text, str]] = []

    def match(self, tokens: Text, salt: str, limit: int) -> Match:
        pool = self.pool
        match = pool.match(tokens, pool.hashes(tokens, salt), pool.root(salt), limit)
        assert match.tokens == self.expected(tokens, salt, limit)
        self.check_content(match, tokens, salt)
        return match

    def expected(self, tokens: Text, salt: str, limit: int) -> int:
        """The longest prefix in `indexed` and `partial`, looked for one by one."""
        full = 0
        while (full + 1) * SIZE <= min(limit, len(tokens)) and (salt, tokens[: (full + 1) * SIZE]) in self.indexed:
            full += 1
        longest = full * SIZE
        for _, (other_salt, other) in self.pages():
            behind = full * SIZE < len(other) <= (full + 1) * SIZE
            if other_salt == salt and behind and other[: full * SIZE] == tokens[: full * SIZE]:
                end = full * SIZE
                while end < min(len(other), limit, len(tokens)) and other[end] == tokens[end]:
                    end += 1
                longest = max(longest, end)
        return longest

    def free_besides(self, match: Match) -> int:
        free = self.pool.total - len(self.users) - sum(request.reserved for request in self.running)
        return free - sum(block not in self.users for block in match.sources)

    def check_content(self, match: Match, tokens: Text, salt: str) -> None:
        for place in range(match.tokens):
            block = match.sources[place // SIZE]
            assert self.device[block][place % SIZE] == (salt, tokens[: place + 1])

    @rule(tokens=TOKENS, salt=SALTS, limit=st.integers(-1, 12), keep=st.booleans())
    def look(self, tokens: Text, salt: str, limit: int, keep: bool) -> None:
        match = self.match(tokens, salt, limit)
        free = self.free_besides(match)
        assert self.pool.can_reserve(max(free, 0), match) == (free >= 0)
        assert not self.pool.can_reserve(max(free, -1) + 1, match)
        if keep:
            self.kept.append((match, tokens, salt))

    @precondition(lambda self: self.kept)
    @rule(index=ANY, source_last=st.booleans())
    def use_what_was_kept(self, index: int, source_last: bool) -> None:
        match, tokens, salt = self.kept.pop(index % len(self.kept))
        if not self.pool.is_current(match):
            with pytest.raises(ValueError, match="out of date"):
                self.pool.acquire(match)
            return
        self.check_content(match, tokens, salt)
        if self.pool.can_reserve(0, match):
            self.acquire(match)
            if not source_last:
                self.release_source(match)
            self.release(list(match.blocks))
            if source_last:
                self.release_source(match)

    @rule(tokens=TOKENS, prompt=st.integers(1, 15), salt=SALTS, copied_at_once=st.booleans(), reading=st.booleans())
    def submit(self, tokens: Text, prompt: int, salt: str, copied_at_once: bool, reading: bool) -> None:
        """What follows the prompt is generated. One that does not read the cache computes pages that are there."""
        match = self.match(tokens[:prompt], salt, min(prompt, len(tokens)) - 1 if reading else 0)
        needed = -(-len(tokens) // SIZE) - len(match.blocks)
        if not self.pool.can_reserve(needed, match):
            match = match.without_partial()
        if needed > self.free_besides(match):
            return
        self.acquire(match)
        self.pool.reserve(needed)
        request = Request(salt, tokens, list(match.blocks), needed, match.tokens, len(match.blocks))
        self.running.append(request)
        if match.partial is not None:
            source = match.partial[0]
            block = self.allocate(request)
            self.device[block] = list(self.device[source])
            if copied_at_once:
                self.release_source(match)
            else:
                request.sources.append(source)

    @rule(tokens=TOKENS, salt=SALTS, reading=st.booleans())
    def come_and_go(self, tokens: Text, salt: str, reading: bool) -> None:
        before = len(self.running)
        self.submit(tokens, len(tokens), salt, True, reading)
        if len(self.running) > before:
            self.step(before, len(tokens), True)
            self.cancel(before, 0, False, False)

    @precondition(lambda self: self.running)
    @rule(index=ANY, count=st.integers(1, 9), tail=st.booleans())
    def step(self, index: int, count: int, tail: bool) -> None:
        request = self.running[index % len(self.running)]
        self.compute(request, count)
        self.publish(request)
        if tail:
            self.publish_tail(request)

    @precondition(lambda self: any(request.sources for request in self.running))
    @rule()
    def copies_are_made(self) -> None:
        for request in self.running:
            self.drop_sources(request)

    @precondition(lambda self: self.running)
    @rule(index=ANY, count=st.integers(0, 7), tail=st.booleans(), source_last=st.booleans())
    def cancel(self, index: int, count: int, tail: bool, source_last: bool) -> None:
        """At its end or before, with `count` tokens of an unfinished step on the device."""
        request = self.running.pop(index % len(self.running))
        if tail:
            self.publish_tail(request)
        self.compute(request, count)
        self.pool.unreserve(request.reserved)
        if not source_last:
            self.drop_sources(request)
        self.release(request.blocks)
        self.drop_sources(request)

    def compute(self, request: Request, count: int) -> None:
        for place in range(request.computed, min(request.computed + count, len(request.tokens))):
            if place // SIZE == len(request.blocks):
                self.allocate(request)
            self.device[request.blocks[place // SIZE]][place % SIZE] = (request.salt, request.tokens[: place + 1])
            request.computed = place + 1

    def allocate(self, request: Request) -> int:
        empty = self.pool.free - self.pool.cached
        block = self.pool.allocate()
        request.reserved -= 1
        assert block not in self.users
        page = self.page_of(block)
        assert (page is None) == (empty > 0)
        if page in self.indexed:
            children = [other for other, child in self.pages() if self.parent(child) == self.digest(page)]
            assert all(other in self.users for other in children)
            del self.indexed[page]
            self.evicted.add(page)
            assert self.pool.was_evicted(self.digest(page))
        self.partial.pop(block, None)
        self.evictions += empty == 0
        self.users[block] = 1
        request.blocks.append(block)
        return block

    def pages(self) -> list[tuple[int, Prefix]]:
        """All that are matchable."""
        return [*((block, page) for page, block in self.indexed.items()), *self.partial.items()]

    def page_of(self, block: int) -> Prefix | None:
        return next((page for other, page in self.pages() if other == block), None)

    def publish(self, request: Request) -> None:
        while (request.published + 1) * SIZE <= request.computed:
            block, page = request.blocks[request.published], request.page(request.published)
            self.pool.publish(block, self.digest(page), self.parent(page), page[1][-SIZE:])
            self.partial.pop(block, None)
            self.evicted.discard(page)
            if self.indexed.setdefault(page, block) != block:
                self.duplicates[block] = page
            request.published += 1

    def publish_tail(self, request: Request) -> None:
        start = request.published * SIZE
        if start < request.computed < start + SIZE:
            block, page = request.blocks[request.published], request.page(request.published, request.computed)
            self.pool.publish_partial(block, self.parent(page), page[1][start:])
            self.partial[block] = page

    def acquire(self, match: Match) -> None:
        self.pool.acquire(match)
        for block in match.sources:
            self.users[block] = self.users.get(block, 0) + 1

    def release(self, blocks: list[int]) -> None:
        self.pool.release(blocks)
        for block in reversed(blocks):
            self.drop(block)

    def release_source(self, match: Match) -> None:
        if match.partial is not None:
            self.pool.release_source(match.partial[0])
            self.drop(match.partial[0])

    def drop_sources(self, request: Request) -> None:
        for source in request.sources:
            self.pool.release_source(source)
            self.drop(source)
        request.sources.clear()

    def drop(self, block: int) -> None:
        """One use less: a page that is held elsewhere is not kept."""
        self.users[block] -= 1
        if self.users[block]:
            return
        del self.users[block]
        page = self.duplicates.pop(block, None)
        if page is not None and self.indexed.setdefault(page, block) == block:
            self.evicted.discard(page)
        page = self.page_of(block)
        if page is None:
            return
        same_parent = [(b, p) for b, p in self.pages() if b != block and self.parent(p) == self.parent(page)]
        if block in self.partial and any(text[: len(page[1])] == page[1] for _, (_, text) in same_parent):
            del self.partial[block]
            return
        for other, (_, text) in same_parent:
            if other in self.partial and other not in self.users and page[1][: len(text)] == text:
                del self.partial[other]

    def parent(self, page: Prefix) -> bytes:
        salt, text = page
        before = text[: (len(text) - 1) // SIZE * SIZE]
        return self.digest((salt, before)) if before else self.pool.root(salt)

    def digest(self, page: Prefix) -> bytes:
        return self.pool.hashes(page[1], page[0])[-1]

    @invariant()
    def nothing_contradicts_itself(self) -> None:
        if not hasattr(self, "pool"):
            return
        pool = self.pool
        pool.check_integrity()
        matchable = {*self.indexed.values(), *self.partial}
        assert pool.used == len(self.users)
        assert pool.used + pool.free == pool.total
        assert pool.cached == len(matchable - set(self.users))
        assert pool.reserved == sum(request.reserved for request in self.running)
        assert pool.evictions == self.evictions

    @invariant()
    def each_request_reads_its_own_tokens(self) -> None:
        for request in getattr(self, "running", ()):
            for place in range(request.computed):
                content = self.device[request.blocks[place // SIZE]][place % SIZE]
                assert content == (request.salt, request.tokens[: place + 1])

    @invariant()
    def what_was_evicted_is_known(self) -> None:
        remembered = [page for page in getattr(self, "indexed", ()) if self.pool.was_evicted(self.digest(page))]
        assert not remembered
        if hasattr(self, "pool") and len(self.evicted) < self.pool.total:
            assert all(self.pool.was_evicted(self.digest(page)) for page in self.evicted)

    def teardown(self) -> None:
        if not hasattr(self, "pool"):
            return
        while self.running:
            self.cancel(0, 0, True, False)
        self.pool.check_integrity()
        assert (self.pool.used, self.pool.reserved, self.pool.free) == (0, 0, self.pool.total)
        self.pool.reserve(self.pool.total)
        assert {self.pool.allocate() for _ in range(self.pool.total)} == set(range(self.pool.total))
        assert self.pool.cached == 0
        self.pool.check_integrity()


def test_any_order() -> None:
    short = settings(max_examples=60, stateful_step_count=40, deadline=None, derandomize=True)
    run_state_machine_as_test(AnyOrder, settings=short)


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_many_more_orders() -> None:
    long = settings(max_examples=5000, stateful_step_count=100, deadline=None, suppress_health_check=list(HealthCheck))
    run_state_machine_as_test(AnyOrder, settings=long)
