from itertools import pairwise
from typing import Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aixcoder_serving.fim.languages import header
from aixcoder_serving.fim.prompt import NoRoom, Prompt, build
from aixcoder_serving.fim.vocabulary import Vocabulary

PREFIX, SUFFIX = "def f(x):\n    ", "\n    return y\n"
# Each piece encoded by transformers' own tokenizer.
PREFIX_IDS, SUFFIX_IDS = [448, 490, 274, 354, 443, 266, 425], [266, 639, 885, 266]
# fmt: off
HEADER_IDS = [
    269, 723, 490, 716, 1602, 482, 292, 615, 281, 332, 280, 346, 355, 266, 269, 723, 695, 434, 490, 716,
    482, 606, 348, 504, 1042, 1522, 1746, 355, 576, 429, 266,
]
# fmt: on
HEADER = "# the file path is: a/b.py\n# the code file is written by Python\n"

GOLDEN: dict[str, tuple[dict[str, Any], list[int]]] = {
    "spm": ({"suffix": SUFFIX}, [1, 260, 262, *SUFFIX_IDS, 261, *PREFIX_IDS]),
    "psm": ({"suffix": SUFFIX, "order": "psm"}, [1, 260, *PREFIX_IDS, 262, *SUFFIX_IDS, 261]),
    "an empty suffix is a suffix": ({"suffix": ""}, [1, 260, 262, 261, *PREFIX_IDS]),
    "no suffix, no fill in the middle": ({"suffix": None}, [1, *PREFIX_IDS]),
    "path": (
        {"suffix": SUFFIX, "path": "a/b.py"},
        [1, 260, 262, *SUFFIX_IDS, 261, *HEADER_IDS, *PREFIX_IDS],
    ),
}


@pytest.mark.parametrize("name", GOLDEN)
def test_golden(vocabulary: Vocabulary, name: str) -> None:
    options, ids = GOLDEN[name]
    prompt = build(vocabulary, prefix=PREFIX, room=1000, **options)
    assert list(prompt.ids) == ids
    assert not prompt.truncated


@pytest.mark.parametrize("order", ["spm", "psm"])
def test_header_precedes_the_prefix_only(vocabulary: Vocabulary, order: Literal["spm", "psm"]) -> None:
    prompt = build(vocabulary, prefix=PREFIX, suffix=SUFFIX, path="a/b.py", order=order, room=1000)
    with_header = build(vocabulary, prefix=HEADER + PREFIX, suffix=SUFFIX, order=order, room=1000)
    assert prompt.ids == with_header.ids


def test_header_without_a_suffix(vocabulary: Vocabulary) -> None:
    prompt = build(vocabulary, prefix=PREFIX, suffix=None, path="a/b.py", room=1000)
    assert prompt.ids[0] == vocabulary.bos
    assert vocabulary.decode(prompt.ids[1:]) == HEADER + PREFIX


def test_a_header_longer_than_half_the_room_is_left_out(vocabulary: Vocabulary) -> None:
    prompt = build(vocabulary, prefix=PREFIX, suffix=SUFFIX, path="a/b.py", room=60)
    assert prompt.truncated
    assert list(prompt.ids) == GOLDEN["spm"][1]


def test_lines_far_from_the_cursor_go_first(vocabulary: Vocabulary) -> None:
    lines = [f"line {n}\n" for n in range(100)]
    prompt = build(vocabulary, prefix="".join(lines) + "here", suffix="".join(lines), room=84)
    split = prompt.ids.index(vocabulary.middle)
    after, before = vocabulary.decode(prompt.ids[:split]), vocabulary.decode(prompt.ids[split:])
    assert prompt.truncated
    assert "".join(lines).startswith(after)
    assert after.endswith("\n")
    assert before.startswith("line ")
    assert ("".join(lines) + "here").endswith(before)
    assert len(vocabulary.encode(before).ids) > 2 * len(vocabulary.encode(after).ids) > 20


TYPED = "    print(f'{name}: {value + 1}')  # typed\n" * 3


def typed(vocabulary: Vocabulary, suffix: str, room: int, **options: Any) -> list[list[int]]:
    """The prompt after each key. The text before is long enough for several windows."""
    before = "".join(f"line {n}\n" for n in range(200))
    return [
        list(build(vocabulary, prefix=before + TYPED[:n], suffix=suffix, room=room, **options).ids)
        for n in range(len(TYPED) + 1)
    ]


@pytest.mark.parametrize("room", [300, 500, 900])
def test_a_key_changes_the_end_of_a_prompt_alone(vocabulary: Vocabulary, room: int) -> None:
    """But where the window moves on: three lines are less than a quarter of it, so once at most."""
    prompts = typed(vocabulary, "after\n" * 100, room, path="a/b.py")
    kept = [
        next((n for n, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), len(a)) for a, b in pairwise(prompts)
    ]
    moves = sum(len(a) - n > 4 for a, n in zip(prompts, kept, strict=False))
    assert moves <= 1
    assert len({tuple(ids[: ids.index(vocabulary.middle)]) for ids in prompts}) == 1, "the suffix stays as it is"
    assert max(map(len, prompts)) <= room


