"""What a key costs, by how the prompt is laid out, and what that does to the completions.

    python -m benchmarks.prompts [--keys 1500] [--cases 20] [--room 1500]

Somebody types parts of modules of Python's standard library, held out from the tiny model's training, in an editor that
closes brackets and quotes (`benchmarks.editor`). Prompts are laid out in three ways:

- spm-cursor: suffix first, from the cursor on;
- spm-next-line: suffix first, from the next line on where the rest of the cursor's line is left to the model;
- psm-line: prefix first, up to the cursor's line; that line itself stands behind the suffix.

JSON lines on standard output, progress on standard error:
- `suffix_head`: the share of keys, by cause, after which the suffix of the prompt is another than before;
- `recomputed`: tokens of a prompt after the longest common prefix with the one before, mean and 95th percentile;
- `completion`: first lines that the tiny model writes (fp32, greedy) for one line of a whole file while it is typed:
  exact match, and the share with which the file parses. It has learnt a few modules by heart, so `trained` compares
  the layouts, and `held-out` tells how little it knows else. It was trained on suffixes that begin at a line.
"""

from __future__ import annotations

import argparse
import ast
import itertools
import json
import math
import random
import sys
import sysconfig
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aixcoder_serving.fim.overlap import Trim, rest_of_line
from aixcoder_serving.fim.prompt import Prompt, build
from aixcoder_serving.fim.vocabulary import Vocabulary
from benchmarks.editor import Key, typing

MODEL = Path(__file__).resolve().parents[1] / "models" / "tiny"
HELD_OUT = ("calendar", "cmd", "configparser", "csv", "difflib", "pprint", "smtplib", "tarfile", "zipfile")
SPAN_LINES = 5  # typed in one place
TYPOS = 0.02
LINE_STRIDE = 64  # tokens
COMPLETION_ROOM, COMPLETION_TOKENS = 300, 40  # the tiny model was trained on prompts of up to 320 tokens

Json = dict[str, Any]
Layout = Callable[[Vocabulary, str, str, str, int], Prompt]


def spm_cursor(vocabulary: Vocabulary, before: str, after: str, path: str, room: int) -> Prompt:
    """Suffix first, from the cursor on."""
    return build(vocabulary, prefix=before, suffix=after, path=path, room=room)


def spm_next_line(vocabulary: Vocabulary, before: str, after: str, path: str, room: int) -> Prompt:
    """Suffix first, from the next line on where it can."""
    return build(vocabulary, prefix=before, suffix=after, path=path, room=room, post_process=True)


