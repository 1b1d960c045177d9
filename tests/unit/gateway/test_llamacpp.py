"""llama.cpp's dialect: bodies in, answers out."""

import json
from typing import Any

import pytest

from aixcoder_serving.gateway import problems
from aixcoder_serving.gateway.dialects import Answer, Ask, Identity, Usage, to_requests
from aixcoder_serving.gateway.dialects.llamacpp import LlamaCpp
from aixcoder_serving.gateway.problems import Problem
from aixcoder_serving.gateway.transcript import Piece
from aixcoder_serving.protocol import CompletionDefaults, ContextFile, Finished

IDENTITY = Identity("cmpl-1", "aixcoder-7b", 1700000000)
FINISHED = Finished(finish_reason="length", prompt_tokens=7, completion_tokens=3, cached_tokens=5)


def parse(**fields: object) -> Ask:
    return LlamaCpp().parse(json.dumps(fields).encode())


def asked(**more: Any) -> Ask:
    fields: dict[str, Any] = {"prompts": ("a",), "suffix": "b", "post_process": True} | more
    return Ask(**fields)


@pytest.mark.parametrize(
    ("body", "ask"),
    [
        pytest.param({}, asked(), id="prefix and suffix"),
        pytest.param({"prompt": "c"}, asked(prompts=("ac",)), id="text behind the prefix"),
        pytest.param({"n_predict": 128, "n_indent": 4}, asked(max_tokens=128, n_indent=4), id="sizes"),
        pytest.param(
            {"n_predict": -1, "seed": -1, "top_k": 0, "top_p": 0}, asked(top_k=0), id="its ways to say nothing"
        ),
        pytest.param({"n_predict": 0}, asked(max_tokens=0), id="a warm-up"),
        pytest.param({"t_max_predict_ms": 500}, asked(max_predict_ms=500.0), id="a limit of time"),
        pytest.param({"t_max_predict_ms": 0}, asked(), id="no limit of time"),
        pytest.param({"temperature": -1}, asked(temperature=0.0), id="greedy by a negative temperature"),
        pytest.param({"repeat_penalty": 1.1, "stop": ["x"]}, asked(repetition_penalty=1.1, stop=("x",)), id="sampling"),
        pytest.param({"stream": True, "cache_prompt": True, "samplers": ["top_k"]}, asked(stream=True), id="unknown"),
        pytest.param(
            {"input_extra": [{"text": "x", "filename": "f.py"}, {"text": "y"}]},
            asked(context=(ContextFile(path="f.py", text="x"), ContextFile(path="", text="y"))),
            id="other files",
        ),
    ],
)
def test_body_is_read(body: dict[str, object], ask: Ask) -> None:
    assert parse(input_prefix="a", input_suffix="b", **body) == ask


def test_a_warm_up_of_nothing_but_other_files_asks_for_nothing() -> None:
    ask = parse(input_prefix="", input_suffix="", input_extra=[{"text": "x"}], n_predict=64)
    assert ask.max_tokens == 0


def test_an_empty_suffix_is_one() -> None:
    assert to_requests(parse(input_prefix="a"), CompletionDefaults(), "r", "")[0].suffix == ""


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        pytest.param({"input_prefix": 5}, "`input_prefix` must be a string", id="prefix"),
        pytest.param({"input_extra": [{"filename": "x"}]}, "`input_extra` must be", id="a file without text"),
        pytest.param({"input_extra": [{"text": "x"}] * 257}, "at most 256", id="many files"),
        pytest.param({"n_predict": -2}, "`n_predict` must be", id="n_predict"),
        pytest.param({"n_indent": -1}, "`n_indent` must be", id="n_indent"),
        pytest.param({"t_max_predict_ms": "soon"}, "`t_max_predict_ms` must be", id="time"),
        pytest.param({"temperature": 3}, "at most 2", id="temperature"),
        pytest.param({"stop": [""]}, "1 to 256", id="stop"),
    ],
)
def test_bad_field_is_refused_by_name(body: dict[str, object], sentence: str) -> None:
    with pytest.raises(Problem, match=sentence) as caught:
        parse(**body)
    assert caught.value.status == 400


@pytest.mark.parametrize("body", [b"{", b"[]", b"\xff"])
def test_what_is_no_object_is_refused(body: bytes) -> None:
    with pytest.raises(Problem) as caught:
        LlamaCpp().parse(body)
    assert caught.value.status == 400


def test_whole_answer() -> None:
    writer = LlamaCpp().writer(asked(max_tokens=3), IDENTITY)
    body = json.loads(writer.whole([Answer(0, Piece("x = 1"), FINISHED)], Usage(7, 3, 5)))
    assert (body["content"], body["stop"], body["stop_type"], body["model"]) == ("x = 1", True, "limit", "aixcoder-7b")
    assert (body["tokens_cached"], body["tokens_evaluated"], body["tokens_predicted"]) == (5, 7, 3)
    assert body["timings"] == {"cache_n": 5, "prompt_n": 2, "predicted_n": 3}


def test_stream() -> None:
    writer = LlamaCpp().writer(asked(), IDENTITY)
    stream = writer.delta(0, Piece("a\n")) + writer.finish(0, FINISHED) + writer.end(Usage(7, 3, 5))
    first, last = [json.loads(part.removeprefix("data: ")) for part in stream.decode().split("\n\n") if part]
    assert (first["content"], first["stop"]) == ("a\n", False)
    assert (last["content"], last["stop"], last["stop_type"]) == ("", True, "limit")


@pytest.mark.parametrize(
    ("problem", "kind"),
    [
        (problems.invalid("no."), "invalid_request_error"),
        (problems.unauthorized(), "authentication_error"),
        (problems.no_replica(), "unavailable_error"),
        (problems.replica_lost(), "server_error"),
    ],
)
def test_error(problem: Problem, kind: str) -> None:
    error = json.loads(LlamaCpp().error(problem))["error"]
    assert error == {"code": problem.status, "message": problem.message, "type": kind}
