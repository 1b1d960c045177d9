import itertools
import random

import pytest

from aixcoder_serving.fim.prompt import Prompt
from aixcoder_serving.fim.vocabulary import Vocabulary
from benchmarks.replay import trace
from benchmarks.replay.__main__ import describe, load_options, read_arguments

TINY = "models/tiny"
TEXT = "".join(f"def function_{n}(first, second):\n    return first + {n}\n\n" for n in range(40))


@pytest.fixture(scope="module")
def vocabulary() -> Vocabulary:
    return Vocabulary.load(TINY)


def layout(before: str, after: str) -> Prompt:
    return Prompt((len(before), len(after)), rest="")


def keys(count: int, seed: int = 1, written: str = "new = 1\n") -> list[trace.Typed]:
    endless = trace.session(TEXT, layout, lambda _: written, random.Random(seed))
    return list(itertools.islice(endless, count))


def test_the_same_seed_types_the_same() -> None:
    assert keys(300) == keys(300)
    assert keys(300) != keys(300, seed=2)


def test_a_part_counts_from_its_own_beginning() -> None:
    asks = [trace.Ask(at, 0, (1,), None if at == 2.0 else at + 0.5, True, False) for at in (0.0, 1.5, 2.0, 3.5, 4.0)]
    found = trace.part(asks, 1.5, 2.0)
    assert [(ask.at, ask.cancel_at) for ask in found] == [(0.0, 0.5), (0.5, None)]
    assert trace.part(asks, 0.0, 9.0) == asks


def test_a_part_of_the_keys_comes_from_the_model() -> None:
    typed = keys(2000)
    assert {key.cause for key in typed if key.proposed} >= {"accept", "character"}
    assert 0.05 < sum(key.proposed for key in typed) / len(typed) < 0.6
    assert 0.25 < sum(key.waits for key in typed) / len(typed) < 0.35


def test_what_is_taken_stands_in_the_text() -> None:
    typed = keys(2000)
    accepted = [key for key in typed if key.cause == "accept"]
    assert all(key.before.endswith("new = 1") for key in accepted)
    assert not any(key.proposed for key in keys(500, written="\n"))


def test_keys_of_a_line_only_append_or_delete_what_the_editor_wrote() -> None:
    for before, now in itertools.pairwise(keys(500, written="")):
        if now.cause in ("character", "pair opened", "closer typed over", "line break"):
            assert now.before.startswith(before.before)


def test_requests_have_times_in_order_and_are_cancelled_by_the_next(vocabulary: Vocabulary) -> None:
    asks = list(trace.timed(3, iter(keys(400)), vocabulary, random.Random(1), 20.0))
    assert asks[-1].at < 20
    for ask, following in itertools.pairwise(asks):
        assert ask.at < following.at
        assert ask.cancel_at in (None, following.at)
        low, high = trace.WAIT_SECONDS if ask.cancel_at is None else trace.KEY_RANGE
        assert low <= following.at - ask.at + 1e-9
        assert following.at - ask.at <= high + 1e-9
    assert 0.6 < sum(ask.cancel_at is not None for ask in asks) / len(asks) < 0.8
    assert {ask.editor for ask in asks} == {3}


@pytest.mark.parametrize(
    ("name", "before", "after", "expected"),
    [
        ("a character", ("x = fo", "\nend\n"), ("x = foo", "\nend\n"), True),
        ("a new word", ("x =", "\nend\n"), ("x = ", "\nend\n"), True),
        ("nothing", ("x = fo", "\nend\n"), ("x = fo", "\nend\n"), False),
        ("a deletion", ("x = foo", "\nend\n"), ("x = fo", "\nend\n"), False),
        ("another suffix", ("x = fo", "\nend\n"), ("x = foo", "\nand\n"), False),
        ("elsewhere", ("x = fo", "\nend\n"), ("y = foo", "\nend\n"), False),
    ],
)
def test_which_prompts_only_append(
    vocabulary: Vocabulary, name: str, before: tuple[str, str], after: tuple[str, str], expected: bool
) -> None:
    def ids(texts: tuple[str, str]) -> list[int]:
        v = vocabulary
        return [v.bos, v.pre, v.post, *v.encode(texts[1]).ids, v.middle, *v.encode(texts[0]).ids]

    assert trace.appends(ids(before), ids(after), vocabulary) is expected, name


@pytest.mark.parametrize(
    ("name", "written", "rest", "expected"),
    [
        ("a line", "first + 1\n    more\n", "\n", "first + 1"),
        ("a closer that stands there already", "first, 2)\n", ")\n", "first, 2"),
        ("a line end first", "\nfirst\n", "\n", ""),
        ("no line end", "first", "", "first"),
    ],
)
def test_what_an_editor_shows(name: str, written: str, rest: str, expected: str) -> None:
    assert trace.first_line(written, rest) == expected, name


def test_a_trace_is_told_in_a_line() -> None:
    asks = [
        trace.Ask(0.0, 0, (1,) * 1000, None, False, False),
        trace.Ask(1.0, 1, (1,) * 2000, 1.5, True, True),
    ]
    assert describe(asks) == (
        "2 keys of 2 editors, prompts of 1000 to 2000 tokens, median 2000; "
        "cancelled 50%, only append 50%, typed from the model's output 50%"
    )


def test_line_ends_and_blanks_are_told_apart(vocabulary: Vocabulary, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.replay.__main__.grown", lambda dtype: f"grown-{dtype}")
    options = load_options(vocabulary, "float32", 2)
    texts = vocabulary.token_bytes
    assert options.line_ends
    assert all(b"\n" in texts[n] for n in options.line_ends)
    assert all(not texts[n].strip() for n in options.blanks)
    assert vocabulary.encode("\n").ids[0] in options.line_ends
    assert vocabulary.encode("    ").ids[0] in options.blanks
    assert vocabulary.eos not in options.blanks


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--engines", "transformers-cb"], "none of ours, vllm, llama.cpp"),
        (["--seconds", "1"], "seconds and play 10"),
        (["--play", "2"], "seconds and play 10"),
        (["--repeats", "0"], "at least 1"),
    ],
)
def test_a_wrong_argument_is_told(words: list[str], sentence: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        read_arguments(words, {"DTYPES": "float32"})
    assert sentence in capsys.readouterr().err


def test_engines_that_draft_otherwise_are_measured_where_they_are_asked_for() -> None:
    def names(words: list[str]) -> list[str]:
        return [peer.name for peer in read_arguments(words, {"DTYPES": "float32"}).peers]

    assert names([]) == ["ours", "vllm", "llama.cpp"]
    assert names(["--engines", "ours,ours-no-drafts,vllm-ngram"]) == ["ours", "ours-no-drafts", "vllm-ngram"]
