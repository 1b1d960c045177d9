import math
from itertools import accumulate, pairwise
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode

from aixcoder_serving.engine.collectives import OneRank
from aixcoder_serving.engine.interface import Sampling
from aixcoder_serving.engine.noise import keys
from aixcoder_serving.engine.ops import Collectives
from aixcoder_serving.engine.sampler import BrokenLogits, Choice, Row, Rule, choices, greedy, sample
from aixcoder_serving.engine.vocabulary import Slice
from tests.unit.engine.draws import gumbel
from tests.unit.engine.slices import cut, on_slices

V = 300
SIZES = [1, 2, 3, 4, 8]


def _logits(rows: int, *, seed: int = 0, ties: bool = False) -> Tensor:
    x = torch.randn((rows, V), generator=torch.Generator().manual_seed(seed)) * 2
    return x.round() if ties else x


def _row(n: int, position: int = 20, **wish: Any) -> Row:
    """Row with seed n of a request with 10 prompt tokens; `position` 20 is its eleventh new token."""
    tokens = torch.randint(V, (position + 5,), generator=torch.Generator().manual_seed(n))
    return Row(Rule(Sampling(**wish), seed=n, prompt_length=10), position, tokens)


def _sample(logits: Tensor, rows: list[Row], size: int = 1) -> list[Choice]:
    """What all ranks agree on."""
    ranks = on_slices(logits, cut(V, size), lambda own, part, ranks: sample(own, rows, part, ranks))
    assert all(rank == ranks[0] for rank in ranks)
    return ranks[0]


def _ids(logits: Tensor, rows: list[Row], size: int = 1) -> list[int]:
    return [i for i, _ in _sample(logits, rows, size)]


def _oracle(logits: Tensor, row: Row) -> int:
    """The definition, for one row of logits (V,), by sorting the whole vocabulary."""
    wish, x = row.rule.sampling, logits.double()
    for i, bias in wish.logit_bias:
        x[i] += bias
    if row.position - row.rule.prompt_length < wish.min_tokens:
        x[list(wish.stop_ids)] = -math.inf
    past = [] if row.tokens is None else row.tokens[: row.position].tolist()
    for i in set(past):
        x[i] = x[i] / wish.repetition_penalty if x[i] > 0 else x[i] * wish.repetition_penalty
    for i in set(past[10:]):
        x[i] -= wish.frequency_penalty * past[10:].count(i) + wish.presence_penalty
    order = sorted(range(V), key=lambda i: (-float(x[i]), i))
    if not wish.temperature:
        return order[0]
    chance = torch.softmax(x / wish.temperature, -1).tolist()
    head = [i for i in order if chance[i] >= wish.min_p * chance[order[0]]]
    head = head[: wish.top_k or V]
    mass = sum(chance[i] for i in head)
    before = accumulate((chance[i] for i in head), initial=0.0)
    head = [i for i, so_far in zip(head, before, strict=False) if so_far < wish.top_p * mass]
    noise = gumbel(keys(torch.tensor([row.rule.seed]), torch.tensor([row.position])), 0, V)[0].double()
    return max(head, key=lambda i: (float(x[i] + wish.temperature * noise[i]), -i))


