"""Requests of one letter a token on a pool of small pages."""

from __future__ import annotations

from collections.abc import Sequence

from aixcoder_serving.engine.blocks import BlockPool
from aixcoder_serving.engine.prefix import Match

SIZE = 4


def pool_of(total: int, *, caching: bool = True) -> BlockPool:
    return BlockPool(total, SIZE, caching=caching)


def ids(text: str) -> list[int]:
    """One token a letter."""
    return [ord(letter) for letter in text]


def find(pool: BlockPool, text: str, limit: int | None = None, salt: str = "") -> Match:
    """What is cached of a prompt, its last token excepted."""
    tokens = ids(text)
    most = len(tokens) - 1 if limit is None else limit
    return pool.match(tokens, pool.hashes(tokens, salt), pool.root(salt), most)


def allocate(pool: BlockPool, count: int) -> list[int]:
    pool.reserve(count)
    return [pool.allocate() for _ in range(count)]


def publish(pool: BlockPool, blocks: Sequence[int], text: str, salt: str = "") -> None:
    """All pages of a request, the tail too."""
    tokens, parent = ids(text), pool.root(salt)
    for block, start in zip(blocks, range(0, len(tokens), SIZE), strict=True):
        page = tokens[start : start + SIZE]
        if len(page) == SIZE:
            digest = pool.extend_hash(parent, page)
            pool.publish(block, digest, parent, page)
            parent = digest
        else:
            pool.publish_partial(block, parent, page)


def compute(pool: BlockPool, text: str, salt: str = "") -> list[int]:
    """A running request that reads nothing from the cache."""
    blocks = allocate(pool, -(-len(text) // SIZE))
    publish(pool, blocks, text, salt)
    return blocks


def cache(pool: BlockPool, text: str, salt: str = "") -> list[int]:
    """A request that came and went."""
    blocks = compute(pool, text, salt)
    pool.release(blocks)
    pool.check_integrity()
    return blocks
