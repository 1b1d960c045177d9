from __future__ import annotations

import pytest

from aixcoder_serving.engine.blocks import EVICTED_REMEMBERED
from aixcoder_serving.engine.prefix import CANDIDATES, NO_MATCH
from tests.unit.engine.paged import SIZE, allocate, cache, compute, find, ids, pool_of, publish


@pytest.mark.parametrize(
    ("cached", "prompt", "limit", "full", "shared"),
    [
        pytest.param([], "aaaabbbb", None, 0, 0, id="nothing is cached"),
        pytest.param(["aaaabbbb"], "aaaabbbb", None, 1, 3, id="the whole prompt is cached: its last token still runs"),
        pytest.param(["aaaabbbb"], "aaaabbbbc", None, 2, 0, id="all before the last token is cached, in full pages"),
        pytest.param(["aaaa"], "aaaa", None, 0, 3, id="a prompt of one page"),
        pytest.param(["a"], "a", None, 0, 0, id="a prompt of one token"),
        pytest.param(["aaaabb"], "aaaabbbb", None, 1, 2, id="a tail page"),
        pytest.param(["aaaabb"], "aaaacccc", None, 1, 0, id="a tail page with another first token"),
        pytest.param(["aaaabbbb"], "aaaabbxy", None, 1, 2, id="a full page that differs in its middle"),
        pytest.param(["aaaabxxx", "aaaabbxx", "aaaabbb"], "aaaabbbbb", None, 1, 3, id="the page that shares most"),
        pytest.param(["aaaabbb", "aaaabbxx", "aaaabxxx"], "aaaabbbbb", None, 1, 3, id="most, not latest"),
        pytest.param(["aaaabbbbcc"], "aaaaxbbbcc", None, 1, 0, id="nothing behind a page that differs"),
        pytest.param(["aaaabbbb"], "bbbbaaaa", None, 0, 0, id="a page elsewhere is another page"),
        pytest.param(["aaaabbbb"], "aaaabbbb", 4, 1, 0, id="a limit at a page's end"),
        pytest.param(["aaaabbbb"], "aaaabbbb", 5, 1, 1, id="a limit behind a page's end"),
        pytest.param(["aaaabbbb"], "aaaabbbb", 0, 0, 0, id="a limit of nothing"),
        pytest.param(["aaaabbbb"], "aaaabbbb", -1, 0, 0, id="a limit below nothing"),
        pytest.param(["aaaabbbb"], "", None, 0, 0, id="an empty prompt"),
        pytest.param(["aaaabbbb"], "aaaab", 99, 1, 1, id="a limit beyond the prompt"),
    ],
)
def test_match(cached: list[str], prompt: str, limit: int | None, full: int, shared: int) -> None:
    pool = pool_of(16)
    for text in cached:
        cache(pool, text)
    match = find(pool, prompt, limit)
    assert (len(match.blocks), match.partial[1] if match.partial else 0) == (full, shared)
    assert match.tokens == full * SIZE + shared
    assert match.without_partial().tokens == full * SIZE


def test_page_that_the_limit_cuts_into_is_found_behind_many_others() -> None:
    pool = pool_of(64)
    kept = cache(pool, "abcd")
    for number in range(2 * CANDIDATES):
        cache(pool, f"a{chr(number)}xy")
    assert find(pool, "abcd").partial == (kept[0], 3)


def test_crowded_parent_costs_a_look_at_the_latest_pages_only() -> None:
    pool = pool_of(64)
    cache(pool, "abcd")
    others = [cache(pool, f"a{chr(number)}xy") for number in range(CANDIDATES)]
    assert find(pool, "abcx").tokens == 1  # not found, and not looked for any longer
    pool.acquire(used := find(pool, f"a{chr(0)}xyz"))
    pool.release(used.blocks)
    assert used.blocks == tuple(others[0])
    cache(pool, "a-xy")  # what was used of late is still among the latest
    assert find(pool, f"a{chr(0)}x-").tokens == 3


@pytest.mark.parametrize(
    ("first", "again"),
    [
        pytest.param("abcd", "abcd", id="a full page"),
        pytest.param("abc", "abc", id="a tail page"),
        pytest.param("abcd", "abc", id="a part of a full page"),
    ],
)
def test_page_computed_again_is_among_the_latest(first: str, again: str) -> None:
    pool = pool_of(64)
    kept = cache(pool, first)
    for number in range(CANDIDATES - 2):
        cache(pool, f"a{chr(number)}xy")
    cache(pool, again)
    cache(pool, "a-xy")
    cache(pool, "a+xy")
    assert find(pool, "abc").partial == (kept[0], 2)