WISHES: dict[str, dict[str, Any]] = {
    "greedy": {},
    "temperature": {"temperature": 0.8},
    "hot": {"temperature": 30.0},
    "top-k": {"temperature": 1.0, "top_k": 5},
    "top-k 1": {"temperature": 5.0, "top_k": 1},
    "top-k of all": {"temperature": 1.0, "top_k": 1000},
    "top-p": {"temperature": 1.0, "top_p": 0.9},
    "top-p, flat": {"temperature": 10.0, "top_p": 0.3},
    "top-p, hardly any": {"temperature": 3.0, "top_p": 1e-6},
    "min-p": {"temperature": 1.5, "min_p": 0.1},
    "min-p 1": {"temperature": 4.0, "min_p": 1.0},
    "all filters": {"temperature": 2.0, "top_k": 40, "top_p": 0.7, "min_p": 0.02},
    "top-p after top-k": {"temperature": 8.0, "top_k": 4, "top_p": 0.6},
    "penalties": {"temperature": 1.0, "repetition_penalty": 1.3, "frequency_penalty": 0.4, "presence_penalty": 0.3},
    "greedy with penalties": {"repetition_penalty": 1.5},
    "bias": {"temperature": 1.0, "logit_bias": ((3, 8.0), (299, -100.0))},
    "min tokens": {"min_tokens": 11, "stop_ids": frozenset(range(0, V, 2))},
    "min tokens reached": {"min_tokens": 10, "stop_ids": frozenset(range(V))},
    "everything": {
        "temperature": 1.2,
        "top_k": 60,
        "top_p": 0.8,
        "min_p": 0.01,
        "repetition_penalty": 1.2,
        "presence_penalty": 0.5,
        "logit_bias": ((7, 6.0), (8, 5.0)),
        "min_tokens": 20,
        "stop_ids": frozenset({7}),
    },
}


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", WISHES)
def test_the_definition_in_any_number_of_slices(name: str, size: int) -> None:
    logits = torch.cat((_logits(4), _logits(4, ties=True)))
    rows = [_row(n, **WISHES[name]) for n in range(8)]
    assert _ids(logits, rows, size) == [_oracle(logits[n].clone(), row) for n, row in enumerate(rows)]


def test_one_batch_of_all_kinds_is_each_row_alone() -> None:
    logits = _logits(2 * len(WISHES))
    before = logits.clone()
    rows = [_row(n, 10 + n, **wish) for n, wish in enumerate([*WISHES.values()] * 2)]
    alone = [_ids(logits[n : n + 1], [row])[0] for n, row in enumerate(rows)]
    for size in SIZES:
        assert _ids(logits, rows, size) == alone
    backwards = torch.arange(len(rows) - 1, -1, -1)
    assert _ids(logits[backwards], rows[::-1], 3) == alone[::-1]
    assert torch.equal(logits, before)


@settings(max_examples=80, deadline=None)
@given(st.data())
def test_any_wish_in_any_slices(data: st.DataObject) -> None:
    chance = st.floats(0.01, 1.0)
    wish = {
        "temperature": data.draw(st.sampled_from([0.0, 0.2, 1.0, 3.0])),
        "top_k": data.draw(st.sampled_from([0, 1, 2, 7, 100, 300, 301])),
        "top_p": data.draw(st.one_of(st.just(1.0), chance)),
        "min_p": data.draw(st.one_of(st.just(0.0), chance)),
        "repetition_penalty": data.draw(st.sampled_from([1.0, 1.4, 0.7])),
        "frequency_penalty": data.draw(st.sampled_from([0.0, 0.5, -0.5])),
        "logit_bias": data.draw(st.sampled_from([(), ((0, 5.0), (299, 4.0))])),
    }
    logits = _logits(3, seed=data.draw(st.integers(0, 50)), ties=data.draw(st.booleans()))
    rows = [_row(data.draw(st.integers(-(2**63), 2**63 - 1).map(lambda n: n % 1000)), 12 + n, **wish) for n in range(3)]
    edges = [0, *sorted(data.draw(st.lists(st.integers(0, V), max_size=3))), V]
    parts = [Slice(first, after - first, V) for first, after in pairwise(edges)]
    ranks = on_slices(logits, parts, lambda own, part, ranks: sample(own, rows, part, ranks))
    assert all(rank == ranks[0] for rank in ranks)
    assert [i for i, _ in ranks[0]] == _ids(logits, rows)


