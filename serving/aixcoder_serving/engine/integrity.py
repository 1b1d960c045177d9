"""Whether what running requests hold and what the pool and the slots say of it agree. For tests: it looks at all."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence

from aixcoder_serving.engine.blocks import BlockPool
from aixcoder_serving.engine.request import Request


def check_slots(free: Sequence[int], running: Mapping[int, Request], slots: int) -> None:
    """Raise RuntimeError unless each slot is free or one request's, which knows it."""
    if sorted([*free, *running]) != list(range(slots)):
        raise RuntimeError(f"of {slots} slots {sorted(free)} are free and {sorted(running)} in use")
    for slot, request in running.items():
        if request.slot != slot or request.done:
            raise RuntimeError(
                f"request {request.id} is at its end or in slot {request.slot}, and listed in slot {slot}"
            )


def check_blocks(pool: BlockPool, running: Collection[Request]) -> None:
    """Raise RuntimeError unless the requests hold all that is used and reserved. Holds between two steps only."""
    reserved = sum(request.reserved for request in running)
    if reserved != pool.reserved:
        raise RuntimeError(f"requests may allocate {reserved} blocks, and {pool.reserved} are reserved")
    users = Counter(block for request in running for block in request.blocks)
    for block in range(pool.total):
        if users[block] != pool.users(block):
            raise RuntimeError(f"{users[block]} requests hold block {block}, which has {pool.users(block)} users")
    for request in running:
        if len(request.blocks) * pool.block_size < request.computed:
            raise RuntimeError(
                f"request {request.id} computed {request.computed} tokens in {len(request.blocks)} blocks"
            )
        if not request.published <= request.computed // pool.block_size:
            raise RuntimeError(f"request {request.id} published {request.published} pages of {request.computed} tokens")
