"""Requests of a day, from the traces of `files.py`.

Azure's is played doubled: each request once more, up to two seconds later, with the tokens of one of its forty
neighbours. So bursts stay bursts.

ServeGen's rates are played at a twentieth, which makes a day of 4 million requests of the m-small family; tokens are
drawn from Azure's code trace, which lies beside this file. The day is the seed: a day is always the same requests.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.scaling.files import DAY_S, Family, Window

WINDOW_S = 600.0
RATE = 0.05
CANCEL_AFTER_S = (0.1, 0.4)
_COPY_WITHIN_S = 2.0
_NEIGHBOURS = 20
_LEAST_SHAPE = 0.2  # of a Weibull distribution: below, one gap in thousands holds all the time
_LEAST_VARIATION = 0.05
_TOKENS = Path(__file__).with_name("azure2023_code_tokens.csv")

Floats = NDArray[np.float64]
Integers = NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class Trace:
    """Requests in order. `at`: seconds since the beginning; `leaves`: when the client will leave, infinite mostly."""

    name: str
    day: int | None
    at: Floats
    prompt: Integers
    output: Integers
    leaves: Floats

    @property
    def end(self) -> float:
        """When the last request arrives, in seconds."""
        return float(self.at[-1]) if len(self.at) else 0.0

    def cancelled(self, share: float) -> Trace:
        """The same with clients that leave, as typing makes them: a `share`, each 100 to 400 ms after its request."""
        chance = np.random.default_rng([self.day or 0, 1])
        leave = chance.random(len(self.at)) < share
        after = chance.uniform(*CANCEL_AFTER_S, len(self.at))
        return replace(self, leaves=np.where(leave, self.at + after, np.inf))


def read(family: Family, day: int | None) -> Trace:
    """One day of a trace; of Azure's all.

    Raises:
        UnusableTrace: a line of a file is none of its format.

    """
    if not family.windowed:
        rows = np.array(family.requests(), np.float64).reshape(-1, 3)
        return _doubled(family.name, rows[:, 0] - rows[:1, 0], rows[:, 1].astype(np.int32), rows[:, 2].astype(np.int32))
    first = (day or 0) * DAY_S
    arrivals = [
        _client(family.windows(number), first, np.random.default_rng([day or 0, 0, number]))
        for number in range(len(family.clients))
    ]
    at = np.sort(np.concatenate(arrivals)) - first
    prompt, output = _tokens()
    chosen = np.random.default_rng([day or 0, 2]).integers(0, len(prompt), len(at))
    return Trace(family.name, day, at, prompt[chosen], output[chosen], np.full(len(at), np.inf))


@cache
def _tokens() -> tuple[Integers, Integers]:
    """Of prompts and completions of Azure's code trace, in the order of time."""
    prompt, output = np.loadtxt(_TOKENS, np.int32, delimiter=",").T
    return prompt, output


def _doubled(name: str, at: Floats, prompt: Integers, output: Integers) -> Trace:
    chance = np.random.default_rng(0)
    own = np.arange(len(at))
    near = np.clip(own + chance.integers(-_NEIGHBOURS, _NEIGHBOURS + 1, len(at)), 0, len(at) - 1)
    both = np.concatenate([at, at + chance.uniform(0, _COPY_WITHIN_S, len(at))])
    tokens = np.concatenate([own, near])
    order = np.argsort(both, kind="stable")
    tokens = tokens[order]
    return Trace(name, None, both[order], prompt[tokens], output[tokens], np.full(len(both), np.inf))


def _client(windows: Iterable[Window], first: float, chance: np.random.Generator) -> Floats:
    """One client's arrivals of the day that begins at `first`, in seconds.

    The rate of a window is what was counted in it. Where gaps vary a hundredfold, one without a long gap would hold
    many times as much: it gets half as much again, and 50, at most.
    """
    found: list[Floats] = [np.empty(0)]
    for start, full_rate, variation, distribution, shape in windows:
        rate = full_rate * RATE
        if rate <= 0 or not first <= start < first + DAY_S:
            continue
        most = int(1.5 * rate * WINDOW_S) + 50
        if distribution == "Weibull":
            k = max(shape, _LEAST_SHAPE)
            gaps = chance.weibull(k, most) / (rate * math.gamma(1 + 1 / k))
        else:
            squared = max(variation, _LEAST_VARIATION) ** 2
            gaps = chance.gamma(1 / squared, squared / rate, most)
        at = np.cumsum(gaps) - gaps[0] * chance.random()
        found.append(start + at[at < WINDOW_S])
    return np.concatenate(found)


def work_s(trace: Trace, prefill_tokens_per_s: float, token_s: float, token_s_per_request: float) -> Floats:
    """Seconds of a replica that each request takes where it waits for nothing and runs alone."""
    prefill = trace.prompt / prefill_tokens_per_s
    stays = trace.leaves - trace.at
    tokens = np.clip(np.floor((stays - prefill) / (token_s + token_s_per_request)), 0, trace.output)
    return np.minimum(prefill, stays) + np.where(np.isinf(stays), trace.output, tokens) * token_s_per_request


def per_second(at: Floats, amounts: Floats | None, seconds: int) -> Floats:
    """Sums by second of arrival; counts where there are no amounts."""
    return np.bincount(at.astype(np.int64), amounts, seconds)[:seconds].astype(np.float64)
