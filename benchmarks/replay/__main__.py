"""How fast recorded typing can be replayed until completions come too late: the headline of this engine.

    python -m benchmarks.replay [--engines ours,vllm,llama.cpp] [--dtypes float32] [--repeats 7] [--play 20]

Six editors type (`benchmarks.replay.trace`): prompts of 1,000 to 2,000 tokens, suffix first, built by our own `fim`;
seven requests of ten are cancelled by the next key; part of the text is what the model itself proposed. All engines get
the same token ids at the same times, with their caches on. The model is the tiny one grown to the size of the random
one (`benchmarks.checkpoint`): random weights never end a line. At these lengths its lines make no sense; they end, and
are the same for every engine.

A request is done with its first line that is not blank, at the end of text, or after 48 tokens. Our engine ends it
there by itself; for the others the client closes it, as a gateway in front of them would have to. Ours alone takes a
draft: what the editor was shown last, as far as the typing agrees with it. Measured where --engines names them:
`ours-no-drafts`, without those and without drafts from the prompt, and `vllm-ngram`, vLLM with drafts from the prompt.

JSON lines on standard output, progress on standard error. Medians over the repeats, lower quartiles as NAME_q1:
- `goodput`: the highest speed, as a multiple of the recorded one, at which 95 % of the requests that nobody cancelled
  have their first line within 500 ms of their key and 99 % have it at all; found by trying speeds to within 10 %, and 0
  where an eighth of the recorded speed is too much;
- at a quarter of the recorded speed, the same load for all: `first_line_p95_ms` of those requests; over keys that only
  append to a prompt that was computed before, `warm_ttft_p95_ms`, and `recomputed_per_key_p95`, tokens of the prompt
  that were not taken from the cache; `delivery_ms`, the median time between two deliveries of tokens to a request: it
  is one step;
- an engine that can not be installed, does not load or fails has `error` instead, and the others go on.
A replay takes `--play` seconds at any speed: as much of the trace as fits, but ten seconds of it, in which some forty
requests are waited for. An engine's turn begins with an empty cache, in each repeat at another place of the trace, and
each of its replays goes on where the last one ended, as typing does; before each the editors' first prompts are
computed, which the cache has mostly. So a turn computes cold prompts once, not in each replay.

A first search in wide strides, which does not count, finds where to begin. Then a turn begins at the speed that the
last one ended with and goes up or down by a tenth, until one that is good lies below one that is not: two replays,
mostly. A replay that can not be good any more is over. Engines take turns; those that wait are stopped by a signal.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path

from aixcoder_serving.fim import prompt
from aixcoder_serving.fim.vocabulary import Vocabulary
from benchmarks import editor
from benchmarks.checkpoint import TINY, Dtype, cache, grown
from benchmarks.contest import (
    Contest,
    Tell,
    arguments_of,
    cache_bytes,
    end_on_sigterm,
    label,
    progress,
    rotated,
    tell,
)
from benchmarks.peer import Peer, Running
from benchmarks.peers.lines import Load
from benchmarks.prompts import tiny_model
from benchmarks.replay import trace
from benchmarks.replay.measure import MAX_TOKENS, Misses, Verdict, latencies, opening, requests, verdict
from benchmarks.replay.search import LOW, highest
from benchmarks.summary import summarise

ENGINES = (
    Peer("ours", None, "benchmarks/ours.py", pausable=False),
    Peer("vllm", "vllm", "benchmarks/peers/vllm/driver.py"),
    Peer("llama.cpp", "llamacpp", "benchmarks/peers/llamacpp/server.py"),
    Peer("ours-no-drafts", None, "benchmarks/ours.py", ("no-drafts",), pausable=False),
    Peer("vllm-ngram", "vllm", "benchmarks/peers/vllm/driver.py", ("ngram",)),
)
USUAL = "ours,vllm,llama.cpp"
SEQUENCES = 16
"""Requests at once: an editor can have one that it waits for beside the next one."""
GRACE_SECONDS = 5.0
"""After the last key of a replay: what is not done then is not served."""
TOLERANCE = 1.1
"""Between the speed that is told and one that fails."""
FIRST_GUESS = 0.5
FIRST_STRIDE, NEXT_STRIDE = 1.5, TOLERANCE
"""Of the first search, and of one that begins where the last one ended."""
COMMON_SPEED = 0.25
"""At which all engines' latencies are measured."""
OPENING_SECONDS = 120.0
LEAST_SECONDS = 10.0
"""Of the trace: fewer requests that are waited for say nothing of one in twenty."""