def test_computed_pages_are_matched_once_published_and_not_before() -> None:
    pool = pool_of(4)
    blocks = allocate(pool, 2)
    assert find(pool, "aaaabbbb").tokens == 0
    publish(pool, blocks[:1], "aaaa")
    assert find(pool, "aaaabbbb").tokens == 4  # of a running request
    pool.release(blocks)
    assert find(pool, "aaaabbbb").tokens == 4
    assert (pool.cached, pool.free, pool.used) == (1, 4, 0)  # the page of the unfinished step is empty
    pool.check_integrity()


def test_tail_of_a_running_request_grows() -> None:
    pool = pool_of(4)
    blocks = compute(pool, "aaaab")
    assert find(pool, "aaaabbb").tokens == 5
    publish(pool, blocks, "aaaabb")
    assert find(pool, "aaaabbb").tokens == 6
    publish(pool, blocks, "aaaabbbc")
    assert find(pool, "aaaabbbc").tokens == 7
    assert find(pool, "aaaabbbcd").blocks == tuple(blocks)
    pool.check_integrity()


def test_salts_share_nothing() -> None:
    pool = pool_of(8)
    cache(pool, "aaaabbbbcc", salt="one")
    assert find(pool, "aaaabbbbcc", salt="two").tokens == 0
    assert find(pool, "aaaabbbbcc", salt="one").tokens == 9


def test_no_salt_is_a_pages_hash() -> None:
    pool = pool_of(1)
    page = [0x61] * SIZE
    parent = b"p" * 16
    spelled = "p" * 16 + "a\0\0\0" * SIZE
    assert pool.extend_hash(parent, page) != pool.root(spelled)
    assert pool.root("\ud800") != pool.root("")  # half an emoji, which JSON can hold


def test_hashes_go_on_page_by_page() -> None:
    pool = pool_of(1)
    whole = pool.hashes(ids("aaaabbbbcc"), "s")
    first = pool.extend_hash(pool.root("s"), ids("aaaa"))
    assert whole == [first, pool.extend_hash(first, ids("bbbb"))]
    assert pool.hashes(ids("aaa"), "s") == []


def test_copied_page_never_alters_its_donor() -> None:
    pool = pool_of(8)
    donor = cache(pool, "aaaabbbb")
    match = find(pool, "aaaabbxx")
    assert match.partial == (donor[1], 2)
    pool.acquire(match)
    copy = allocate(pool, 1)
    assert copy[0] not in donor
    pool.release_source(donor[1])
    publish(pool, [donor[0], *copy], "aaaabbxx")
    pool.release([donor[0], *copy])
    pool.check_integrity()
    assert find(pool, "aaaabbbbz").blocks == tuple(donor)
    assert find(pool, "aaaabbxxz").blocks == (donor[0], *copy)


def test_pinned_source_is_not_evicted() -> None:
    pool = pool_of(4)
    source = cache(pool, "aab")[0]
    match = find(pool, "aabb")
    pool.acquire(match)
    assert not pool.can_reserve(4)
    taken = allocate(pool, 3)
    assert source not in taken
    pool.release_source(source)
    assert find(pool, "aabb") == match  # still there, until it is needed
    assert allocate(pool, 1) == [source]
    assert find(pool, "aabb").tokens == 0
    pool.check_integrity()


def test_chain_is_evicted_from_its_end() -> None:
    pool = pool_of(4)
    chain = cache(pool, "aaaabbbbccccd")
    assert [allocate(pool, 1)[0] for _ in range(4)] == chain[::-1]
    assert pool.evictions == 4
    pool.check_integrity()


def test_least_recently_used_is_evicted_first() -> None:
    pool = pool_of(3)
    first, second, third = (cache(pool, text)[0] for text in ("aaaa", "bbbb", "cccc"))
    pool.acquire(match := find(pool, "aaaax"))
    pool.release(match.blocks)
    assert [allocate(pool, 1)[0] for _ in range(3)] == [second, third, first]


def test_child_of_a_page_still_in_use_is_evicted_before_it() -> None:
    pool = pool_of(4)
    chain = cache(pool, "aaaabbbb")
    pool.acquire(match := find(pool, "aaaaxxxx"))
    cache(pool, "cccc")
    pool.release(match.blocks)
    pool.check_integrity()
    spare = allocate(pool, 1)
    assert spare[0] not in chain  # the empty one
    assert allocate(pool, 1) == [chain[1]]


