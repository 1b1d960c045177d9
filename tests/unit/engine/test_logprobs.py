import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from aixcoder_serving.engine.interface import TokenLogprobs
from aixcoder_serving.engine.logprobs import LOGPROB_ROWS, token_logprobs
from aixcoder_serving.engine.vocabulary import Slice
from tests.unit.engine.slices import cut, on_slices


def _found(logits: Tensor, ids: list[int], top: list[int], parts: list[Slice]) -> list[TokenLogprobs]:
    ranks = on_slices(logits, parts, lambda own, part, ranks: token_logprobs(own, ids, top, part, ranks))
    assert all(repr(rank) == repr(ranks[0]) for rank in ranks)  # NaN equals nothing
    return ranks[0]


def _expected(logits: Tensor, ids: list[int], top: list[int]) -> list[TokenLogprobs]:
    logs = torch.log_softmax(logits.double(), -1).tolist()
    return [
        TokenLogprobs(i, row[i], tuple(sorted(enumerate(row), key=lambda pair: (-pair[1], pair[0]))[:n]))
        for row, i, n in zip(logs, ids, top, strict=True)
    ]


def _assert_close(found: list[TokenLogprobs], expected: list[TokenLogprobs]) -> None:
    for one, other in zip(found, expected, strict=True):
        assert one.token_id == other.token_id
        assert one.logprob == pytest.approx(other.logprob, abs=1e-5)
        assert [i for i, _ in one.top] == [i for i, _ in other.top]
        assert [log for _, log in one.top] == pytest.approx([log for _, log in other.top], abs=1e-5)


@pytest.mark.parametrize("size", [1, 2, 3, 4, 8])
@pytest.mark.parametrize("scale", [0.1, 3.0, 100.0])
def test_as_log_softmax_of_the_whole_row(size: int, scale: float) -> None:
    logits = torch.randn((5, 301), generator=torch.Generator().manual_seed(7)) * scale
    ids, top = [0, 300, 150, 151, 8], [0, 1, 5, 20, 3]
    _assert_close(_found(logits, ids, top, cut(301, size)), _expected(logits, ids, top))


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_any_slices_and_ties(data: st.DataObject) -> None:
    row = st.lists(st.sampled_from([-40.0, -1.0, 0.0, 0.5, 30.0]), min_size=9, max_size=9)
    logits = torch.tensor(data.draw(st.lists(row, min_size=1, max_size=3)))
    ids = [data.draw(st.integers(0, 8)) for _ in logits]
    top = [data.draw(st.integers(0, 9)) for _ in logits]
    edges = [0, *sorted(data.draw(st.lists(st.integers(0, 9), max_size=3))), 9]
    parts = [Slice(first, after - first, 9) for first, after in pairwise(edges)]
    _assert_close(_found(logits, ids, top, parts), _expected(logits, ids, top))


def test_many_rows_are_done_in_blocks() -> None:
    n = 2 * LOGPROB_ROWS + 3
    logits = torch.randn((n, 40), generator=torch.Generator().manual_seed(8))
    ids, top = [r % 40 for r in range(n)], [r % 3 for r in range(n)]
    _assert_close(_found(logits, ids, top, cut(40, 3)), _expected(logits, ids, top))


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_what_is_no_number_stays_none(value: float) -> None:
    logits = torch.zeros((2, 10))
    logits[0, 7] = value
    broken, whole = _found(logits, [1, 1], [0, 1], cut(10, 3))
    assert math.isnan(broken.logprob)
    _assert_close([whole], [TokenLogprobs(1, -math.log(10), ((0, -math.log(10)),))])


def test_an_impossible_token_has_no_share() -> None:
    logits = torch.tensor([[0.0, -math.inf, 0.0, -math.inf]])
    (found,) = _found(logits, [3], [4], cut(4, 2))
    half = -math.log(2)
    _assert_close([found], [TokenLogprobs(3, -math.inf, ((0, half), (2, half), (1, -math.inf), (3, -math.inf)))])