def recorded(vocabulary: Vocabulary, seconds: float) -> list[trace.Ask]:
    """The trace, from the cache where it was recorded before by the same Python, sources and model."""
    sources = [Path(trace.__file__), Path(editor.__file__), *Path(prompt.__file__).parent.glob("*.py")]
    digest = hashlib.sha256(f"{sys.version} {seconds}".encode())
    for source in (*sorted(sources), TINY / "model.safetensors", TINY / "tokenizer.json"):
        digest.update(source.read_bytes())
    file = cache() / "traces" / f"{digest.hexdigest()[:16]}.json"
    if file.is_file():
        return [trace.Ask(**{**row, "prompt": tuple(row["prompt"])}) for row in json.loads(file.read_text())]
    progress("recording the typing: the tiny model proposes what editors take")
    write = tiny_model(vocabulary)
    asks = trace.record(vocabulary, lambda built: write(built.ids), seconds=seconds)
    file.parent.mkdir(parents=True, exist_ok=True)
    new = file.with_suffix(f".{os.getpid()}")
    new.write_text(json.dumps([asdict(ask) for ask in asks]))
    new.rename(file)
    return asks


def describe(asks: Sequence[trace.Ask]) -> str:
    """A trace in one line."""
    sizes = sorted(len(ask.prompt) for ask in asks)
    count = len(asks)
    shares = {
        "cancelled": sum(ask.cancel_at is not None for ask in asks) / count,
        "only append": sum(ask.appends for ask in asks) / count,
        "typed from the model's output": sum(ask.proposed for ask in asks) / count,
    }
    return (
        f"{count} keys of {len({ask.editor for ask in asks})} editors, prompts of {sizes[0]} to {sizes[-1]} tokens, "
        f"median {sizes[count // 2]}; " + ", ".join(f"{name} {share:.0%}" for name, share in shares.items())
    )


def load_options(vocabulary: Vocabulary, dtype: Dtype, threads: int) -> Load:
    """What an engine is asked to load."""
    length = max(trace.ROOMS) + 2 * MAX_TOKENS
    texts = list(enumerate(vocabulary.token_bytes))
    return Load(
        model=str(grown(dtype)),
        dtype=dtype,
        tensor_parallel=1,
        threads=threads,
        sequences=SEQUENCES,
        max_length=length,
        cache_tokens=SEQUENCES * length,
        cache_bytes=cache_bytes(dtype),
        prefix_caching=True,
        drafting=True,
        eos=vocabulary.eos,
        line_ends=tuple(n for n, text in texts if b"\n" in text),
        blanks=tuple(n for n, text in texts if text and not text.strip()),
    )