def psm_line(vocabulary: Vocabulary, before: str, after: str, path: str, room: int) -> Prompt:
    """Whole lines first, then the suffix, then the cursor's line: only a line break changes what stands before it."""
    rest = rest_of_line(after)
    start = before.rfind("\n") + 1
    line = vocabulary.encode(before[start:]).ids
    # Room for the line by whole strides, or each token of it would move the cuts before it.
    room -= -(-len(line) // LINE_STRIDE) * LINE_STRIDE
    ids = build(vocabulary, prefix=before[:start], suffix=after[len(rest) :], path=path, order="psm", room=room).ids
    return Prompt((*ids, *line), rest=rest)


LAYOUTS: dict[str, Layout] = {"spm-cursor": spm_cursor, "spm-next-line": spm_next_line, "psm-line": psm_line}


def session(path: str, text: str, rng: random.Random, places: int) -> Iterator[tuple[str, Key]]:
    """Keys in one file: `places` times some lines that were missing are typed, and the cursor jumps between."""
    lines = text.splitlines(keepends=True)
    for _ in range(places):
        at = rng.randrange(len(lines) // 4, len(lines) - SPAN_LINES)
        before, wanted = "".join(lines[:at]), "".join(lines[at : at + SPAN_LINES])
        after = "".join(lines[at + SPAN_LINES :])
        # The line before has its end already: it is typed first, as Enter does.
        for key in typing(before.removesuffix("\n"), "\n" + wanted.removesuffix("\n"), "\n" + after, rng, TYPOS):
            yield path, key


def common(one: Sequence[int], other: Sequence[int]) -> int:
    """Length of the longest common prefix."""
    for n, (x, y) in enumerate(zip(one, other, strict=False)):
        if x != y:
            return n
    return min(len(one), len(other))


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that is not below `share` of all."""
    return sorted(values)[max(math.ceil(share * len(values)) - 1, 0)]


def suffix_rows(keys: Sequence[tuple[str, Key]]) -> Iterator[Json]:
    """How often a key changes the text that the suffix of the prompt is cut from, by cause."""
    for name, start in {"cursor": lambda _: "", "next line": rest_of_line}.items():
        total: Counter[str] = Counter()
        changed: Counter[str] = Counter()
        last = None
        for path, key in keys:
            head = (path, key.after[len(start(key.after)) :])
            if last is not None:
                total[key.cause] += 1
                changed[key.cause] += head != last
            last = head
        everything = sum(total.values())
        row = {"bench": "prompts", "measure": "suffix_head", "suffix": name}
        for cause in sorted(total):
            yield row | {
                "cause": cause,
                "keys": total[cause],
                "changed": round(changed[cause] / total[cause], 3),
                "share_of_all_keys": round(changed[cause] / everything, 4),
            }
        yield row | {"cause": "all", "keys": everything, "changed": round(sum(changed.values()) / everything, 4)}


def recomputed_rows(vocabulary: Vocabulary, keys: Sequence[tuple[str, Key]], room: int) -> Iterator[Json]:
    """Tokens that a key makes an engine compute, where it keeps the prompt before."""
    for name, layout in LAYOUTS.items():
        costs: list[int] = []
        typed: list[int] = []
        sizes: list[int] = []
        last: tuple[int, ...] = ()
        for path, key in keys:
            ids = layout(vocabulary, key.before, key.after, path, room).ids
            if last:
                # The last token is always computed: it tells the next one.
                costs.append(max(len(ids) - common(last, ids), 1))
                sizes.append(len(ids))
                if key.cause != "jump":
                    typed.append(costs[-1])
            last = ids
        for which, values in {"all": costs, "no jumps": typed}.items():
            yield {
                "bench": "prompts",
                "measure": "recomputed",
                "prompt": name,
                "keys": which,
                "count": len(values),
                "prompt_tokens_mean": round(sum(sizes) / len(sizes)),
                "mean": round(sum(values) / len(values), 1),
                "p95": percentile(values, 0.95),
                "p99": percentile(values, 0.99),
                "over_16": round(sum(value > 16 for value in values) / len(values), 4),
            }


@dataclass(frozen=True)
class Case:
    """One line of a file that parses, partly typed; `missing` is what belongs at the cursor."""

    path: str
    before: str
    after: str
    missing: str


def cases(files: Sequence[tuple[str, str]], rng: random.Random, count: int, *, closers: bool) -> Iterator[Case]:
    """Lines in the making with something left to type, with or without closers behind the cursor."""
    found = 0
    while found < count:
        path, text = rng.choices(files, [len(text) for _, text in files])[0]
        lines = text.splitlines(keepends=True)
        at = rng.randrange(4, len(lines) - 4)
        line, after = lines[at].rstrip("\n"), "\n" + "".join(lines[at + 1 :])
        indentation = line[: len(line) - len(line.lstrip())]
        before = "".join(lines[:at]) + indentation
        key = rng.choice(list(typing(before, line[len(indentation) :], after, rng)))
        written = key.after[: len(key.after) - len(after)]
        whole = before + line[len(indentation) :]
        missing = whole[len(key.before) :].removesuffix(written)
        right = key.before + missing + written == whole
        if right and missing.strip() and bool(written) == closers and rest_of_line(key.after):
            found += 1
            yield Case(path, key.before, key.after, missing)


def parses(text: str) -> bool:
    """Whether it is Python."""
    try:
        ast.parse(text)
    except (SyntaxError, ValueError):
        return False
    return True


Write = Callable[[Sequence[int]], str]


def completion_row(vocabulary: Vocabulary, write: Write, layout: Layout, asked: Iterable[Case]) -> Json:
    """Exact match and parse rate of the first lines."""
    count = exact = parsed = 0
    for case in asked:
        prompt = layout(vocabulary, case.before, case.after, case.path, COMPLETION_ROOM)
        trim = Trim(prompt.rest)
        text = (trim.push(write(prompt.ids)) + trim.finish()).partition("\n")[0]
        count += 1
        exact += text.rstrip() == case.missing.rstrip()
        parsed += parses(case.before + text + case.after)
    return {"cases": count, "exact_match": round(exact / count, 3), "parse_rate": round(parsed / count, 3)}


def completion_rows(vocabulary: Vocabulary, write: Write, count: int) -> Iterator[Json]:
    """A row for each layout, kind of file and kind of rest."""
    from models.make_tiny import corpus

    files = {"trained": corpus(), "held-out": [(path, ast.unparse(ast.parse(text))) for path, text in held_out()]}
    for kind, texts in files.items():
        for closers in (True, False):
            asked = list(cases(texts, random.Random(5), count, closers=closers))
            for name, layout in LAYOUTS.items():
                tell(f"completions of {kind} files, {name}")
                row = {"bench": "prompts", "measure": "completion", "prompt": name, "files": kind}
                row["rest"] = "closers" if closers else "nothing"
                yield row | completion_row(vocabulary, write, layout, asked)


def tiny_model(vocabulary: Vocabulary) -> Write:
    """Greedy text of the tiny model, up to the end of its first line that is not empty."""
    import torch
    from transformers import LlamaForCausalLM

    torch.set_num_threads(1)
    model = LlamaForCausalLM.from_pretrained(MODEL, dtype=torch.float32)

    @torch.inference_mode()
    def write(ids: Sequence[int]) -> str:
        written: list[int] = []
        given, cache = torch.tensor([ids]), None
        text = ""
        while len(written) < COMPLETION_TOKENS and "\n" not in text.lstrip("\n"):
            out = model(given, past_key_values=cache, use_cache=True)
            chosen, cache = int(out.logits[0, -1].argmax()), out.past_key_values
            if chosen in vocabulary.stop_ids:
                break
            written.append(chosen)
            given = torch.tensor([[chosen]])
            text = vocabulary.decode(written)
        return text

    return write


def held_out() -> list[tuple[str, str]]:
    """Path and text of each held-out module."""
    root = Path(sysconfig.get_paths()["stdlib"])
    return [(f"{module}.py", (root / f"{module}.py").read_text(encoding="utf-8")) for module in HELD_OUT]


def tell(progress: str) -> None:
    """Say what comes, on standard error."""
    print(progress, file=sys.stderr, flush=True)


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.prompts", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--keys", type=int, default=1500, help="how many keys are typed (default: %(default)s)")
    parser.add_argument("--cases", type=int, default=20, help="completions of each kind (default: %(default)s)")
    parser.add_argument("--room", type=int, default=1500, help="tokens of a typed prompt (default: %(default)s)")
    options = parser.parse_args()
    vocabulary = Vocabulary.load(MODEL)
    files, rng = held_out(), random.Random(5)
    keys: list[tuple[str, Key]] = []
    for path, text in itertools.cycle(files):
        if len(keys) >= options.keys:
            break
        keys += session(path, text, rng, places=2)
    tell(f"{len(keys)} keys")
    for rows in (
        suffix_rows(keys),
        recomputed_rows(vocabulary, keys, options.room),
        completion_rows(vocabulary, tiny_model(vocabulary), options.cases),
    ):
        for row in rows:
            print(json.dumps(row), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
