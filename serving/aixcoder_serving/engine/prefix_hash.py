"""The chained hash of a page: of its own tokens and all before them, so that equal hashes mean equal keys and values.

The root of a chain is the hash of a salt: two salts share nothing.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from hashlib import blake2b

HASH_BYTES = 16


def root_hash(salt: str) -> bytes:
    """The parent of first pages. Marked as a root, so that no salt can be chosen to be some page's hash."""
    return blake2b(salt.encode("utf-8", "surrogatepass"), digest_size=HASH_BYTES, person=b"root").digest()


def extend_hash(parent: bytes, tokens: Sequence[int]) -> bytes:
    """The hash of a full page from its parent's hash and its own tokens (ids below 2 ** 31)."""
    return blake2b(parent + array("i", tokens).tobytes(), digest_size=HASH_BYTES).digest()


def chain_hashes(parent: bytes, tokens: Sequence[int], block_size: int) -> list[bytes]:
    """The hashes of all full pages of `tokens`, which begin behind `parent`."""
    ids = array("i", tokens)
    width = block_size * ids.itemsize
    content = ids.tobytes()
    hashes = []
    for end in range(width, len(content) + 1, width):
        parent = blake2b(parent + content[end - width : end], digest_size=HASH_BYTES).digest()
        hashes.append(parent)
    return hashes
