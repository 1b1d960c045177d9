from __future__ import annotations

from collections.abc import Callable

import pytest

from aixcoder_serving.engine.blocks import BlockPool
from aixcoder_serving.engine.prefix import IntegrityError, Match
from tests.unit.engine.paged import cache, compute, ids, pool_of, publish

PAGE = b"h" * 16


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda pool: pool.reserve(4), "4 blocks cannot be reserved: 3 of 4 are free and 0 of these reserved"),
        (lambda pool: pool.reserve(-1), "-1 blocks cannot be reserved"),
        (lambda pool: pool.unreserve(1), "1 blocks cannot be unreserved: 0 are reserved"),
        (lambda pool: pool.unreserve(-1), "-1 blocks cannot be unreserved"),
        (lambda pool: pool.allocate(), "no block is reserved"),
        (lambda pool: pool.release([0, 0]), "block 0 is released more often than it was taken"),
        (lambda pool: pool.release_source(1), "block 1 is released more often than it was taken"),
        (lambda pool: pool.publish(1, PAGE, PAGE, ids("aaaa")), "block 1 is in nobody's use"),
        (lambda pool: pool.publish_partial(1, PAGE, ids("a")), "block 1 is in nobody's use"),
        (lambda pool: pool.publish(0, PAGE, PAGE, ids("aaa")), "a full page has 4 tokens: 3 are published in block 0"),
        (lambda pool: pool.publish_partial(0, PAGE, []), "a partial page has 1 to 3 tokens: 0 are"),
        (lambda pool: pool.publish_partial(0, PAGE, ids("aaaa")), "a partial page has 1 to 3 tokens: 4 are"),
        (lambda pool: pool.publish_partial(0, pool.root(""), ids("aa")), "a page can only grow"),
        (lambda pool: pool.publish_partial(0, PAGE, ids("aab")), "block 0 was published as another page"),
        (lambda pool: pool.publish_partial(0, pool.root(""), ids("axb")), "a page can only grow"),
        (lambda pool: pool.acquire(Match((1,), None, 4)), "out of date"),
    ],
)
def test_wrong_use_is_refused(wrong: Callable[[BlockPool], None], message: str) -> None:
    pool = pool_of(4)
    compute(pool, "aab")
    with pytest.raises(ValueError, match=message):
        wrong(pool)


@pytest.mark.parametrize(("total", "size"), [(0, 16), (-1, 16), (1, 0)])
def test_pool_of_nothing_is_refused(total: int, size: int) -> None:
    with pytest.raises(ValueError, match="both must be at least 1"):
        BlockPool(total, size)


def test_full_page_cannot_become_another() -> None:
    pool = pool_of(2)
    blocks = compute(pool, "aaaa")
    publish(pool, blocks, "aaaa")  # again is no harm
    with pytest.raises(ValueError, match="a page can only grow"):
        publish(pool, blocks, "aaab")
    with pytest.raises(ValueError, match="a page can only grow"):
        pool.publish(blocks[0], PAGE, pool.root(""), ids("aaaa"))
    second = compute(pool, "aaaa")
    with pytest.raises(ValueError, match="a page can only grow"):
        publish(pool, second, "aaab")
    pool.check_integrity()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda pool, index: pool._empty.append(5), "listed twice as empty"),
        (lambda pool, index: pool._empty.append(0), "block 0 is not in exactly one state"),
        (lambda pool, index: pool._empty.remove(5), "block 5 is not in exactly one state: 0 references"),
        (lambda pool, index: pool._cached.pop(2), "block 2 is not in exactly one state"),
        (lambda pool, index: pool._cached.update({5: None}), "block 5 is not in exactly one state"),
        (lambda pool, index: pool._references.__setitem__(5, -1), "block 5 has -1 references"),
        (lambda pool, index: pool._references.__setitem__(2, 1), "block 2 is not in exactly one state"),
        (lambda pool, index: setattr(pool, "_reserved", 6), "6 blocks are reserved and 5 are free"),
        (lambda pool, index: setattr(pool, "_reserved", -1), "-1 blocks are reserved"),
        (lambda pool, index: pool._cached.move_to_end(3), "block 2 would be evicted before block 3"),
        (lambda pool, index: setattr(pool, "caching", False), "or caching is off"),
        (lambda pool, index: index.remove(3), "block 3 is cached and not published"),
        (lambda pool, index: pool._evicted.update({index.hash_of(2): None}), "remembered as evicted"),
        (lambda pool, index: pool._evicted.update({bytes([n]): None for n in range(25)}), "25 evicted pages"),
        (lambda pool, index: index._by_hash.pop(index.hash_of(2)), "block 2 is published and not found"),
        (lambda pool, index: index._by_hash.update({PAGE: 2}), "finds block 2 under a hash"),
        (lambda pool, index: index._tokens.__setitem__(2, (1, 2, 3, 4)), "not that of its parent and tokens"),
        (lambda pool, index: index._tokens.__setitem__(4, ()), "block 4 is published as partial and has 0 tokens"),
        (lambda pool, index: index._tokens.__setitem__(5, (1,)), "block 5 is not published and has a hash or tokens"),
        (lambda pool, index: index._latest.clear(), "5 blocks are published and 0 are listed"),
        (lambda pool, index: index._newer.__setitem__(2, 3), "block 2 is not linked back"),
        (lambda pool, index: index._parent.__setitem__(4, PAGE), "block 4 is listed as the child"),
        (lambda pool, index: index._duplicates.update({2: None}), "block 2 is a duplicate and published itself"),
        (lambda pool, index: index._duplicates.update({5: None}), "block 5 is a duplicate and not used"),
        (lambda pool, index: pool._withdrawn.update({0: PAGE}), "block 0 is withdrawn and published, or not used"),
        (lambda pool, index: pool._withdrawn.update({5: PAGE}), "block 5 is withdrawn and published, or not used"),
    ],
)
def test_check_integrity_names_what_is_broken(damage: Callable[..., object], message: str) -> None:
    pool = pool_of(6)
    compute(pool, "xxxx")
    cache(pool, "yyyy")
    cache(pool, "aaaabbbbcc")
    pool.release(compute(pool, "yyyy"))
    damage(pool, pool._index)
    with pytest.raises(IntegrityError, match=message):
        pool.check_integrity()
