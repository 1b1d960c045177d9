"""What an editor was shown last, as a draft of what it asks for next."""

import pytest

from benchmarks.ours import Proposals

MIDDLE = 0


def ids(text: str) -> list[int]:
    """One id a byte."""
    return [byte + 1 for byte in text.encode()]


def prompt(before: str) -> list[int]:
    return [*ids("the suffix"), MIDDLE, *ids(before)]


def proposals() -> Proposals:
    return Proposals(ids, [b"", *(bytes([value]) for value in range(256))], MIDDLE)


@pytest.mark.parametrize(
    ("name", "before", "expected"),
    [
        ("nothing typed", "x = ", "foo(1)"),
        ("a part typed", "x = fo", "o(1)"),
        ("all typed", "x = foo(1)", ""),
        ("more than all", "x = foo(1)\n", ""),
        ("something else typed", "x = bar", ""),
        ("deleted", "x =", ""),
        ("elsewhere", "y = ", ""),
    ],
)
def test_the_rest_of_the_last_proposal_is_the_draft(name: str, before: str, expected: str) -> None:
    found = proposals()
    found.shown(1, prompt("x = "), ids("foo(1)"))
    assert found.draft(1, prompt(before)) == tuple(ids(expected)), name


def test_each_editor_has_its_own() -> None:
    found = proposals()
    found.shown(1, prompt("x = "), ids("foo"))
    assert found.draft(2, prompt("x = ")) == ()


def test_a_request_that_gave_nothing_leaves_the_last_one() -> None:
    found = proposals()
    found.shown(1, prompt("x = "), ids("foo"))
    found.shown(1, prompt("x = f"), [])
    assert found.draft(1, prompt("x = fo")) == tuple(ids("o"))


def test_half_a_character_is_no_draft() -> None:
    found = proposals()
    found.shown(1, prompt("x = "), ids("é")[:1])
    assert found.draft(1, prompt("x = ")) == ()
