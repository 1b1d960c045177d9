import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from aixcoder_serving.engine.vocabulary import largest, leading, merge


def _order(row: list[float]) -> list[int]:
    """Columns, larger value first, of equal values the lower column."""
    return sorted(range(len(row)), key=lambda i: (-row[i], i))


def _logits(rows: int, width: int, kind: str) -> torch.Tensor:
    x = torch.randn((rows, width), generator=torch.Generator().manual_seed(width)) * 3
    return {
        "distinct": x,
        "often equal": x.round(),
        "all equal": x * 0,
        "one finite": x.masked_fill(x < x.max(), -math.inf),
    }[kind]


KINDS = ["distinct", "often equal", "all equal", "one finite"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("width", [1, 2, 511, 512, 513, 600, 767, 768, 1025, 3000])
def test_largest_is_the_first_of_the_order(width: int, kind: str) -> None:
    x = _logits(5, width, kind)
    values, columns = largest(x)
    assert columns.tolist() == [_order(row)[0] for row in x.tolist()]
    assert values.tolist() == x.gather(1, columns.unsqueeze(1))[:, 0].tolist()


@pytest.mark.parametrize("place", [0, 255, 256, 599])
def test_nan_comes_before_all(place: int) -> None:
    x = _logits(1, 600, "distinct")
    x[0, 300] = math.inf
    x[0, place] = math.nan
    assert math.isnan(float(largest(x)[0]))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("width", "n"), [(1, 1), (7, 3), (7, 20), (160, 20), (161, 20), (1000, 1), (1003, 50), (50, 0)]
)
def test_leading_is_the_head_of_the_order(width: int, n: int, kind: str) -> None:
    x = _logits(6, width, kind)
    values, columns = leading(x, n)
    assert columns.tolist() == [_order(row)[:n] for row in x.tolist()]
    assert torch.equal(values, x.gather(1, columns))


@pytest.mark.parametrize("n", [1, 20])
def test_a_row_with_nan_leaves_the_others_alone(n: int) -> None:
    x = _logits(3, 1000, "distinct")
    x[1] = math.nan
    _, columns = leading(x, n)
    assert columns.shape == (3, n)
    assert columns[[0, 2]].tolist() == [_order(row)[:n] for row in x[[0, 2]].tolist()]


@given(
    st.lists(st.lists(st.sampled_from([-math.inf, -1.0, 0.0, 2.0]), min_size=1, max_size=30), min_size=1, max_size=4),
    st.integers(1, 12),
)
def test_merged_heads_of_slices_are_the_head_of_the_whole(slices: list[list[float]], n: int) -> None:
    whole = [value for part in slices for value in part]
    n = min(n, len(whole))
    values = torch.full((len(slices), 1, n), -math.inf)
    ids = torch.full((len(slices), 1, n), len(whole))
    first = 0
    for rank, part in enumerate(slices):
        found, columns = leading(torch.tensor([part]), n)
        values[rank, 0, : found.shape[1]] = found[0]
        ids[rank, 0, : found.shape[1]] = columns[0] + first
        first += len(part)
    merged, names = merge(values, ids, n)
    assert names[0].tolist() == _order(whole)[:n]
    assert merged[0].tolist() == [whole[i] for i in names[0].tolist()]
