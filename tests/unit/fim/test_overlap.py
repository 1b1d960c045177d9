from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aixcoder_serving.fim.overlap import Trim, rest_of_line

NEXT = "after = 1\n"

# What follows the cursor in the editor, and how much of it the model writes itself.
RESTS = {
    "the end of a line": ("\n" + NEXT, "\n"),
    "the end of the file": ("", ""),
    "an empty line below": ("\n\n" + NEXT, "\n"),
    "an auto-closed call": (")\n" + NEXT, ")\n"),
    "an auto-closed call, last line of the file": (")", ")"),
    "a call in a call": ("))\n" + NEXT, "))\n"),
    "parameters of a method": ("):\n" + NEXT, "):\n"),
    "parameters in C": (") {\n" + NEXT, ") {\n"),
    "a call and its end in JavaScript": (");\n" + NEXT, ");\n"),
    "an argument of many lines": ("],\n" + NEXT, "],\n"),
    "a dict literal with spaces": (" }\n" + NEXT, " }\n"),
    "a string": ('"\n' + NEXT, '"\n'),
    "a string in a call": ("')\n" + NEXT, "')\n"),
    "a field of an f-string": ('}"\n' + NEXT, '}"\n'),
    "a template literal": ("}`;\n" + NEXT, "}`;\n"),
    "a docstring": ('"""\n' + NEXT, '"""\n'),
    "white space at the end": ("  \t\n" + NEXT, "  \t\n"),
    "a line end of Windows": (")\r\n" + NEXT, ")\r\n"),
    "the closers of JSX in braces": ("))}\n</div>\n", "))}\n"),
    "a tag of JSX": ("</div>\n" + NEXT, ""),
    "the end of a tag of JSX": ("} />\n" + NEXT, ""),
    "in the middle of a name": ("lue = 3\n" + NEXT, ""),
    "before an argument": ("x)\n" + NEXT, ""),
    "before an opening bracket": ("(x)\n" + NEXT, ""),
    "two signs": (");,\n" + NEXT, ""),
    "before a comment": (")  # why\n" + NEXT, ""),
    "closers apart": (") }\n" + NEXT, ""),
    "a line end of old Macs is none": (")\rx\n", ""),
}


@pytest.mark.parametrize("name", RESTS)
def test_where_the_suffix_begins(name: str) -> None:
    suffix, rest = RESTS[name]
    assert rest_of_line(suffix) == rest


def test_a_long_line_is_decided_at_once() -> None:
    """Each would take minutes where the pattern goes back."""
    assert rest_of_line(" " * 1_000_000 + "x\n") == ""
    assert rest_of_line(")" * 1_000_000 + "x\n") == ""
    assert rest_of_line(" " * 1_000_000 + "\n") == " " * 1_000_000 + "\n"


