"""Which pages of a running request can be found by others: those that finished steps computed."""

from __future__ import annotations

from aixcoder_serving.engine.blocks import BlockPool
from aixcoder_serving.engine.request import Request


def publish(pool: BlockPool, request: Request) -> int:
    """Make the full pages matchable that a step completed; returns how many prompt tokens of them were evicted once."""
    size = pool.block_size
    recomputed = 0
    while (request.published + 1) * size <= request.computed:
        index = request.published
        content = request.tokens[index * size : (index + 1) * size]
        parent = request.hashes[index - 1] if index else request.root
        if index == len(request.hashes):
            request.hashes.append(pool.extend_hash(parent, content))
        if (index + 1) * size <= len(request.prompt) and pool.was_evicted(request.hashes[index]):
            recomputed += size
        pool.publish(request.blocks[index], request.hashes[index], parent, content)
        request.published += 1
    return recomputed


def publish_tail(pool: BlockPool, request: Request) -> None:
    """Make the computed part of the last page matchable, for copying."""
    start = request.published * pool.block_size
    if request.computed > start:
        parent = request.hashes[request.published - 1] if request.published else request.root
        content = request.tokens[start : request.computed]
        pool.publish_partial(request.blocks[request.published], parent, content)


def withdraw(pool: BlockPool, request: Request) -> None:
    """What a request computed is no number: nothing finds its pages any more, those that it found included.

    Any of them may be the cause. Who uses them goes on, and fails by them or does not.
    """
    pool.withdraw(request.blocks)
    if pool.is_current(request.copied):
        pool.withdraw(request.copied.sources)
