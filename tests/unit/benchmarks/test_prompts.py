import ast
import random
from pathlib import Path

import pytest

from aixcoder_serving.fim.vocabulary import Vocabulary
from benchmarks.editor import Key
from benchmarks.prompts import (
    HELD_OUT,
    LAYOUTS,
    MODEL,
    Case,
    cases,
    common,
    completion_row,
    parses,
    percentile,
    psm_line,
    recomputed_rows,
    session,
    suffix_rows,
)

TEXT = "".join(f"def f{n}(x):\n    return g(x[{n}], 'a')\n" for n in range(20))


@pytest.fixture(scope="module")
def vocabulary() -> Vocabulary:
    return Vocabulary.load(MODEL)


def test_nothing_held_out_was_trained_on() -> None:
    tree = ast.parse((MODEL.parent / "make_tiny.py").read_text(encoding="utf-8"))
    strings = {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)}
    assert "argparse" in strings
    assert not strings & set(HELD_OUT)


@pytest.mark.parametrize(
    ("one", "other", "length"),
    [([], [], 0), ([1], [], 0), ([1, 2], [1, 2], 2), ([1, 2], [1, 2, 3], 2), ([1, 2, 4], [1, 2, 3], 2), ([5], [1], 0)],
)
def test_common(one: list[int], other: list[int], length: int) -> None:
    assert common(one, other) == length == common(other, one)


@pytest.mark.parametrize(("share", "expected"), [(0.5, 10), (0.95, 19), (1.0, 20), (0.0, 1)])
def test_percentile(share: float, expected: int) -> None:
    assert percentile(list(range(20, 0, -1)), share) == expected


def test_the_suffix_changes_by_cause() -> None:
    keys = [
        Key("jump", "f", "\nnext\n"),
        Key("pair opened", "f(", ")\nnext\n"),
        Key("character", "f(a", ")\nnext\n"),
        Key("closer typed over", "f(a)", "\nnext\n"),
    ]
    rows = {(row["suffix"], row["cause"]): row for row in suffix_rows([("x.py", key) for key in keys])}
    assert {cause: row["changed"] for (suffix, cause), row in rows.items() if suffix == "cursor"} == {
        "character": 0,
        "closer typed over": 1,
        "pair opened": 1,
        "all": 0.6667,
    }
    assert rows["cursor", "pair opened"]["share_of_all_keys"] == 0.3333
    assert rows["next line", "all"] | {"changed": 0.0} == rows["next line", "all"]


def test_what_a_key_costs(vocabulary: Vocabulary) -> None:
    keys = list(session("x.py", TEXT, random.Random(1), places=2))
    rows = {(row["prompt"], row["keys"]): row for row in recomputed_rows(vocabulary, keys, 600)}
    assert set(rows) == {(name, which) for name in LAYOUTS for which in ("all", "no jumps")}
    assert rows["spm-cursor", "no jumps"]["count"] < rows["spm-cursor", "all"]["count"] == len(keys) - 1
    # The editor closes brackets and quotes on each second line: at the cursor that costs the whole prompt.
    assert rows["spm-next-line", "no jumps"]["p95"] <= 16 < rows["spm-cursor", "no jumps"]["p95"]
    assert rows["spm-next-line", "all"]["mean"] < rows["psm-line", "all"]["mean"] < rows["spm-cursor", "all"]["mean"]


def test_typing_in_a_line_appends_to_prefix_first_too(vocabulary: Vocabulary) -> None:
    first, second = (
        psm_line(vocabulary, TEXT + typed, rest + "\n" + TEXT, "x.py", 600).ids
        for typed, rest in (("    foo(", ")"), ("    foo(bar, baz", ")"))
    )
    assert len(first) < len(second) <= 600
    assert common(first, second) >= len(first) - 1


@pytest.mark.parametrize("closers", [True, False])
def test_cases_are_lines_in_the_making(closers: bool) -> None:
    made = list(cases([("x.py", TEXT)], random.Random(0), 20, closers=closers))
    assert len(made) == 20
    for case in made:
        rest = case.after[: case.after.index("\n")]
        assert bool(rest) == closers
        assert case.before + case.missing + case.after == TEXT
        assert parses(case.before + case.missing + case.after)


def test_a_completion_is_judged_by_its_first_line(vocabulary: Vocabulary) -> None:
    asked = [
        Case("x.py", "f(", ")\nnext\n", "a"),
        Case("x.py", "y = f(", ")\nnext\n", "a"),
        Case("x.py", "f(", ")\nnext\n", "a, b"),
        Case("x.py", "f((", "))\nnext\n", "a"),
    ]
    answers = iter(["a)\nmore", "b)", "a, b)\n", "(a\n"])
    row = completion_row(vocabulary, lambda _: next(answers), LAYOUTS["spm-next-line"], asked)
    assert row == {"cases": 4, "exact_match": 0.5, "parse_rate": 0.75}


def test_held_out_modules_are_there() -> None:
    assert all((Path(ast.__file__).parent / f"{module}.py").is_file() for module in HELD_OUT)