# The rest of the line, what the model writes, what goes in at the cursor.
COMPLETIONS = {
    # The rest is repeated, the line ends.
    "the rest alone": (")\n", ")\n", ""),
    "nothing": (")\n", "", ""),
    "an argument": (")\n", "a, b)\n", "a, b"),
    "no line end": (")\n", "a, b)", "a, b"),
    "the line end of Windows": (")\r\n", "a, b)\r\n", "a, b"),
    "at the end of the file": (")", "a, b)\n", "a, b"),
    "parameters": ("):\n", "self, x):\n", "self, x"),
    "the sign left out": (");\n", "a, b)\n", "a, b"),
    "the sign added": (")\n", "a, b);\n", "a, b"),
    "a brace after a space": (") {\n", "a && b) {\n", "a && b"),
    "another space": (") {\n", "a && b){\n", "a && b"),
    "a space that the rest has too": (" }\n", ' "a": 1 }\n', ' "a": 1'),
    "two closers": ("))\n", "a, b))\n", "a, b"),
    "a dict of many lines": ("}\n", '\n    "a": [1],\n    "b": {},\n}\n', '\n    "a": [1],\n    "b": {},\n'),
    "tabs": (")\n", "\n\ta,\n\tb,\n)\n", "\n\ta,\n\tb,\n"),
    # It is not repeated.
    "a call whose closer is its own": (")\n", "g(x)\n", "g(x)"),
    "the line end alone is repeated": (")\n", "a\n", "a"),
    "cut in the middle": (")\n", "g(x, [", "g(x, ["),
    # More follows it.
    "another line": (")\n", "a, b)\n    more(a)\n", "a, b"),
    "a body after the parameters": ("):\n", "self):\n        return 1\n", "self"),
    "a return type": ("):\n", "self) -> int:\n        return 1\n", "self"),
    "an operation": (")\n", "a) + 1\n", "a"),
    "a comment": (")\n", "a)  # note :)\n", "a"),
    "a call of the result": (")\n", "a).b(c)\n", "a).b(c"),
    "a call of the result and more": (")\n", "a).b(c) + 1\n", "a"),
    "a call of the result over lines": (")\n", "a).b(\n    c,\n)\n", "a).b(\n    c,\n"),
    "a call of the result, not ended": (")\n", "a).b(c", "a).b(c"),
    # In another order, or another bracket.
    "the other order": (")]\n", "a])\n", "a"),
    "the outer one": ("))\n", "a)\n", "a"),
    "one that the rest does not know of": (")\n", "a}\n", "a"),
    "a brace behind the semicolon": (");\n", "a); }\n", "a"),
    # Strings.
    "text": ('"\n', 'hello"\n', "hello"),
    "text with a bracket": ("')\n", ":-)')\n", ":-)"),
    "text with an escaped quote": ('")\n', 'a \\"b\\"")\n', 'a \\"b\\"'),
    "text that does not end": ('")\n', "hello\nx = 1\n", "hello"),
    "text that does not end, on Windows": ('")\r\n', "hello\r\nx = 1\r\n", "hello"),
    "a field": ('}"\n', 'name!r}"\n', "name!r"),
    "a key in a field": ("}'\n", 'd["a"]}\'\n', 'd["a"]'),
    "a docstring": ('"""\n', 'Say "hello".\n\n    Or not.\n    """\n', 'Say "hello".\n\n    Or not.\n    '),
    "a template over lines": ("`;\n", "a ${b}\nc`;\n", "a ${b}\nc"),
    "a bracket in a string": ("):\n", "a=')', b=\"(\"):\n", "a=')', b=\"(\""),
    "a string over its brackets": (")\n", '"""a (" b""", c)\n', '"""a (" b""", c'),
    "an apostrophe": (")\n", "x: &'a str) -> u8 {\n", "x: &'a str"),
    "an apostrophe at the end": (")\n", "x: &'a str)", "x: &'a str"),
    # A sign alone.
    "a semicolon": (";\n", "foo(a);\n", "foo(a)"),
    "statements": (";\n", "a; b = 2;\n", "a; b = 2"),
    "a statement below": (";\n", "a;\n    b();\n", "a"),
    "no semicolon": (";\n", "a\n", "a"),
    "a comma in brackets": (",\n", "[1,\n 2],\n", "[1,\n 2]"),
    "items": (",\n", "1, 2,\n", "1, 2"),
    "a header": (":\n", "x > y[1:2]:\n        return\n", "x > y[1:2]"),
    "a header and its body": (":\n", "x: return 1\n", "x"),
    "a name of C++": (":\n", "Foo::BAR:\n", "Foo::BAR"),
    "a walrus": (":\n", "x := f():\n", "x := f()"),
    "a block": (" {\n", " {\n  return;\n}\n", ""),
    "an object, then a block": (" {\n", "of ({a: 1}) {\n", "of ({a: 1})"),
    "a closer before the sign": (";\n", "a) + b;\n", "a) + b"),
    # White space alone.
    "a line": ("\n", "x = 1\n", "x = 1"),
    "lines": ("\n", "x = 1\ny = ')'\n", "x = 1\ny = ')'"),
    "a line end": ("\n", "\n", ""),
    "two line ends": ("\n", "x\n\n", "x\n"),
    "lines of Windows": ("\r\n", "x\r\ny\r\n", "x\r\ny"),
    "the reference's format": ("", "a)\n", "a)\n"),
}


def trimmed(rest: str, *parts: str) -> str:
    trim = Trim(rest)
    return "".join([*map(trim.push, parts), trim.finish()])


@pytest.mark.parametrize("name", COMPLETIONS)
def test_what_goes_in_at_the_cursor(name: str) -> None:
    rest, written, expected = COMPLETIONS[name]
    assert trimmed(rest, written) == expected
    assert trimmed(rest, *written) == expected, "one character after the other"