class Player:
    """One engine's turn: part after part of one trace, at the speeds that are asked for."""

    def __init__(self, asks: Sequence[trace.Ask], running: Running, name: str, seconds: float, place: float) -> None:
        """Plays take `seconds`; the first one begins at `place`, a share of the trace. Empties the engine's cache."""
        self._asks = asks
        self._whole = max(ask.at for ask in asks)
        self._running = running
        self._name = name
        self._seconds = seconds
        self._at = self._whole * place
        running.reset()

    def play(self, speed: float, *, to_the_end: bool) -> tuple[Verdict, dict[str, float]]:
        """Replay the next part. Unless `to_the_end`, it is over once it can not be good any more."""
        asks = self._next(max(self._seconds * speed, LEAST_SECONDS))
        asked = requests(asks, speed)
        self._running.run(opening(asks), OPENING_SECONDS)
        limit = max(request.at for request in asked) + GRACE_SECONDS
        ended = self._running.run(asked, limit, None if to_the_end else Misses(asked))
        results = {result.id: result for result in ended}
        judged = verdict(asked, results)
        found = latencies(asks, asked, results) if to_the_end else {}
        progress(f"{self._name} at speed {speed:.2f}: {'good' if judged.good else 'too slow'} {judged} {found or ''}")
        return judged, found

    def _next(self, seconds: float) -> list[trace.Ask]:
        """What follows the last part. Behind the trace's end it begins anew, with an empty cache."""
        seconds = min(seconds, self._whole)
        if self._at + seconds > self._whole:
            self._at = 0.0
            self._running.reset()
        self._at += seconds
        return trace.part(self._asks, self._at - seconds, seconds)

    def goodput(self, guess: float, stride: float) -> float:
        """The highest speed that is good."""

        def passes(speed: float) -> bool:
            return self.play(speed, to_the_end=False)[0].good

        return highest(passes, guess, stride=stride, tolerance=TOLERANCE)

    def measure(self, guess: float) -> dict[str, float]:
        """Latencies at the common speed, and goodput, which was `guess` before."""
        _, found = self.play(COMMON_SPEED, to_the_end=True)
        return {"goodput": self.goodput(guess, NEXT_STRIDE), **found}


def compare(arguments: argparse.Namespace, dtype: Dtype, tell: Tell) -> None:
    """All engines on one data type."""
    vocabulary = Vocabulary.load(TINY)
    asks = recorded(vocabulary, arguments.seconds)
    progress(describe(asks))
    contest = Contest("replay", dtype, tell)
    guesses: dict[Peer, float] = {}
    found: dict[Peer, list[dict[str, float]]] = {}

    def player(peer: Peer, place: float, running: Running) -> Player:
        return Player(asks, running, label(peer), arguments.play, place)

    def search(peer: Peer, running: Running) -> float:
        return player(peer, 0.0, running).goodput(FIRST_GUESS, FIRST_STRIDE)

    def measure(peer: Peer, place: float, running: Running) -> dict[str, float]:
        return player(peer, place, running).measure(guesses[peer])

    try:
        for peer in arguments.peers:
            contest.load(peer, load_options(vocabulary, dtype, arguments.threads))
        for peer in arguments.peers:
            first = contest.turn(peer, partial(search, peer))
            guesses[peer] = first or LOW
        for repeat in range(arguments.repeats):
            for peer in rotated(arguments.peers, repeat):
                place = repeat / arguments.repeats
                measured = contest.turn(peer, partial(measure, peer, place))
                if measured is not None:
                    guesses[peer] = measured["goodput"] or LOW
                    found.setdefault(peer, []).append(measured)
                    progress(f"{repeat + 1}/{arguments.repeats} {label(peer)}: {json.dumps(measured)}")
        for peer, measures in found.items():
            if len(measures) == arguments.repeats:
                tell({**contest.row(peer), **summarise(measures)})
    finally:
        contest.end()


def read_arguments(words: Sequence[str], environment: Mapping[str, str]) -> argparse.Namespace:
    """What to measure; `peers` are the engines. Exits on a wrong argument."""
    names = [peer.name for peer in ENGINES]
    parser = arguments_of("benchmarks.replay", __doc__, names, environment)
    parser.set_defaults(engines=USUAL)
    parser.add_argument("--seconds", type=float, default=trace.SECONDS, help="of typing, at speed 1")
    parser.add_argument("--play", type=float, default=20.0, help="seconds that one replay takes")
    arguments = parser.parse_args(words)
    engines = parser.chosen("--engines", arguments.engines, names)
    arguments.dtypes = parser.dtypes(arguments.dtypes)
    if min(arguments.repeats, arguments.threads) < 1 or min(arguments.seconds, arguments.play) < LEAST_SECONDS:
        parser.error(f"repeats and threads are at least 1, seconds and play {LEAST_SECONDS:.0f}")
    arguments.peers = [peer for peer in ENGINES if peer.name in engines]
    return arguments


def main() -> int:
    """Measure and print."""
    arguments = read_arguments(sys.argv[1:], os.environ)
    end_on_sigterm()
    for dtype in arguments.dtypes:
        compare(arguments, dtype, tell)
    return 0


if __name__ == "__main__":
    sys.exit(main())
