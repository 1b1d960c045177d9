import math

import pytest
import torch

from aixcoder_serving.engine.noise import NOISE_RANGE, _to_gumbel, add_noise, gumbel_at, keys
from tests.unit.engine.draws import gumbel

WORD = (1 << 64) - 1
GAMMA = 0x9E3779B97F4A7C15


def _splitmix(z: int) -> int:
    """SplitMix64's output function, in Python's integers."""
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 & WORD
    z = (z ^ z >> 27) * 0x94D049BB133111EB & WORD
    return z ^ z >> 31


def _expected(seed: int, position: int, i: int) -> float:
    key = _splitmix(_splitmix((seed + GAMMA) & WORD) + position * GAMMA & WORD)
    word = _splitmix(key + (i // 2 + 1) * GAMMA & WORD)
    half = (word >> 32 if i % 2 else word) & 0x7FFFFFFF
    return -math.log(-math.log1p(-(half + 0.5) * 2.0**-31))


def _noise(seed: int, position: int, first: int, count: int) -> torch.Tensor:
    return gumbel(keys(torch.tensor([seed]), torch.tensor([position])), first, count)[0]


def _uniform(rows: int, count: int) -> torch.Tensor:
    """Noise of seed 1 at `rows` positions, turned back into numbers from 0 to 1: (rows, count) float64."""
    key = keys(torch.ones(rows, dtype=torch.int64), torch.arange(rows))
    return torch.exp(-torch.exp(-gumbel(key, 0, count).double()))


def test_the_generator_is_splitmix64() -> None:
    """The first outputs for the state 1234567 that its authors' implementation gives."""
    outputs = [_splitmix(1234567 + n * GAMMA & WORD) for n in range(1, 4)]
    assert outputs == [6457827717110365317, 3203168211198807973, 9817491932198370423]


@pytest.mark.parametrize(
    ("seed", "position", "i", "value"),
    [
        (0, 0, 0, 1.47515),
        (0, 0, 1, -0.11986),
        (7, 1, 49151, 0.84793),
        (-1, 4096, 12345, 2.64962),
        (2**63 - 1, 2**31, 6, -0.41973),
        (-(2**63), 1, 7, -0.75808),
    ],
)
def test_known_answers(seed: int, position: int, i: int, value: float) -> None:
    assert float(_noise(seed, position, i, 1)) == pytest.approx(value, abs=1e-5)
    assert _expected(seed, position, i) == pytest.approx(value, abs=1e-5)


@pytest.mark.parametrize(("first", "count"), [(0, 1), (1, 1), (3, 1000), (2048, 2048), (4095, 1), (5, 0), (0, 4096)])
def test_an_id_has_its_noise_in_any_slice_and_batch(first: int, count: int) -> None:
    seeds, positions = torch.tensor([3, 4, 3]), torch.tensor([9, 9, 10])
    key = keys(seeds, positions)
    whole = gumbel(key, 0, 4096)
    for row in range(3):
        assert torch.equal(gumbel(key[row : row + 1], first, count)[0], whole[row, first : first + count])


def test_ids_in_any_order_have_the_same_noise() -> None:
    key = keys(torch.tensor([3, 4]), torch.tensor([9, 9]))
    ids = torch.tensor([[7, 7, 0, 4095], [1, 0, 2048, 2047]])
    assert torch.equal(gumbel_at(key, ids), gumbel(key, 0, 4096).gather(1, ids))


def test_the_ends_of_the_range_are_finite() -> None:
    found = _to_gumbel(torch.tensor([0, -(2**31), 1, 2**31 - 1, -1], dtype=torch.int32))
    assert found.isfinite().all()
    assert float(found.max()) == pytest.approx(22.18, abs=0.01)
    assert float(found.min()) == pytest.approx(-2.81, abs=0.01)
    assert float(found.max() - found.min()) < NOISE_RANGE


# Bounds of chi-square: the values that one draw in 10,000 passes. The draws are fixed: the tests pass always or never.


def test_uniform() -> None:
    """64 cells, 63 degrees of freedom: 117.5; and the last 1/4096, where the large noise is that decides."""
    u = _uniform(64, 4096)
    counts = torch.histc(u, 64, 0, 1)
    expected = u.numel() / 64
    assert float(((counts - expected) ** 2 / expected).sum()) < 117.5
    assert int((u > 1 - 1 / 4096).sum()) == pytest.approx(64, abs=4 * 8)


@pytest.mark.parametrize(
    ("seeds", "positions"),
    [((1, 1), (5, 6)), ((1, 2), (5, 5)), ((0, 0), (0, 2**20)), ((3, -3), (7, 7)), ((1, 2**32 + 1), (5, 5))],
    ids=["positions", "seeds", "far positions", "signs", "high bits"],
)
def test_neighbours_are_independent(seeds: tuple[int, int], positions: tuple[int, int]) -> None:
    """Of pairs of uniform numbers in 8 x 8 cells, 63 degrees of freedom: 117.5."""
    key = keys(torch.tensor(seeds), torch.tensor(positions))
    one, other = torch.exp(-torch.exp(-gumbel(key, 0, 49152)))
    for shift in (0, 1, 2):
        cells = (one * 8).long().clamp(max=7) * 8 + (other.roll(shift) * 8).long().clamp(max=7)
        counts = torch.bincount(cells, minlength=64).double()
        assert float(((counts - 768) ** 2 / 768).sum()) < 117.5


def test_draws_follow_softmax() -> None:
    """8 tokens, 7 degrees of freedom: 29.9. Temperature 0.7."""
    logits = torch.tensor([2.0, 1.0, 0.0, -1.0, 2.0, -3.0, 0.5, 1.5])
    n = 20000
    key = keys(torch.full((n,), 11), torch.arange(n))
    scores = torch.cat(list(add_noise(logits.expand(n, 8), torch.full((n,), 0.7), key, 3)))
    counts = torch.bincount(scores.argmax(-1), minlength=8)
    expected = n * torch.softmax(logits / 0.7, -1)
    assert float(((counts - expected) ** 2 / expected).sum()) < 29.9


def test_temperature_zero_adds_nothing() -> None:
    logits = torch.randn((3, 100), generator=torch.Generator().manual_seed(1))
    key = keys(torch.arange(3), torch.arange(3))
    assert torch.equal(torch.cat(list(add_noise(logits, torch.zeros(3), key, 0))), logits)
