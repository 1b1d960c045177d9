"""Who is typing where."""

import pytest

from aixcoder_serving.gateway.editor import Editor, affinity, continues, editor
from aixcoder_serving.protocol import CompletionRequest


def request(prefix: str | None, suffix: str | None = "s", path: str | None = "a.py") -> CompletionRequest:
    ids = None if prefix is not None else (1, 2)
    return CompletionRequest(
        id="r", prefix=prefix, suffix=suffix if prefix is not None else None, path=path, prompt_token_ids=ids
    )


@pytest.mark.parametrize(
    ("key", "shared", "session", "user", "found"),
    [
        pytest.param("k", False, None, None, Editor("k", ""), id="a key of one person"),
        pytest.param("k", True, None, None, None, id="a key of many tells nobody"),
        pytest.param("k", True, None, "u", Editor("k", "u"), id="the user of the body"),
        pytest.param("k", True, "s", "u", Editor("k", "s"), id="the header before the user"),
        pytest.param(None, True, None, None, None, id="keys are off"),
        pytest.param(None, True, "s", None, Editor("", "s"), id="keys are off, a session"),
        pytest.param("k", False, "", "", Editor("k", ""), id="empty is as good as absent"),
    ],
)
def test_editor(key: str | None, shared: bool, session: str | None, user: str | None, found: Editor | None) -> None:
    assert editor(key, shared, session, user) == found


@pytest.mark.parametrize(
    ("old", "new", "found"),
    [
        pytest.param(request("def f"), request("def fo"), True, id="typed on"),
        pytest.param(request("def f"), request("def f"), False, id="the same: no typing, but another sample"),
        pytest.param(request("def foo"), request("def f"), True, id="deleted"),
        pytest.param(request("def f" + "x" * 200), request("def f"), True, id="200 characters deleted"),
        pytest.param(request("def f" + "x" * 201), request("def f"), False, id="201 characters deleted"),
        pytest.param(request("def foo"), request("def fu"), False, id="another text"),
        pytest.param(request("def f", "s"), request("def fo", "t"), False, id="another suffix"),
        pytest.param(request("def f"), request("def fo", path="b.py"), False, id="another file"),
        pytest.param(request(None), request(None), False, id="token ids"),
    ],
)
def test_continues(old: CompletionRequest, new: CompletionRequest, found: bool) -> None:
    assert continues(new, old) is found


def test_an_editor_has_one_affinity_a_file() -> None:
    me = Editor("k", "s")
    typed = {affinity(me, request("x" * n, "s" * n)) for n in range(50)}
    assert len(typed) == 1
    assert affinity(me, request("x", path="b.py")) not in typed
    assert affinity(Editor("k2", "s"), request("x")) not in typed


def test_nobody_is_known_by_a_line_of_the_file() -> None:
    lines = [f"line number {n * n % 97} of the file\n" for n in range(60)]
    window = ["".join(lines[n : n + 40]) for n in range(10)]
    assert len({affinity(None, request(text)) for text in window}) <= 3
    assert len({affinity(None, request(window[0] + "x" * n)) for n in range(20)}) == 1
    assert affinity(None, request(window[0])) != affinity(None, request("another file altogether\n"))


def test_token_ids_by_the_first_of_them() -> None:
    one = CompletionRequest(id="r", prompt_token_ids=tuple(range(100)))
    two = CompletionRequest(id="r", prompt_token_ids=tuple(range(101)))
    three = CompletionRequest(id="r", prompt_token_ids=(9, *range(100)))
    assert affinity(None, one) == affinity(None, two) != affinity(None, three)