def test_a_position_has_its_noise_whatever_was_before() -> None:
    """A draft's rows are rows like others: three positions in one step, and one by one."""
    logits = _logits(3)
    rows = [_row(5, position, temperature=1.0, frequency_penalty=0.5) for position in (14, 15, 16)]
    for row in rows:
        row.tokens = rows[2].tokens
    assert rows[2].tokens is not None
    together = _ids(logits, rows)
    for n, row in enumerate(rows):
        own = Row(row.rule, row.position, rows[2].tokens[: row.position])
        assert _ids(logits[n : n + 1], [own]) == together[n : n + 1]


def test_seeds_and_positions_differ() -> None:
    logits = _logits(1).expand(64, V)
    assert len(set(_ids(logits, [_row(n, temperature=5.0) for n in range(64)]))) > 30
    assert len(set(_ids(logits, [_row(1, 10 + n, temperature=5.0) for n in range(64)]))) > 30


def test_filtered_draws_follow_what_is_left() -> None:
    """Top-p 0.8 leaves 4 of 6 tokens: chi-square with 3 degrees of freedom, which one in 10,000 passes: 21.1."""
    chances = torch.tensor([[0.05, 0.3, 0.1, 0.25, 0.1, 0.2]])
    n = 4000
    rows = [Row(Rule(Sampling(temperature=1.0, top_p=0.8), seed=3, prompt_length=1), p) for p in range(1, n + 1)]
    found = sample(chances.log().expand(n, 6), rows, Slice(0, 6, 6), OneRank())
    counts = torch.bincount(torch.tensor([i for i, _ in found]), minlength=6)
    assert counts[[0, 4]].tolist() == [0, 0]
    left = torch.tensor([1, 2, 3, 5])
    expected = n * chances[0, left] / chances[0, left].sum()
    assert float(((counts[left] - expected) ** 2 / expected).sum()) < 21.1


@pytest.mark.parametrize("size", [2, 4])
def test_ranks_whose_slices_differ_work_on_the_same_rows(size: int) -> None:
    """A power of two and one added token: the last slice is smaller, and its rows are cut as the others' are."""
    vocabulary, n = 32769, 9
    logits = torch.randn((n, vocabulary), generator=torch.Generator().manual_seed(0)) * 0.1
    rows = [Row(Rule(Sampling(temperature=1.0, top_p=0.3), seed=3, prompt_length=1), p) for p in range(1, n + 1)]

    def draw(x: Tensor, part: Slice, collectives: Collectives) -> list[Choice]:
        return sample(x, rows, part, collectives)

    (alone,) = on_slices(logits, cut(vocabulary, 1), draw)
    assert on_slices(logits, cut(vocabulary, size), draw) == [alone] * size


@pytest.mark.parametrize(("temperature", "likeliest"), [(1e-7, True), (1e-5, True), (1e300, False)])
@pytest.mark.parametrize("more", [{}, {"top_p": 0.999}, {"min_p": 1e-9}])
def test_extreme_temperatures(temperature: float, likeliest: bool, more: dict[str, Any]) -> None:
    logits = _logits(30)
    found = _ids(logits, [_row(n, temperature=temperature, **more) for n in range(30)], 2)
    assert (found == logits.argmax(-1).tolist()) == likeliest
    assert likeliest or len(set(found)) > 20


