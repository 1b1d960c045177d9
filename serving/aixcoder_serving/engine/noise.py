"""Random numbers that are a function of (seed, position, token id): the same in any batch, slice, order and device.

SplitMix64 (Steele, Lea, Flood: Fast splittable pseudorandom number generators, 2014) started from a key of seed and
position; its n-th output serves ids 2 n (lower half) and 2 n + 1. Integers wrap around; devices differ in the last bits
of the logarithms only.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor


def _signed(x: int) -> int:
    return x - (1 << 64) if x >> 63 else x


_GAMMA = _signed(0x9E3779B97F4A7C15)
_MIX = ((30, _signed(0xBF58476D1CE4E5B9)), (27, _signed(0x94D049BB133111EB)))
_HIGHEST = 0x7FFFFFFF
# u = h * _STEP + _LEAST for h of 31 bits: never 0, and never 1 where the largest h is rounded up to 2 ** 31.
_STEP = 2.0**-31 * (1 - 2.0**-24)
_LEAST = 2.0**-32
_CACHED = 1 << 16  # numbers of a block that stay in a processor's cache
_DEVICE_ROWS = 64


def _fold(z: Tensor, shift: int) -> None:
    """Z ^= z >> shift, unsigned: torch shifts the sign in."""
    z.bitwise_xor_((z >> shift).bitwise_and_((1 << (64 - shift)) - 1))


def _mix(z: Tensor) -> Tensor:
    """SplitMix64's output function, in place."""
    for shift, factor in _MIX:
        _fold(z, shift)
        z.mul_(factor)
    _fold(z, 31)
    return z


def keys(seeds: Tensor, positions: Tensor) -> Tensor:
    """One key for each row, (R,) int64 like seeds and positions. A position counts from the sequence's start."""
    return _mix(_mix(seeds + _GAMMA) + positions * _GAMMA)


def gumbel(key: Tensor, first: int, count: int) -> Tensor:
    """Standard Gumbel noise -log(-log(1 - u)), float32 (R, count), of the ids `first` and after for the keys (R,).

    1 - u and not u: float32 is finest near 0, and a small u is a large noise, which is what decides. It lies in
    -2.82 to 22.19.
    """
    start = first // 2
    z = torch.arange(start + 1, (first + count + 1) // 2 + 1, device=key.device).mul_(_GAMMA)
    halves = _mix(z + key.unsqueeze(1)).view(torch.int32)
    return _to_gumbel(halves)[:, first - 2 * start :][:, :count]


def _to_gumbel(halves: Tensor) -> Tensor:
    u = halves.bitwise_and_(_HIGHEST).float().mul_(_STEP).add_(_LEAST)
    return u.neg_().log1p_().neg_().log_().neg_()


def add_noise(x: Tensor, temperatures: Tensor, key: Tensor, first: int) -> Iterator[Tensor]:
    """Blocks of rows of x + temperature * noise, float32, of x (R, N): the ids `first` and after.

    By the block, because a processor makes numbers that stay in its cache in half the time, and to bound the memory.
    """
    block = _DEVICE_ROWS if x.is_cuda else max(1, _CACHED // max(1, x.shape[1]))
    for start in range(0, x.shape[0], block):
        rows = slice(start, start + block)
        yield gumbel(key[rows], first, x.shape[1]).mul_(temperatures[rows].unsqueeze(1)).add_(x[rows])