def test_source_given_back_after_its_parents_is_evicted_before_them() -> None:
    pool = pool_of(4)
    chain = cache(pool, "aaaabbbbcccc")
    pool.acquire(match := find(pool, "aaaabbbbccxx"))
    pool.release(match.blocks)
    pool.release_source(chain[2])
    pool.check_integrity()
    allocate(pool, 1)
    assert [allocate(pool, 1)[0] for _ in range(3)] == chain[::-1]


def test_page_without_its_parent_is_not_reached_and_evicted_in_turn() -> None:
    pool = pool_of(2)
    parent, child = cache(pool, "aaaabb")
    pool.acquire(match := find(pool, "aaaabbb"))
    pool.release(match.blocks)
    assert allocate(pool, 1) == [parent]
    pool.release_source(child)
    pool.check_integrity()
    assert pool.cached == 1
    assert find(pool, "aaaabbb").tokens == 0
    assert allocate(pool, 1) == [child]
    assert pool.cached == 0


def test_page_found_again_once_its_parent_was_computed_again() -> None:
    pool = pool_of(3)
    parent, child = cache(pool, "aaaabb")
    pool.acquire(match := find(pool, "aaaabbb"))
    pool.release(match.blocks)
    allocate(pool, 1)
    assert allocate(pool, 1) == [parent]
    pool.release_source(child)
    publish(pool, [parent], "aaaa")
    pool.check_integrity()
    assert find(pool, "aaaabbb").partial == (child, 2)


def test_identical_pages_published_twice() -> None:
    pool = pool_of(4)
    first, second = compute(pool, "aaaabbbb"), compute(pool, "aaaabbbb")
    assert find(pool, "aaaabbbbz").blocks == tuple(first)
    pool.release(second)
    pool.check_integrity()
    assert (pool.cached, pool.used, pool.free) == (0, 2, 2)  # nothing is kept twice
    pool.release(first)
    pool.check_integrity()
    assert find(pool, "aaaabbbbz").blocks == tuple(first)


def test_duplicate_takes_the_place_of_the_page_that_was_evicted() -> None:
    pool = pool_of(3)
    first = cache(pool, "aaaa")
    second = compute(pool, "aaaabbbb")
    assert allocate(pool, 1) == first
    assert find(pool, "aaaabbbbz").tokens == 0
    pool.check_integrity()
    pool.release(second)
    pool.check_integrity()
    assert find(pool, "aaaabbbbz").blocks == tuple(second)
    assert not pool.was_evicted(pool.hashes(ids("aaaa"), "")[0])


def test_page_counts_as_used_where_its_duplicate_was() -> None:
    pool = pool_of(4)
    first = cache(pool, "aaaa")
    other = cache(pool, "cccc")
    second = compute(pool, "aaaabbbb")
    pool.release(second)
    pool.check_integrity()  # the child of both is older than the one that is kept
    assert allocate(pool, 2) == [second[0], other[0]]
    assert allocate(pool, 2) == [second[1], *first]


def test_withdrawn_pages_are_found_no_more_whoever_uses_them() -> None:
    pool = pool_of(8)
    free, used = cache(pool, "aaaa"), compute(pool, "bbbbcc")
    pool.withdraw([*free, *used, 7])
    pool.check_integrity()
    assert [find(pool, text).tokens for text in ("aaaax", "bbbbccx")] == [0, 0]
    assert (pool.cached, pool.used) == (0, 2)
    pool.release(used)
    pool.check_integrity()
    assert (pool.cached, pool.used) == (0, 0)


def test_page_counts_as_used_where_a_withdrawn_one_was() -> None:
    pool = pool_of(4)
    first = compute(pool, "aaaabbbb")
    pool.withdraw(first[:1])
    again = cache(pool, "aaaa")
    assert find(pool, "aaaabbbbz").blocks == (*again, first[1])
    pool.release(first)
    pool.check_integrity()  # else the page found now would be evicted before its child


def test_tail_that_becomes_a_duplicate_is_matched_no_more() -> None:
    pool = pool_of(4)
    second = compute(pool, "aaa")
    first = cache(pool, "aaaa")
    publish(pool, second, "aaaa")
    pool.check_integrity()
    assert find(pool, "aaaaz").blocks == tuple(first)
    assert find(pool, "aaa").partial == (first[0], 2)
    pool.release(second)
    assert pool.cached == 1


def test_typing_leaves_one_tail_page() -> None:
    pool = pool_of(8)
    for text in ("abcdp", "abcdpr", "abcdpri"):
        match = find(pool, text)
        pool.acquire(match)
        tail = allocate(pool, 2 - len(match.blocks))
        if match.partial:
            pool.release_source(match.partial[0])
        blocks = [*match.blocks, *tail]
        publish(pool, blocks, text)
        pool.release(blocks)
        pool.check_integrity()
    assert pool.cached == 2
    assert find(pool, "abcdprint").tokens == 7
    cache(pool, "abcdpr")  # an older state of the text, computed again
    assert pool.cached == 2
    assert find(pool, "abcdprint").tokens == 7


