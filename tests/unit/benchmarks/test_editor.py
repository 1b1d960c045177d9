import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.editor import typing

AFTER = "\nnext\n"

# What is typed; the lines in the making as `before|written by the editor`, and what kind of key each was.
TYPED = {
    "a call": ("f(a)", ["|", "f|", "f(|)", "f(a|)", "f(a)|"], "jcpco"),
    "a field of an f-string": ("f'{a}'", ["|", "f|", "f'|'", "f'{|}'", "f'{a|}'", "f'{a}|'", "f'{a}'|"], "jcppcoo"),
    "an apostrophe": ("# it's", ["|", "#|", "# |", "# i|", "# it|", "# it'|", "# it's|"], "jcccccc"),
    "a bracket before a name": ("(a", ["|", "(|)", "(a|)", "(a|"], "jpcd"),
    "a bracket in a string": ("'('", ["|", "'|'", "'(|)'", "'(|'", "'('|"], "jppdo"),
    "a docstring": (
        '"""a"""',
        ["|", '"|"', '""|', '"""|"""', '"""a|"""', '"""a"|""', '"""a""|"', '"""a"""|'],
        "jpopcooo",
    ),
    "a list over lines": (
        "[\n  a,\n]",
        ["|", "[|]", "[\n  |\n]", "[\n  a|\n]", "[\n  a,|\n]", "[\n  a,\n|]", "[\n  a,\n]|"],
        "jpbccjo",
    ),
}
CAUSES = {
    "c": "character",
    "p": "pair opened",
    "o": "closer typed over",
    "l": "line break",
    "b": "line break in a pair",
    "j": "jump",
    "d": "delete",
}


@pytest.mark.parametrize("name", TYPED)
def test_keys(name: str) -> None:
    wanted, shown, causes = TYPED[name]
    keys = list(typing("", wanted, AFTER, random.Random(0)))
    assert [f"{key.before}|{key.after.removesuffix(AFTER)}" for key in keys] == shown
    assert [key.cause for key in keys] == [CAUSES[cause] for cause in causes]


@given(wanted=st.text(alphabet="ab ()[]{}\"'#\n,:", max_size=60), typos=st.sampled_from([0.0, 0.3]), seed=st.integers())
def test_all_is_typed_in_the_end(wanted: str, typos: float, seed: int) -> None:
    keys = list(typing("before ", wanted, AFTER, random.Random(seed), typos))
    assert (keys[-1].before, keys[-1].after) == ("before " + wanted, AFTER)
    assert all(key.before.startswith("before ") and key.after.endswith(AFTER) for key in keys)
