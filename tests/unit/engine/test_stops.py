import pytest
from hypothesis import given
from hypothesis import strategies as st

from aixcoder_serving.engine.stops import StopMatcher


@pytest.mark.parametrize(
    ("stop", "tokens", "trims"),
    [
        (["\n"], [b"a", b"b\n"], [None, 1]),
        (["\n\n"], [b"a\n", b"b\n", b"\n"], [None, None, 2]),
        (["abc"], [b"xa", b"b", b"cd"], [None, None, 4]),
        (["aab"], [b"a", b"a", b"a", b"b"], [None, None, None, 3]),
        (["abab"], [b"ab", b"ab"], [None, 4]),
        (["c", "bc"], [b"ab", b"c"], [None, 2]),
        (["☃"], ["☃".encode()[:1], "☃".encode()[1:]], [None, 3]),
        ([], [b"a", b""], [None, None]),
        (["a"], [b"", b"a"], [None, 1]),
    ],
)
def test_where_a_stop_string_starts(stop: list[str], tokens: list[bytes], trims: list[int | None]) -> None:
    matcher = StopMatcher(stop)
    assert [matcher.push(token) for token in tokens] == trims


@pytest.mark.parametrize(
    ("stop", "text", "held"),
    [
        (["abc"], b"xab", 2),
        (["abc"], b"xabx", 0),
        (["aab"], b"aaa", 2),
        (["x"], b"abc", 0),
        ([], b"abc", 0),
        (["\n\n"], b"a\n", 1),
    ],
)
def test_what_may_begin_a_stop_string(stop: list[str], text: bytes, held: int) -> None:
    matcher = StopMatcher(stop)
    matcher.push(text)
    assert matcher.held == held


letters = st.text(alphabet="ab☃", min_size=1, max_size=5)


@given(stop=st.lists(letters, max_size=3), tokens=st.lists(st.text(alphabet="ab☃", max_size=3), max_size=12))
def test_borders_of_tokens_do_not_matter(stop: list[str], tokens: list[str]) -> None:
    matcher, text = StopMatcher(stop), b""
    for token in tokens:
        text += token.encode()
        trim = matcher.push(token.encode())
        starts = [text.find(s.encode()) for s in stop if s.encode() in text]
        assert trim == (len(text) - min(starts) if starts else None)
        if trim is not None:
            return
        begun = [n for s in stop for n in range(len(s.encode())) if n and text.endswith(s.encode()[:n])]
        assert matcher.held == max(begun, default=0)