REST_OF_LINE: dict[str, tuple[str, dict[str, Any], str, str]] = {
    "a call": (")\n    return y\n", {}, "    return y\n", ")\n"),
    "no more lines": (")", {}, "", ")"),
    "in the middle of a line": ("z)\n", {}, "z)\n", ""),
    "prefix first": (")\n    return y\n", {"order": "psm"}, ")\n    return y\n", ""),
    "an empty suffix": ("", {}, "", ""),
}


@pytest.mark.parametrize("name", REST_OF_LINE)
def test_the_rest_of_the_line_is_left_to_the_model(vocabulary: Vocabulary, name: str) -> None:
    suffix, options, expected, rest = REST_OF_LINE[name]
    prompt = build(vocabulary, prefix=PREFIX, suffix=suffix, room=1000, post_process=True, **options)
    assert prompt.rest == rest
    assert prompt.ids == build(vocabulary, prefix=PREFIX, suffix=expected, room=1000, **options).ids
    assert not prompt.truncated
    assert build(vocabulary, prefix=PREFIX, suffix=suffix, room=1000, **options).rest == "", (
        "only where it is asked for"
    )


def test_closers_that_an_editor_writes_change_no_prompt(vocabulary: Vocabulary) -> None:
    rests = ["", ")", "')", "}')", ")", ""]
    prompts = {
        build(vocabulary, prefix=PREFIX, suffix=f"{rest}{SUFFIX}", room=1000, post_process=True).ids for rest in rests
    }
    assert len(prompts) == 1


@pytest.mark.parametrize(("suffix", "room"), [("", 3), (None, 0), ("", -5)])
def test_no_room_for_the_sentinels(vocabulary: Vocabulary, suffix: str | None, room: int) -> None:
    with pytest.raises(NoRoom, match="a prompt needs at least"):
        build(vocabulary, prefix="x", suffix=suffix, room=room)


def test_just_the_sentinels(vocabulary: Vocabulary) -> None:
    assert build(vocabulary, prefix="x", suffix="y", path="p.py", room=4).ids == (1, 260, 262, 261)


text = st.text(alphabet="ab (\n\t☃é.", max_size=60)


@settings(deadline=None)
@given(
    prefix=text,
    suffix=st.none() | text,
    path=st.none() | st.just("a.py"),
    order=st.sampled_from(["spm", "psm"]),
    room=st.integers(4, 120),
    post_process=st.booleans(),
)
def test_any_prompt_fits_and_is_a_part_of_what_was_given(
    vocabulary: Vocabulary,
    prefix: str,
    suffix: str | None,
    path: str | None,
    order: Any,
    room: int,
    post_process: bool,
) -> None:
    def at(room: int) -> Prompt:
        return build(
            vocabulary, prefix=prefix, suffix=suffix, path=path, order=order, room=room, post_process=post_process
        )

    prompt = at(room)
    assert len(prompt.ids) <= room
    sentinels = [i for i in prompt.ids if i in vocabulary.special_ids]
    assert sentinels == ([1] if suffix is None else [1, 260, 262, 261])
    everything = at(10_000)
    assert prompt.truncated == (prompt.ids != everything.ids)
    if suffix is None:
        assert ("# the file path is: a.py\n# the code file is written by Python\n" + prefix).endswith(
            vocabulary.decode(prompt.ids)
        )


OTHER = [("a.py", "one = 1\n"), ("b.py", "two = 2")]


@pytest.mark.parametrize("order", ["spm", "psm"])
def test_other_files_stand_before_the_prefix(vocabulary: Vocabulary, order: Literal["spm", "psm"]) -> None:
    options: dict[str, Any] = {"prefix": PREFIX, "suffix": SUFFIX, "path": "c.py", "order": order, "room": 1000}
    plain, prompt = build(vocabulary, **options), build(vocabulary, context=OTHER, **options)
    at = plain.ids.index(vocabulary.middle if order == "spm" else vocabulary.pre) + 1
    parts = [header("a.py", None) + "one = 1\n", header("b.py", None) + "two = 2\n"]
    other = [i for part in parts for i in vocabulary.encode(part).ids]
    assert prompt.ids == (*plain.ids[:at], *other, *plain.ids[at:])
    assert not prompt.truncated


def test_other_files_have_a_quarter_of_the_room_and_the_last_ones_come_first(vocabulary: Vocabulary) -> None:
    last = len(vocabulary.encode(header("b.py", None) + "two = 2\n").ids)
    prompt = build(vocabulary, prefix="x", suffix="", context=OTHER, room=4 * last + 4)
    assert prompt.truncated
    assert prompt.ids == build(vocabulary, prefix="x", suffix="", context=OTHER[1:], room=1000).ids
    nothing = build(vocabulary, prefix="x", suffix="", context=OTHER, room=4 * last)
    assert nothing.ids == build(vocabulary, prefix="x", suffix="", room=1000).ids