def test_page_in_use_is_not_dropped_for_one_that_holds_more() -> None:
    pool = pool_of(4)
    running = compute(pool, "ab")
    cache(pool, "abc")
    assert (pool.used, pool.cached) == (1, 1)
    publish(pool, running, "abx")
    assert find(pool, "abxx").tokens == 3
    pool.check_integrity()


def test_reservations_at_the_edge() -> None:
    pool = pool_of(4)
    chain = cache(pool, "aaaabbbb")
    match = find(pool, "aaaabbbbc")
    assert pool.can_reserve(4)
    assert not pool.can_reserve(5)
    assert pool.can_reserve(2, match)  # its two blocks are free ones themselves
    assert not pool.can_reserve(3, match)
    pool.acquire(match)
    assert pool.can_reserve(2, match)  # and are no more
    pool.reserve(2)
    assert (pool.free, pool.reserved, pool.used) == (2, 2, 2)
    assert not pool.can_reserve(1)
    assert pool.can_reserve(0)
    pool.allocate()
    assert (pool.free, pool.reserved, pool.used) == (1, 1, 3)
    pool.unreserve(1)
    assert pool.can_reserve(1)
    pool.release(chain)
    pool.check_integrity()
    assert (pool.free, pool.reserved, pool.used) == (3, 0, 1)


def test_page_to_copy_can_be_one_too_many() -> None:
    pool = pool_of(3)
    cache(pool, "aaaabb")
    match = find(pool, "aaaabbbbcccc")
    assert match.tokens == 6
    assert not pool.can_reserve(2, match)
    assert pool.can_reserve(2, match.without_partial())
    assert pool.can_reserve(1, match)


def test_cached_pages_of_a_match_cannot_be_taken_from_what_is_reserved() -> None:
    pool = pool_of(2)
    cache(pool, "aaaa")
    match = find(pool, "aaaab")
    pool.reserve(2)
    assert not pool.can_reserve(0, match)
    with pytest.raises(ValueError, match="2 of 2 free ones are"):
        pool.acquire(match)
    assert pool.used == 0
    pool.check_integrity()


def test_match_of_an_evicted_page_is_refused() -> None:
    pool = pool_of(2)
    cache(pool, "aaaabb")
    whole = find(pool, "aaaabbb")
    assert pool.is_current(whole)
    allocate(pool, 1)  # evicts the tail
    assert not pool.is_current(whole)
    assert pool.is_current(whole.without_partial())
    with pytest.raises(ValueError, match="out of date"):
        pool.acquire(whole)
    again = allocate(pool, 1)
    publish(pool, again, "aaaa")  # the same page, in the same block: but not the one that was found
    assert not pool.is_current(whole.without_partial())


def test_evicted_pages_are_remembered_until_computed_again() -> None:
    pool = pool_of(2)
    cache(pool, "aaaabb")
    (page,) = pool.hashes(ids("aaaa"), "")
    assert not pool.was_evicted(page)
    blocks = allocate(pool, 2)
    assert pool.was_evicted(page)
    assert pool.evictions == 2
    publish(pool, blocks[:1], "aaaa")
    assert not pool.was_evicted(page)
    pool.check_integrity()


def test_memory_of_evicted_pages_is_bounded() -> None:
    pool = pool_of(2)
    pages = [f"{number:04}" for number in range(EVICTED_REMEMBERED * 2 + 3)]
    for text in pages:
        cache(pool, text)
    remembered = [text for text in pages if pool.was_evicted(pool.hashes(ids(text), "")[0])]
    assert remembered == pages[1:-2]  # the last two are cached
    pool.check_integrity()


def test_without_caching_nothing_is_matched_or_kept() -> None:
    pool = pool_of(4, caching=False)
    blocks = compute(pool, "aaaabbbbcc")
    assert find(pool, "aaaabbbbcc") == NO_MATCH
    pool.check_integrity()
    pool.release(blocks)
    pool.check_integrity()
    assert find(pool, "aaaabbbbcc") == NO_MATCH
    assert (pool.free, pool.cached, pool.evictions) == (4, 0, 0)


def test_all_blocks_come_back() -> None:
    pool = pool_of(4)
    pool.release(compute(pool, "aaaabbbb"))
    assert sorted(allocate(pool, 4)) == [0, 1, 2, 3]
