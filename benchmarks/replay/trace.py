"""The recorded typing: when each editor pressed a key, what it asked then, and whether it waited for the answer.

Six editors type into modules of Python's standard library with `benchmarks.editor`: some lines that are missing, then
others elsewhere. Each key asks for a completion. After seven keys of ten the next one comes within some tenths of a
second and cancels it; after three the typist waits, and then takes what the model proposes one time in three: at once,
or by typing it. What is proposed is the model's greedy first line in float32, on which all engines agree; it is
recorded too, so every engine gets the same keys at the same times, whatever it answers.

The same seed, Python and sources give the same trace. Times are seconds at speed 1.
"""

from __future__ import annotations

import random
import sysconfig
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from aixcoder_serving.fim.overlap import Trim
from aixcoder_serving.fim.prompt import Prompt, build
from aixcoder_serving.fim.vocabulary import Vocabulary
from benchmarks.editor import Cause, Key, typing

SEED, SECONDS = 5, 90.0
MODULES = ("argparse", "configparser", "difflib", "smtplib", "tarfile", "zipfile")
"""One an editor."""
ROOMS = (1000, 1200, 1400, 1600, 1800, 2000)
"""Most tokens of an editor's prompts."""
WAITS, TAKES, AT_ONCE = 0.3, 0.35, 0.5
"""Shares: of keys after which the typist waits, of those proposals that are taken, of those that are taken at once."""
LINES, TYPOS = (2, 5), 0.02
KEY_SECONDS, KEY_SPREAD, KEY_RANGE = 0.15, 0.4, (0.06, 0.4)
"""Between two keys: median, standard deviation of its logarithm, least and most."""
WAIT_SECONDS = (0.6, 1.6)

Propose = Callable[[Prompt], str]
"""What the model writes for a prompt, up to the end of its first line that is not blank."""


@dataclass(frozen=True)
class Typed:
    """A key in one editor. `proposed`: it came from what the model wrote. `waits`: no other key follows at once."""

    cause: Cause | Literal["accept"]
    before: str
    after: str
    proposed: bool
    waits: bool
    prompt: Prompt


@dataclass(frozen=True)
class Ask:
    """One request of the trace; `cancel_at` None where the typist waits for it.

    `appends`: the editor's last prompt with something behind it, so that an engine that keeps it has nearly all.
    """

    at: float
    editor: int
    prompt: tuple[int, ...]
    cancel_at: float | None
    appends: bool
    proposed: bool


def record(vocabulary: Vocabulary, propose: Propose, seed: int = SEED, seconds: float = SECONDS) -> list[Ask]:
    """All editors' requests by time."""
    root = Path(sysconfig.get_paths()["stdlib"])
    asks: list[Ask] = []
    for editor, (module, room) in enumerate(zip(MODULES, ROOMS, strict=True)):
        path = f"{module}.py"
        text = (root / path).read_text(encoding="utf-8")

        def layout(before: str, after: str, path: str = path, room: int = room) -> Prompt:
            return build(vocabulary, prefix=before, suffix=after, path=path, room=room, post_process=True)

        rng = random.Random(f"{seed} {module}")
        asks += timed(editor, session(text, layout, propose, rng), vocabulary, rng, seconds)
    return sorted(asks, key=lambda ask: ask.at)


def part(asks: Sequence[Ask], start: float, seconds: float) -> list[Ask]:
    """What is asked in so many seconds from `start` on; times count from there."""
    return [
        replace(ask, at=ask.at - start, cancel_at=None if ask.cancel_at is None else ask.cancel_at - start)
        for ask in asks
        if start <= ask.at < start + seconds
    ]


def session(text: str, layout: Callable[[str, str], Prompt], propose: Propose, rng: random.Random) -> Iterator[Typed]:
    """Keys in one file, without end: lines go missing somewhere and are typed again, then elsewhere."""
    while True:
        lines = text.splitlines(keepends=True)
        count = rng.randint(*LINES)
        at = rng.randrange(len(lines) // 4, len(lines) - count)
        before, after = "".join(lines[:at]).removesuffix("\n"), "\n" + "".join(lines[at + count :])
        for n, line in enumerate(lines[at : at + count]):
            last = None
            for last in typed_line(before, "\n" + line.removesuffix("\n"), after, layout, propose, rng):
                if n == 0 or last.cause != "jump":
                    yield last
            # What the editor closed by itself is left to stand: the cursor goes behind it.
            if last is not None:
                before = last.before + last.after[: len(last.after) - len(after)]
        text = before + after


def typed_line(
    before: str,
    wanted: str,
    after: str,
    layout: Callable[[str, str], Prompt],
    propose: Propose,
    rng: random.Random,
) -> Iterator[Typed]:
    """Type a line until the model's proposal is taken for the rest of it."""
    for key in typing(before, wanted, after, rng, TYPOS):
        typed = _typed(key, layout, rng)
        yield typed
        if not typed.waits or key.cause == "jump" or rng.random() >= TAKES:
            continue
        proposal = first_line(propose(typed.prompt), typed.prompt.rest)
        if not proposal.strip():
            continue
        if rng.random() < AT_ONCE:
            yield _typed(Key("character", key.before + proposal, key.after), layout, rng, accepted=True)
        else:
            through = typing(key.before, proposal, key.after, rng)
            next(through)
            for key_through in through:
                yield _typed(key_through, layout, rng, proposed=True)
        return


def _typed(
    key: Key,
    layout: Callable[[str, str], Prompt],
    rng: random.Random,
    *,
    proposed: bool = False,
    accepted: bool = False,
) -> Typed:
    return Typed(
        cause="accept" if accepted else key.cause,
        before=key.before,
        after=key.after,
        proposed=proposed or accepted,
        waits=rng.random() < WAITS,
        prompt=layout(key.before, key.after),
    )


def first_line(written: str, rest: str) -> str:
    """What an editor shows of it: up to the line's end, without what stands behind the cursor already."""
    trim = Trim(rest)
    return (trim.push(written) + trim.finish()).partition("\n")[0]


def timed(
    editor: int, keys: Iterator[Typed], vocabulary: Vocabulary, rng: random.Random, seconds: float
) -> Iterator[Ask]:
    """Give keys their times, until the time is over."""
    at = rng.uniform(0, 1)
    previous: tuple[int, ...] = ()
    for key in keys:
        if key.waits:
            following = at + rng.uniform(*WAIT_SECONDS)
        else:
            following = at + min(max(KEY_SECONDS * rng.lognormvariate(0, KEY_SPREAD), KEY_RANGE[0]), KEY_RANGE[1])
        if following > seconds:
            return
        appended = bool(previous) and appends(previous, key.prompt.ids, vocabulary)
        yield Ask(at, editor, key.prompt.ids, None if key.waits else following, appended, key.proposed)
        at, previous = following, key.prompt.ids


def appends(previous: Sequence[int], prompt: Sequence[int], vocabulary: Vocabulary) -> bool:
    """Whether a suffix-first prompt is the previous one with text behind it, though its last tokens may differ."""
    middle = vocabulary.middle
    if middle not in previous or middle not in prompt:
        return False
    was, now = previous.index(middle), prompt.index(middle)
    if previous[:was] != prompt[:now]:
        return False
    table = vocabulary.token_bytes
    text_was = b"".join(table[i] for i in previous[was + 1 :])
    text_now = b"".join(table[i] for i in prompt[now + 1 :])
    return len(text_now) > len(text_was) and text_now.startswith(text_was)
