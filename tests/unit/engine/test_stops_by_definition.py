"""Endings against their definition, tried on each beginning of the text."""

import itertools
from collections.abc import Sequence
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from aixcoder_serving.engine.interface import Sampling
from aixcoder_serving.engine.stops import Ending, Verdict


def run(sampling: Sampling, tokens: Sequence[bytes]) -> tuple[Verdict | None, list[int]]:
    """Push tokens until one is the last; the verdict, and how much was held after each token."""
    ending, held = Ending(sampling, tokens), []
    for token_id in range(len(tokens)):
        verdict = ending.push(token_id, 0.0)
        held.append(ending.held_bytes)
        if verdict:
            return verdict, held
    return None, held


pieces = st.lists(st.text(alphabet="ab☃ \n\r\t", max_size=4).map(str.encode), max_size=12)
samplings = st.builds(
    Sampling,
    max_tokens=st.integers(1, 12),
    min_tokens=st.integers(0, 3),
    stop=st.lists(st.text(alphabet="ab☃ \n", min_size=1, max_size=5), max_size=3).map(tuple),
    first_line=st.booleans(),
    n_indent=st.integers(0, 3),
    stop_ids=st.frozensets(st.integers(0, 11), max_size=1),
)
LINE = Sampling(first_line=True)
texts = samplings.map(lambda sampling: replace(sampling, max_tokens=99, min_tokens=0, stop_ids=frozenset()))


def cuts(sampling: Sampling, text: bytes) -> list[int]:
    """Where the answer ends by what the last byte of `text` decides, each way of deciding read from its definition."""
    found = [len(text) - len(stop.encode()) for stop in sampling.stop if text.endswith(stop.encode())]
    *before, last = text[:-1].split(b"\n")  # `last`: the line in which the last byte stands, up to it
    line_end = len(text) - 1 - len(last) - 1 if before else 0
    if sampling.first_line and text.endswith(b"\n") and text.strip():
        found.append(len(text) - 1 - last.endswith(b"\r"))
    if before and not last.strip(b" \t") and len(last) < sampling.n_indent and text[-1:] not in (b" ", b"\t"):
        found.append(line_end - text[:line_end].endswith(b"\r"))
    return found


def oracle(sampling: Sampling, tokens: Sequence[bytes]) -> tuple[int, Verdict] | None:
    """Number of tokens and verdict, by trying each beginning of the text."""
    size = 0
    for n, token in enumerate(tokens, 1):
        text = b"".join(tokens[:n])
        if n > sampling.min_tokens:
            for end in range(size + 1, len(text) + 1):
                if found := cuts(sampling, text[:end]):
                    return n, Verdict("stop", len(text) - min(found))
        if n - 1 in sampling.stop_ids:
            return n, Verdict("stop")
        if n == sampling.max_tokens:
            return n, Verdict("length")
        size += len(token)
    return None


@given(samplings, pieces)
def test_token_by_token_as_by_definition(sampling: Sampling, tokens: list[bytes]) -> None:
    verdict, held = run(sampling, tokens)
    assert (len(held), verdict) == (oracle(sampling, tokens) or (len(tokens), None))


@given(samplings, pieces)
def test_what_was_shown_is_never_taken_back(sampling: Sampling, tokens: list[bytes]) -> None:
    verdict, held = run(sampling, tokens)
    sizes = list(itertools.accumulate(map(len, tokens)))
    shown = [size - n for size, n in zip(sizes, held, strict=False)]
    assert shown == sorted(shown)
    assert all(n >= 0 for n in shown)
    if verdict:
        assert shown[-1] == sizes[len(shown) - 1] - verdict.trim_bytes


# One rule and one stop string at a time: another one may end the text before the held bytes can be trimmed.
@given(
    texts.flatmap(lambda s: st.sampled_from([Sampling(stop=s.stop[:1]), Sampling(n_indent=s.n_indent), LINE])), pieces
)
def test_no_more_is_held_than_can_be_trimmed(sampling: Sampling, tokens: list[bytes]) -> None:
    verdict, held = run(sampling, tokens)
    if verdict or not tokens:
        return
    trimmed = [0]
    for new in [b"a", b"\n", b"\na", *(s.encode()[n:] for s in sampling.stop for n in range(len(s.encode())))]:
        verdict, _ = run(sampling, [*tokens, new])
        trimmed.append(verdict.trim_bytes - len(new) if verdict else 0)
    assert held[-1] == max(trimmed)


@given(texts, st.text(alphabet="ab☃ \n\r", max_size=12).map(str.encode), st.data())
def test_borders_of_tokens_do_not_matter(sampling: Sampling, text: bytes, data: st.DataObject) -> None:
    borders = sorted(data.draw(st.sets(st.integers(0, len(text)), max_size=6)) | {0, len(text)})
    tokens = [text[start:end] for start, end in itertools.pairwise(borders)]
    answers = []
    for split in (tokens, [text], [bytes([byte]) for byte in text]):
        verdict, held = run(sampling, split)
        read = b"".join(split[: len(held)])
        answers.append(read[: len(read) - verdict.trim_bytes] if verdict else read)
    assert answers[0] == answers[1] == answers[2]