@pytest.mark.parametrize("rest", ["x", ")x", "(\n", ")\n)"])
def test_another_rest_is_refused(rest: str) -> None:
    with pytest.raises(ValueError, match="not the rest of a line"):
        Trim(rest)


@pytest.mark.parametrize(
    ("rest", "parts"),
    [
        (")\n", [("a, b", "a,"), (")", ""), ("\n  more", " b"), (" and more", "")]),
        (")\n", [("f(x)", "f("), ("  ", "x)"), ("\n", ""), ("  + y", "  \n  +"), ("   ", " y")]),
        (")\n", [("a).b", "a"), ("(c   ", ""), ("\n  ", ").b(c")]),
        ("\n", [("x = 1", "x = 1"), ("\n", ""), ("y", "\ny")]),
        ("", [("x = 1\n", "x = 1\n"), ("", "")]),
    ],
)
def test_it_shows_what_it_can(rest: str, parts: list[tuple[str, str]]) -> None:
    """Two characters wait to be told from what they begin, white space for what follows it."""
    trim = Trim(rest)
    assert [trim.push(text) for text, _ in parts] == [shown for _, shown in parts]


def test_done_where_nothing_more_can_be_shown() -> None:
    trim = Trim(")\n")
    assert (trim.push("a)\n"), trim.done) == ("a", False)
    assert (trim.push("  "), trim.done) == ("", True)
    assert (trim.push("more"), trim.finish()) == ("", "")
    going_on = Trim("\n")
    going_on.push("a)\n  more")
    assert not going_on.done


rests = st.sampled_from(sorted({rest for _, rest in RESTS.values()} | {rest for rest, _, _ in COMPLETIONS.values()}))
code = st.text(alphabet="ab()[]{}\"'`:;,=\\ \r\n", max_size=40)


@given(rest=rests, written=code, data=st.data())
def test_streamed_as_at_once(rest: str, written: str, data: st.DataObject) -> None:
    cuts = sorted(data.draw(st.lists(st.integers(0, len(written)), max_size=8)))
    parts = [written[a:b] for a, b in pairwise([0, *cuts, len(written)])]
    whole = trimmed(rest, written)
    assert trimmed(rest, *parts) == whole
    assert written.startswith(whole)


def closes_outside(text: str, outer: str) -> bool:
    """Whether `outer`, innermost first, does not close behind the text what it closed before it."""
    expected = list(reversed(outer))
    for character in text:
        if character in "([{":
            expected.append({"(": ")", "[": "]", "{": "}"}[character])
        elif character in ")]}":
            while len(expected) > len(outer) and expected[-1] != character:
                expected.pop()
            if not expected or expected.pop() != character:
                return True
    return expected[: len(outer)] != list(reversed(outer))


@given(
    outer=st.text(alphabet=")]}", min_size=1, max_size=3),
    sign=st.sampled_from(["", ":", ";", ",", " {"]),
    written=st.text(alphabet="ab()[]{}:;,\n ", max_size=40),
    size=st.integers(1, 5),
)
def test_no_closer_is_doubled(outer: str, sign: str, written: str, size: int) -> None:
    """Neither in the whole nor in what was shown at any time."""
    trim, shown = Trim(f"{outer}{sign}\n"), ""
    for at in range(0, len(written), size):
        shown += trim.push(written[at : at + size])
        assert not closes_outside(shown, outer)
    assert not closes_outside(shown + trim.finish(), outer)


def balanced() -> st.SearchStrategy[str]:
    """Code on one line whose brackets close each other."""
    word = st.sampled_from(["a", "b.c", "1", "x + y", "n, m", "'s)'", '"("'])
    return st.recursive(
        word,
        lambda inner: st.tuples(inner, st.sampled_from(["()", "[]", "{}"]), inner).map(
            lambda parts: f"{parts[0]}{parts[1][0]}{parts[2]}{parts[1][1]}"
        ),
        max_leaves=6,
    )


@given(
    middle=balanced(),
    rest=st.sampled_from([")\n", "))\n", "):\n", ") {\n", ");\n", "]\n", "}],\n", ";\n", ",\n", " )\n", ")\r\n", ")"]),
    more=st.sampled_from(["", "    return 1\n", ")\n", "}\n\n"]),
)
def test_a_line_repeated_in_full_gives_what_was_missing(middle: str, rest: str, more: str) -> None:
    assert trimmed(rest, middle + rest.rstrip("\r\n") + "\n" + more) == middle
