from collections.abc import Sequence
from dataclasses import replace

import pytest

from aixcoder_serving.engine.interface import Sampling
from aixcoder_serving.engine.stops import Ending, StopMatcher, Verdict


def run(sampling: Sampling, tokens: Sequence[bytes]) -> tuple[Verdict | None, list[int]]:
    """Push tokens until one is the last; the verdict, and how much was held after each token."""
    ending, held = Ending(sampling, tokens), []
    for token_id in range(len(tokens)):
        verdict = ending.push(token_id, 0.0)
        held.append(ending.held_bytes)
        if verdict:
            return verdict, held
    return None, held


@pytest.mark.parametrize(
    ("stop", "tokens", "trims"),
    [
        pytest.param(["\n"], [b"a", b"b\n"], [None, 1], id="at the end of a token"),
        pytest.param(["\n\n"], [b"a\n", b"b\n", b"\n"], [None, None, 2], id="over two tokens"),
        pytest.param(["abc"], [b"xa", b"b", b"cd"], [None, None, 4], id="over three tokens, and more behind it"),
        pytest.param(["aab"], [b"a", b"a", b"a", b"b"], [None, None, None, 3], id="overlaps itself"),
        pytest.param(["abab"], [b"ab", b"ab"], [None, 4], id="repeats itself"),
        pytest.param(["ababc"], [b"ab", b"ab", b"abc"], [None, None, 5], id="overlaps itself by two"),
        pytest.param(["c", "bc"], [b"ab", b"c"], [None, 2], id="complete at one byte: the longer"),
        pytest.param(["abcd", "bc"], [b"abcd"], [3], id="complete first in one token"),
        pytest.param(["abcd", "bc"], [b"abc", b"d"], [2], id="complete first in two tokens: the same text"),
        pytest.param(["abcd", "bx"], [b"abx"], [2], id="goes on in another stop string"),
        pytest.param(["☃"], ["☃".encode()[:1], "☃".encode()[1:]], [None, 3], id="inside a character"),
        pytest.param([], [b"a", b""], [None, None], id="none"),
        pytest.param(["a"], [b"", b"a"], [None, 1], id="a token without bytes"),
        pytest.param(["\ud800", "b"], [b"a", b"b"], [None, 1], id="half a surrogate pair"),
        pytest.param(["ab"], [b"a", b"", b"b"], [None, None, 2], id="a token without bytes inside"),
    ],
)
def test_where_a_stop_string_starts(stop: list[str], tokens: list[bytes], trims: list[int | None]) -> None:
    matcher = StopMatcher(stop)
    cuts = [(token, matcher.scan(token)) for token, _ in zip(tokens, trims, strict=False)]
    assert [None if cut is None else len(token) - cut.start for token, cut in cuts] == trims


@pytest.mark.parametrize(
    ("stop", "text", "held"),
    [
        (["abc"], b"xab", 2),
        (["abc"], b"xabx", 0),
        (["aab"], b"aaa", 2),
        (["x"], b"abc", 0),
        ([], b"abc", 0),
        (["\n\n"], b"a\n", 1),
        (["abc", "bd"], b"ab", 2),
        (["abc", "bd"], b"xb", 1),
    ],
)
def test_what_may_begin_a_stop_string(stop: list[str], text: bytes, held: int) -> None:
    matcher = StopMatcher(stop)
    matcher.scan(text)
    assert matcher.held == held


FIRST_LINE = Sampling(first_line=True)
INDENT = Sampling(n_indent=4)
STOP = Verdict("stop")


@pytest.mark.parametrize(
    ("sampling", "tokens", "verdict", "held"),
    [
        pytest.param(FIRST_LINE, [b"a", b"\n"], Verdict("stop", 1), [0, 1], id="first line"),
        pytest.param(
            FIRST_LINE, [b"a", b"(\n    b", b"c"], Verdict("stop", 6), [0, 6], id="what follows is trimmed too"
        ),
        pytest.param(
            FIRST_LINE, [b"\n", b" \n\t", b"a\n"], Verdict("stop", 1), [0, 0, 1], id="blank lines do not count"
        ),
        pytest.param(FIRST_LINE, [b"\n\na", b"b"], None, [0, 0], id="first line not over"),
        pytest.param(FIRST_LINE, [b"a\r", b"\nb"], Verdict("stop", 3), [1, 3], id="first line, over a CRLF"),
        pytest.param(FIRST_LINE, [b"a\r", b"", b"b"], None, [1, 1, 0], id="a carriage return in a line"),
        pytest.param(INDENT, [b"a", b"\n", b"    b"], None, [0, 1, 0], id="indented enough"),
        pytest.param(INDENT, [b"a\n", b"  ", b"  ", b"b"], None, [1, 3, 0, 0], id="indented enough over tokens"),
        pytest.param(INDENT, [b"a\n", b"  ", b"b c"], Verdict("stop", 6), [1, 3, 6], id="indented too little"),
        pytest.param(INDENT, [b"a\n    b\n", b"c"], Verdict("stop", 2), [1, 2], id="only the last line is too little"),
        pytest.param(INDENT, [b"a\nb\nc"], Verdict("stop", 4), [4], id="the first such line counts"),
        pytest.param(INDENT, [b"a\n\n    b"], Verdict("stop", 7), [7], id="an empty line is one"),
        pytest.param(INDENT, [b"a\n    \n", b"    b"], None, [1, 0], id="a blank line with indentation is none"),
        pytest.param(INDENT, [b"a\n\t\t\t\tb"], None, [0], id="a tab counts as one"),
        pytest.param(INDENT, [b"a\r", b"\n ", b"b"], Verdict("stop", 4), [1, 3, 4], id="indentation after a CRLF"),
        pytest.param(INDENT, [b"a", b"b"], None, [0, 0], id="the cursor's line may begin anywhere"),
        pytest.param(INDENT, [b"\n", b"a"], Verdict("stop", 2), [1, 2], id="the line after a first empty one"),
        pytest.param(Sampling(stop=("ab",)), [b"xa", b"b"], Verdict("stop", 2), [1, 2], id="stop string"),
        pytest.param(
            replace(FIRST_LINE, stop=("a\n",)),
            [b"a", b"\n"],
            Verdict("stop", 2),
            [1, 2],
            id="two at a byte: trims most",
        ),
        pytest.param(
            replace(FIRST_LINE, stop=("\n\n",)), [b"a\n\n"], Verdict("stop", 2), [2], id="two in a token: the first one"
        ),
        pytest.param(
            replace(INDENT, stop=("\n  x",)), [b"a\n", b"  "], None, [1, 3], id="held for whichever cuts off more"
        ),
    ],
)
def test_where_the_text_ends(sampling: Sampling, tokens: list[bytes], verdict: Verdict | None, held: list[int]) -> None:
    assert run(sampling, tokens) == (verdict, held)