@pytest.mark.parametrize("size", SIZES)
def test_logprobs_are_of_the_models_own_distribution(size: int) -> None:
    logits = _logits(3)
    wish: dict[str, Any] = {
        "temperature": 3.0,
        "top_k": 4,
        "logit_bias": ((9, 50.0), (10, 49.0)),
        "presence_penalty": 1.0,
    }
    rows = [_row(1, logprobs=2, **wish), _row(2, **wish), _row(3, logprobs=0)]
    logs = torch.log_softmax(logits, -1)
    (first, told), (_, untold), (last, only) = _sample(logits, rows, size)
    assert first in (9, 10)
    assert told is not None
    assert told.token_id == first
    assert told.logprob == pytest.approx(float(logs[0, first]), abs=1e-5)
    values, ids = logs[0].topk(2)
    assert [i for i, _ in told.top] == ids.tolist()
    assert [log for _, log in told.top] == pytest.approx(values.tolist(), abs=1e-5)
    assert untold is None
    assert only is not None
    assert (only.token_id, only.top) == (last, ())


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(
    "wish", [{}, {"temperature": 1.0}, {"temperature": 1.0, "top_p": 0.5}, {"logprobs": 1}, {"presence_penalty": 1.0}]
)
@pytest.mark.parametrize("place", [0, 137, V - 1])
def test_logits_that_are_no_numbers_are_an_error_of_their_row(wish: dict[str, Any], place: int, size: int) -> None:
    logits = _logits(4)
    expected: list[Choice | None] = [*_sample(logits, [_row(n, **wish) for n in range(4)], size)]
    logits[1, place] = math.nan
    logits[3] = -math.inf
    rows = [_row(n, **wish) for n in range(4)]

    def attempt(own: Tensor, part: Slice, ranks: Any) -> BrokenLogits:
        with pytest.raises(BrokenLogits, match="not numbers") as broken:
            sample(own, rows, part, ranks)
        return broken.value

    for broken in on_slices(logits, cut(V, size), attempt):
        assert broken.rows == (1, 3)
        assert broken.choices == [expected[0], None, expected[2], None]


def test_nan_under_a_ban_still_breaks_the_logprobs() -> None:
    logits = _logits(1)
    logits[0, 7] = math.nan
    row = _row(1, min_tokens=50, stop_ids=frozenset({7}), logprobs=0)
    with pytest.raises(BrokenLogits):
        _sample(logits, [row])


def test_all_banned_is_an_error_and_not_token_0() -> None:
    with pytest.raises(BrokenLogits):
        _sample(_logits(1), [_row(1, min_tokens=50, stop_ids=frozenset(range(V)))])


@pytest.mark.parametrize("tokens", [None, torch.arange(19)])
def test_penalties_without_the_past_are_refused(tokens: Tensor | None) -> None:
    row = _row(1, presence_penalty=1.0)
    row.tokens = tokens
    with pytest.raises(ValueError, match="position 20 need the 20 ids"):
        _sample(_logits(1), [row])


def test_no_rows() -> None:
    assert _sample(torch.empty((0, V)), []) == []


@pytest.mark.parametrize(
    ("wish", "greedy"),
    [
        ({}, True),
        ({"top_p": 0.5, "top_k": 3, "min_p": 0.1}, True),
        ({"temperature": 0.5}, False),
        ({"temperature": 0.5, "top_p": 0.5}, False),
        ({"logprobs": 0}, False),
        ({"presence_penalty": -1.0}, False),
        ({"logit_bias": ((1, 1.0),)}, False),
        ({"min_tokens": 1}, True),
        ({"min_tokens": 1, "stop_ids": frozenset({1})}, False),
        ({"min_tokens": 1, "stop_ids": frozenset({1}), "ignore_eos": True}, True),
    ],
)
def test_what_needs_more_than_the_likeliest(wish: dict[str, Any], greedy: bool) -> None:
    assert Rule(Sampling(**wish), seed=0, prompt_length=5).greedy == greedy


@pytest.mark.parametrize("size", SIZES)
def test_greedy_is_the_first_of_the_likeliest(size: int) -> None:
    logits = _logits(6, ties=True)
    found = on_slices(logits, cut(V, size), lambda own, part, ranks: choices(greedy(own, part, ranks)))
    assert found == [[min(i for i in range(V) if row[i] == max(row)) for row in logits.tolist()]] * size


def test_greedy_never_waits_for_the_device() -> None:
    """Tensors without values refuse to tell one: what passes here can be in a CUDA graph."""
    with FakeTensorMode():
        found = greedy(torch.empty((70, 1000), device="cuda"), Slice(0, 1000, 1000), OneRank())
        assert found.shape == (70, 2)
        assert found.device.type == "cuda"
        with pytest.raises(DataDependentOutputException):
            choices(found)
