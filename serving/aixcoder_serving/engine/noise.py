"""Random numbers that are a function of (seed, position, token id): the same in any batch, slice, order and device.

SplitMix64 (Steele, Lea, Flood: Fast splittable pseudorandom number generators, 2014) started from a key of seed and
position; its n-th output serves ids 2 n (lower half) and 2 n + 1. Integers wrap around; devices differ in the last bits
of the logarithms only.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from aixcoder_serving.engine.vocabulary import row_blocks


def _signed(x: int) -> int:
    return x - (1 << 64) if x >> 63 else x


_GAMMA = _signed(0x9E3779B97F4A7C15)
_MIX = ((30, _signed(0xBF58476D1CE4E5B9)), (27, _signed(0x94D049BB133111EB)))
_HIGHEST = 0x7FFFFFFF
# u = h * _STEP + _LEAST for h of 31 bits: never 0, and never 1 where the largest h is rounded up to 2 ** 31.
_STEP = 2.0**-31 * (1 - 2.0**-24)
_LEAST = 2.0**-32

NOISE_RANGE = 25.1
"""The noise lies in -2.82 to 22.19: no two of it differ by more than this."""


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


def gumbel_at(key: Tensor, ids: Tensor) -> Tensor:
    """Noise of the ids (R, M) int64, with the keys (R,): float32 (R, M)."""
    words = _mix((ids >> 1).add_(1).mul_(_GAMMA).add_(key.unsqueeze(1)))
    return _to_gumbel(words >> (ids & 1).mul_(32))


def add_noise(x: Tensor, temperatures: Tensor, key: Tensor, first: int) -> Iterator[Tensor]:
    """Blocks of rows of x + temperature * noise, float32, of x (R, N): the ids `first` and after."""
    count = x.shape[1]
    # The generator's states for key 0, one for two ids.
    words = torch.arange(first // 2 + 1, (first + count + 1) // 2 + 1, device=x.device).mul_(_GAMMA)
    for rows in row_blocks(x, x.shape[1]):
        halves = _mix(words + key[rows].unsqueeze(1)).view(torch.int32)
        noise = _to_gumbel(halves)[:, first % 2 :][:, :count]
        yield noise.mul_(temperatures[rows].unsqueeze(1)).add_(x[rows])


def _to_gumbel(halves: Tensor) -> Tensor:
    """Standard Gumbel noise -log(-log(1 - u)), u of the lowest 31 bits.

    1 - u and not u: float32 is finest near 0, and a small u is a large noise, which is what decides.
    """
    u = halves.bitwise_and_(_HIGHEST).float().mul_(_STEP).add_(_LEAST)
    return u.neg_().log1p_().neg_().log_().neg_()