@pytest.mark.parametrize(
    ("sampling", "tokens", "expected"),
    [
        pytest.param(Sampling(stop_ids=frozenset({1})), [b"a", b"", b"b"], (2, STOP), id="stop id"),
        pytest.param(Sampling(stop_ids=frozenset({1}), ignore_eos=True), [b"a", b""], None, id="ignored stop id"),
        pytest.param(
            Sampling(stop_ids=frozenset({1}), min_tokens=5), [b"a", b""], (2, STOP), id="stop ids count always"
        ),
        pytest.param(Sampling(max_tokens=2), [b"a", b"b", b"c"], (2, Verdict("length")), id="length"),
        pytest.param(
            Sampling(max_tokens=2, stop=("b",)), [b"a", b"b"], (2, Verdict("stop", 1)), id="stop before length"
        ),
        pytest.param(
            Sampling(max_tokens=2, stop=("bc",)), [b"a", b"b"], (2, Verdict("length")), id="half a stop string"
        ),
        pytest.param(
            Sampling(max_tokens=2, stop_ids=frozenset({1})), [b"a", b""], (2, STOP), id="stop id before length"
        ),
        pytest.param(
            Sampling(stop=("\n",), stop_ids=frozenset({1})),
            [b"a", b"\n"],
            (2, Verdict("stop", 1)),
            id="stop id that spells",
        ),
        pytest.param(
            Sampling(stop_ids=frozenset({2}), n_indent=4), [b"a\n", b" ", b""], (3, STOP), id="stop id behind held"
        ),
        pytest.param(
            Sampling(max_tokens=2, n_indent=4), [b"a\n", b" "], (2, Verdict("length")), id="length behind held"
        ),
        pytest.param(Sampling(min_tokens=2, stop=("b",)), [b"a", b"b", b"c"], None, id="stop string too early"),
        pytest.param(
            Sampling(min_tokens=1, stop=("b",)), [b"b", b"b"], (2, Verdict("stop", 1)), id="and a second time"
        ),
        pytest.param(Sampling(min_tokens=1, stop=("ab",)), [b"a", b"b"], (2, Verdict("stop", 2)), id="begun too early"),
        pytest.param(Sampling(min_tokens=1, stop=("b", "bc")), [b"b", b"c"], (2, Verdict("stop", 2)), id="goes on"),
        pytest.param(
            Sampling(min_tokens=1, first_line=True), [b"a\n", b"b", b"\n"], (3, Verdict("stop", 1)), id="line too early"
        ),
        pytest.param(
            Sampling(min_tokens=1, first_line=True), [b"a\n", b"\n"], (2, Verdict("stop", 1)), id="blank after early"
        ),
        pytest.param(
            Sampling(min_tokens=1, n_indent=4),
            [b"a\nb", b"c\n", b"d"],
            (3, Verdict("stop", 2)),
            id="indented too early",
        ),
    ],
)
def test_which_token_is_the_last(sampling: Sampling, tokens: list[bytes], expected: tuple[int, Verdict] | None) -> None:
    verdict, held = run(sampling, tokens)
    assert (len(held), verdict) == (expected or (len(tokens), None))
    if verdict:
        assert held[-1] == verdict.trim_bytes


@pytest.mark.parametrize(
    ("times", "tokens", "last"),
    [
        pytest.param([0, 50, 101], [b"a", b"\n", b"b"], 3, id="over after a line end"),
        pytest.param([0, 50, 100], [b"a", b"\n", b"b"], None, id="not over"),
        pytest.param([0, 200, 300], [b"a", b"b", b"c"], None, id="no line end"),
        pytest.param([0, 200, 300], [b"a", b"b", b"c\n"], 3, id="with the line end"),
        pytest.param([1000, 1050, 1101], [b"\n", b"b", b"c"], 3, id="from the first token"),
    ],
)
def test_a_time_limit_that_waits_for_a_line_end(times: list[float], tokens: list[bytes], last: int | None) -> None:
    ending = Ending(Sampling(max_predict_ms=100), tokens)
    verdicts = [ending.push(token_id, time) for token_id, time in enumerate(times)]
    assert verdicts == [Verdict("length") if n == last else None for n in (1, 2, 3)]


@pytest.mark.parametrize("sampling", [Sampling(stop=("a",)), Sampling(max_predict_ms=0.0), FIRST_LINE, Sampling()])
def test_an_id_beyond_the_table_has_no_bytes(sampling: Sampling) -> None:
    ending = Ending(sampling, [b"a"])
    assert ending.push(1, 0.0) is None
    assert ending.held_bytes == 0
