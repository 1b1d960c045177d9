"""The two formats in which public traces come, told apart by what a file holds.

Azure's CSV has a heading, `TIMESTAMP,ContextTokens,GeneratedTokens`, and a line a request.

A ServeGen family is one file a client, a line a window of 600 s: its start in seconds, requests per second, and the
gaps between them as a coefficient of variation, a distribution and its parameters.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

DAY_S = 86_400
_HEADING = ("TIMESTAMP", "ContextTokens", "GeneratedTokens")


_MOST_TOKENS = 10_000_000
"""Of one prompt or completion: no model takes as many."""


class UnusableTrace(ValueError):
    """A file is none of the two, or a line of it is not; the sentence names it."""


class Request(NamedTuple):
    """A line of Azure's. `at`: seconds since 1970; then tokens."""

    at: float
    prompt: int
    output: int


class Window(NamedTuple):
    """A line of ServeGen's: 600 s from `start` on, in seconds since the trace's beginning."""

    start: float
    rate: float
    """Requests per second."""
    variation: float
    distribution: str
    shape: float
    """The distribution's first parameter; 0 where there is none."""


@dataclass(frozen=True, slots=True)
class Family:
    """A trace: Azure's one file, or the clients of a ServeGen family, in the order of their files' names.

    Files of one name are of one client: days may lie in folders of their own.
    """

    name: str
    windowed: bool
    """Whether it is ServeGen's."""
    clients: tuple[tuple[Path, ...], ...]

    def windows(self, client: int) -> Iterator[Window]:
        """Those of a client, each start once."""
        seen: set[float] = set()
        for file in self.clients[client]:
            for window in _windows(file):
                if window.start not in seen:
                    seen.add(window.start)
                    yield window

    def requests(self) -> list[Request]:
        """Those of Azure's file, in the order of time."""
        return sorted(_requests(self.clients[0][0]), key=lambda request: request.at)

    def days(self) -> list[int | None]:
        """The days that it holds; None where it has no days."""
        if not self.windowed:
            return [None]
        starts = (window.start for client in range(len(self.clients)) for window in self.windows(client))
        return [*sorted({int(start // DAY_S) for start in starts})]


def families(files: Iterable[str]) -> list[Family]:
    """Files grouped to traces, in the order in which they were first named. A file that is named twice is one.

    Raises:
        UnusableTrace: one can not be read, or is in neither format.

    """
    found: dict[tuple[str, bool], dict[str, list[Path]]] = {}
    for file in {path.resolve(): path for path in map(Path, files)}.values():
        windowed = _is_windowed(file)
        # Two of Azure's are two traces, whatever they are called.
        trace = _family_name(file) if windowed else str(file)
        found.setdefault((trace, windowed), {}).setdefault(file.name, []).append(file)
    return [
        Family(
            trace if windowed else Path(trace).stem,
            windowed,
            tuple(tuple(sorted(clients[each])) for each in sorted(clients)),
        )
        for (trace, windowed), clients in found.items()
    ]


def _family_name(file: Path) -> str:
    """`m-small` of `m-small.chunk-3-trace.csv` and of `m-small/chunk-3-trace.csv`, as ServeGen itself has it."""
    before, chunk, _ = file.name.partition("chunk-")
    return (before.rstrip(".-_") or file.resolve().parent.name) if chunk else file.stem


def _is_windowed(file: Path) -> bool:
    for number, row in _rows(file):
        if set(_HEADING) <= set(row):
            return False
        if _window(row) is not None:
            return True
        if number > 1:
            break
    raise UnusableTrace(
        f"{file} is no trace: neither Azure's CSV, which begins with {','.join(_HEADING)},"
        " nor a client of ServeGen, whose lines are start, rate, variation, distribution and its parameters"
    )


def _rows(file: Path) -> Iterator[tuple[int, list[str]]]:
    """Lines with their numbers, empty ones left out."""
    try:
        with file.open(newline="", encoding="utf-8-sig") as lines:
            for number, row in enumerate(csv.reader(lines), 1):
                if any(row):
                    yield number, row
    except OSError as error:
        raise UnusableTrace(f"{file} can not be read: {error.strerror}") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise UnusableTrace(f"{file} is no trace: it is not text ({error})") from error


def _windows(file: Path) -> Iterator[Window]:
    for number, row in _rows(file):
        window = _window(row)
        if window is not None:
            yield window
        elif number > 1:
            raise UnusableTrace(f"{file}, line {number}: no window of ServeGen: {','.join(row)[:80]}")


def _window(row: list[str]) -> Window | None:
    """None where it is none."""
    try:
        start, rate, variation, shape = (float(row[column] or 0) for column in (0, 1, 2, 4))
    except (ValueError, IndexError):
        return None
    usable = all(math.isfinite(value) and value >= 0 for value in (start, rate, variation, shape))
    return Window(start, rate, variation, row[3], shape) if usable and row[0] else None


def _requests(file: Path) -> Iterator[Request]:
    rows = _rows(file)
    _, heading = next(rows)
    time, prompt, output = (heading.index(name) for name in _HEADING)
    for number, row in rows:
        try:
            at = datetime.fromisoformat(row[time])
            tokens = int(row[prompt]), int(row[output])
            if not all(0 <= count <= _MOST_TOKENS for count in tokens):
                raise ValueError(tokens)
            yield Request(at.replace(tzinfo=at.tzinfo or UTC).timestamp(), *tokens)
        except (ValueError, IndexError) as error:
            raise UnusableTrace(f"{file}, line {number}: no request of Azure's: {','.join(row)[:80]}") from error
