"""A completion that was begun elsewhere goes on, and ends where it would have ended."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aixcoder_serving.engine.interface import RequestRefused, Sampling
from aixcoder_serving.engine.stops import Ending, Verdict, ended
from aixcoder_serving.engine.validation import validate
from tests.unit.engine.engine_bench import BYTES, Bench, alone, ids

TEXTS = (b"a", b"b", b"ab", b"\n", b"  ", b"\r\n", b"\n  a", b"", b"ba\n")


def last(sampling: Sampling, tokens: list[int], begun: int = 0) -> tuple[int, Verdict] | None:
    """The number of tokens at the end, and why; the first `begun` were generated elsewhere."""
    ending = Ending(sampling, TEXTS)
    ending.resume(tokens[:begun])
    for n, token in enumerate(tokens[begun:], begun + 1):
        verdict = ending.push(token, 0.0)
        if verdict is not None:
            return n, verdict
    return None


@given(
    st.lists(st.integers(0, len(TEXTS) - 1), max_size=14),
    st.lists(st.sampled_from(["ab", "aba", "a\n", "\n\n", "bb"]), max_size=2),
    st.booleans(),
    st.integers(0, 3),
    st.integers(0, 4),
    st.data(),
)
def test_it_ends_at_the_same_token(
    tokens: list[int], stop: list[str], first_line: bool, n_indent: int, min_tokens: int, data: st.DataObject
) -> None:
    most = len(tokens) + 1
    whole = Sampling(most, min(min_tokens, most), stop=tuple(stop), first_line=first_line, n_indent=n_indent)
    end = last(whole, tokens)
    begun = data.draw(st.integers(0, end[0] - 1 if end else len(tokens)))
    left = Sampling(
        most - begun, max(whole.min_tokens - begun, 0), stop=whole.stop, first_line=first_line, n_indent=n_indent
    )
    assert last(left, tokens, begun) == end
    assert ended(whole, TEXTS, tokens[:begun]) is None
    if end is not None:
        assert ended(whole, TEXTS, tokens[: end[0]]) == end[1]


STOP = Sampling(stop=("ab",))


@pytest.mark.parametrize(
    ("sampling", "tokens", "verdict"),
    [
        pytest.param(STOP, [], None, id="nothing was generated"),
        pytest.param(STOP, [0], None, id="half a stop string"),
        pytest.param(STOP, [1, 0, 1], Verdict("stop", 2), id="a stop string, over two tokens"),
        pytest.param(Sampling(stop=("ab",), min_tokens=3), [1, 0, 1], None, id="complete too early"),
        pytest.param(Sampling(stop=("ab",), min_tokens=2), [1, 0, 1], Verdict("stop", 2), id="late enough"),
        pytest.param(Sampling(first_line=True), [0, 5], Verdict("stop", 2), id="the first line"),
        pytest.param(Sampling(n_indent=2), [0, 3, 1], Verdict("stop", 2), id="a line indented too little"),
        pytest.param(Sampling(stop_ids=frozenset({7})), [0, 7], Verdict("stop"), id="a stop id"),
        pytest.param(Sampling(stop_ids=frozenset({7}), ignore_eos=True), [0, 7], None, id="one that ends nothing"),
        pytest.param(Sampling(max_tokens=2), [0, 1], Verdict("length"), id="the length"),
        pytest.param(
            Sampling(max_tokens=2, stop=("ab",)), [0, 1], Verdict("stop", 2), id="a stop string before length"
        ),
        pytest.param(Sampling(max_predict_ms=1.0), [0, 3], None, id="a time that no other replica knows"),
    ],
)
def test_what_is_there_may_be_all_of_it(sampling: Sampling, tokens: list[int], verdict: Verdict | None) -> None:
    assert ended(sampling, TEXTS, tokens) == verdict


@pytest.mark.parametrize("begun", [1, 5, 17, 39])
def test_the_engine_goes_on_behind_what_is_there(begun: int) -> None:
    prompt = ids(30)
    whole, finish = alone(prompt, Sampling(max_tokens=40, stop=("b",)), BYTES)
    begun = min(begun, len(whole) - 1)
    bench = Bench()
    number = bench.submit([*prompt, *whole[:begun]], 40 - begun, stop=("b",), resumed=begun)
    bench.run()
    answer = bench.answers[number]
    assert whole[:begun] + answer.ids == whole
    assert answer.finish is not None
    assert (answer.finish.reason, answer.finish.trim_bytes) == (finish.reason, finish.trim_bytes)
    assert answer.finish.completion_tokens == len(whole) - begun


@pytest.mark.parametrize("resumed", [-1, 3, 4])
def test_a_prompt_is_more_than_what_was_generated(resumed: int) -> None:
    with pytest.raises(RequestRefused, match="resumed"):
        validate([1, 2, 3], Sampling(resumed=resumed), vocabulary_size=10, max_length=1000)


def test_what_waits_to_be_computed_is_told() -> None:
    bench = Bench(slots=1)
    bench.submit(ids(400), 2)
    bench.submit(ids(50, 7), 2)
    stats = bench.engine.stats()
    assert stats.submitted == 2
    assert stats.prefill_waiting_ms == pytest.approx(450 * stats.prefill_ms_per_token)
    bench.step()
    assert bench.engine.stats().prefill_waiting_ms < stats.prefill_waiting_ms
    bench.run()
    assert bench.engine.stats().prefill_waiting_ms == 0.0
