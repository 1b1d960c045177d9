"""OpenAI's dialect: bodies in, requests to a replica, answers out."""

import json

import pytest
from pydantic import ValidationError

from aixcoder_serving.gateway import problems
from aixcoder_serving.gateway.dialects import Ask, Identity, Model, to_request
from aixcoder_serving.gateway.dialects.openai import OpenAI
from aixcoder_serving.gateway.problems import Problem
from aixcoder_serving.protocol import CompletionDefaults, Finished, Sampling

IDENTITY = Identity("cmpl-1", "aixcoder-7b", 1700000000)
FINISHED = Finished(finish_reason="length", prompt_tokens=7, completion_tokens=3, cached_tokens=5)


def parse(**fields: object) -> Ask:
    return OpenAI().parse(json.dumps(fields).encode())


@pytest.mark.parametrize(
    ("body", "ask"),
    [
        pytest.param({"prompt": "a"}, Ask(prefix="a"), id="text"),
        pytest.param({"prompt": ""}, Ask(prefix=""), id="empty text"),
        pytest.param({"prompt": [1, 2]}, Ask(prompt_token_ids=(1, 2)), id="token ids"),
        pytest.param({"prompt": "a", "suffix": "b"}, Ask(prefix="a", suffix="b"), id="suffix"),
        pytest.param({"prompt": "a", "suffix": ""}, Ask(prefix="a", suffix=""), id="an empty suffix is one"),
        pytest.param({"prompt": "a", "suffix": None}, Ask(prefix="a"), id="null suffix is none"),
        pytest.param({"prompt": "a", "model": "m"}, Ask(prefix="a", model="m"), id="model"),
        pytest.param({"prompt": "a", "max_tokens": 0}, Ask(prefix="a", max_tokens=0), id="no tokens"),
        pytest.param({"prompt": "a", "temperature": 1}, Ask(prefix="a", temperature=1.0), id="integer temperature"),
        pytest.param({"prompt": "a", "top_p": 0.5, "seed": -3}, Ask(prefix="a", top_p=0.5, seed=-3), id="sampling"),
        pytest.param({"prompt": "a", "stop": "\n"}, Ask(prefix="a", stop=("\n",)), id="one stop"),
        pytest.param({"prompt": "a", "stop": ["x", "y"]}, Ask(prefix="a", stop=("x", "y")), id="stops"),
        pytest.param({"prompt": "a", "stop": None}, Ask(prefix="a"), id="null stop"),
        pytest.param({"prompt": "a", "ignore_eos": True}, Ask(prefix="a", ignore_eos=True), id="vLLM's ignore_eos"),
        pytest.param({"prompt": "a", "stream": True}, Ask(prefix="a", stream=True), id="stream"),
        pytest.param(
            {"prompt": "a", "stream": True, "stream_options": {"include_usage": True, "x": 1}},
            Ask(prefix="a", stream=True, include_usage=True),
            id="usage in the stream",
        ),
        pytest.param({"prompt": "a", "n": 1, "best_of": 1, "echo": False}, Ask(prefix="a"), id="what one may send"),
        pytest.param({"prompt": "a", "presence_penalty": 0.0, "logit_bias": {}}, Ask(prefix="a"), id="neutral"),
        pytest.param({"prompt": "a", "user": "u", "whatever": {"x": []}}, Ask(prefix="a"), id="unknown fields"),
        pytest.param({"prompt": "é\u2028😀"}, Ask(prefix="é\u2028😀"), id="unicode"),
    ],
)
def test_body_is_read(body: dict[str, object], ask: Ask) -> None:
    assert parse(**body) == ask


@pytest.mark.parametrize(
    ("body", "param", "sentence"),
    [
        pytest.param({}, "prompt", "one string or one list of token ids", id="no prompt"),
        pytest.param({"prompt": ["a"]}, "prompt", "one request for each prompt", id="list of texts"),
        pytest.param({"prompt": [[1], [2]]}, "prompt", "one request for each prompt", id="list of token ids"),
        pytest.param({"prompt": []}, "prompt", "list of token ids", id="empty list"),
        pytest.param({"prompt": [1, True]}, "prompt", "list of token ids", id="a bool is no token id"),
        pytest.param({"prompt": [1, -1]}, "prompt", "no token id", id="negative token id"),
        pytest.param({"prompt": [2**40]}, "prompt", "no token id", id="huge token id"),
        pytest.param({"prompt": {"a": 1}}, "prompt", "one string", id="object"),
        pytest.param({"prompt": [1], "suffix": ""}, "suffix", "goes with a text", id="suffix with token ids"),
        pytest.param({"prompt": "a", "suffix": 3}, "suffix", "a string", id="suffix"),
        pytest.param({"prompt": "a", "max_tokens": -1}, "max_tokens", "integer from 0", id="max_tokens"),
        pytest.param({"prompt": "a", "max_tokens": "many"}, "max_tokens", "integer from 0", id="max_tokens word"),
        pytest.param({"prompt": "a", "temperature": 2.1}, "temperature", "from 0 to 2", id="temperature"),
        pytest.param({"prompt": "a", "temperature": float("nan")}, "temperature", "from 0 to 2", id="nan"),
        pytest.param({"prompt": "a", "top_p": 0}, "top_p", "above 0", id="top_p"),
        pytest.param({"prompt": "a", "seed": 2**63}, "seed", "64-bit", id="seed"),
        pytest.param({"prompt": "a", "stop": ["x"] * 17}, "stop", "at most 16", id="many stops"),
        pytest.param({"prompt": "a", "stop": [""]}, "stop", "1 to 256", id="empty stop"),
        pytest.param({"prompt": "a", "stop": [1]}, "stop", "1 to 256", id="stop is a number"),
        pytest.param({"prompt": "a", "stream": "maybe"}, "stream", "true or false", id="stream"),
        pytest.param({"prompt": "a", "stream_options": 1}, "stream_options", "include_usage", id="stream_options"),
        pytest.param({"prompt": "a", "model": 5}, "model", "a string", id="model"),
        pytest.param({"prompt": "a", "n": 2}, "n", "one request for each", id="n"),
        pytest.param({"prompt": "a", "best_of": 2}, "best_of", "only one", id="best_of"),
        pytest.param({"prompt": "a", "echo": True}, "echo", "not supported", id="echo"),
        pytest.param({"prompt": "a", "logprobs": 0}, "logprobs", "not supported", id="logprobs"),
        pytest.param({"prompt": "a", "presence_penalty": 0.5}, "presence_penalty", "send 0", id="presence"),
        pytest.param({"prompt": "a", "frequency_penalty": -1}, "frequency_penalty", "send 0", id="frequency"),
        pytest.param({"prompt": "a", "logit_bias": {"5": 1}}, "logit_bias", "not supported", id="logit_bias"),
    ],
)
def test_bad_field_is_refused_by_name(body: dict[str, object], param: str, sentence: str) -> None:
    with pytest.raises(Problem, match=sentence) as caught:
        parse(**body)
    assert (caught.value.status, caught.value.param) == (400, param)


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        pytest.param(b"", "not valid JSON", id="empty"),
        pytest.param(b"{", "not valid JSON", id="cut"),
        pytest.param(b'{"prompt": "\xff"}', "not valid JSON", id="not UTF-8"),
        pytest.param(b'{"prompt": "\\ud800"}', "not valid JSON", id="lone surrogate"),
        pytest.param(b'{"x": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "nested too deeply", id="deep"),
        pytest.param(b"[]", "must be a JSON object", id="list"),
        pytest.param(b'"prompt"', "must be a JSON object", id="string"),
        pytest.param(b"null", "must be a JSON object", id="null"),
    ],
)
def test_what_is_no_object_is_refused(body: bytes, sentence: str) -> None:
    with pytest.raises(Problem, match=sentence) as caught:
        OpenAI().parse(body)
    assert caught.value.status == 400


def test_a_refusal_holds_nothing_of_what_was_sent() -> None:
    with pytest.raises(Problem) as caught:
        parse(prompt={"secret": "code"}, suffix="code")
    assert "secret" not in caught.value.message


@pytest.mark.parametrize(
    ("ask", "defaults", "sampling"),
    [
        pytest.param(Ask(prefix="a"), CompletionDefaults(), Sampling(), id="the protocol's"),
        pytest.param(
            Ask(prefix="a"),
            CompletionDefaults(max_tokens=64, temperature=0.2),
            Sampling(max_tokens=64, temperature=0.2),
            id="the deployment's",
        ),
        pytest.param(
            Ask(prefix="a", max_tokens=0, temperature=0.0, top_p=0.9, seed=1, stop=("x",), ignore_eos=True),
            CompletionDefaults(max_tokens=64, temperature=0.2),
            Sampling(max_tokens=0, temperature=0.0, top_p=0.9, seed=1, stop=("x",), ignore_eos=True),
            id="the client's, zero too",
        ),
    ],
)
def test_what_the_client_left_out(ask: Ask, defaults: CompletionDefaults, sampling: Sampling) -> None:
    assert to_request(ask, defaults, "r").sampling == sampling


def test_request_carries_the_prompt_as_it_came() -> None:
    request = to_request(Ask(prompt_token_ids=(5, 6)), CompletionDefaults(), "r")
    assert (request.id, request.prefix, request.suffix, request.prompt_token_ids) == ("r", None, None, (5, 6))
    request = to_request(Ask(prefix="a", suffix=""), CompletionDefaults(), "r")
    assert (request.prefix, request.suffix, request.prompt_token_ids) == ("a", "", None)


def test_an_invalid_message_says_nothing_of_the_prompt() -> None:
    with pytest.raises(ValidationError) as caught:
        to_request(Ask(prefix="secret", prompt_token_ids=(1,)), CompletionDefaults(), "r")
    assert "secret" not in str(caught.value)


def test_whole_answer() -> None:
    body = json.loads(OpenAI().writer(Ask(), IDENTITY).whole("x = 1", FINISHED))
    assert body == {
        "id": "cmpl-1",
        "object": "text_completion",
        "created": 1700000000,
        "model": "aixcoder-7b",
        "choices": [{"index": 0, "text": "x = 1", "logprobs": None, "finish_reason": "length"}],
        "usage": {
            "prompt_tokens": 7,
            "completion_tokens": 3,
            "total_tokens": 10,
            "prompt_tokens_details": {"cached_tokens": 5},
        },
    }


def events(stream: bytes) -> list[object]:
    """The data of each event of a stream; [DONE] as it is."""
    *pieces, nothing = stream.decode().split("\n\n")
    assert nothing == ""
    datas = [piece.removeprefix("data: ") for piece in pieces]
    return [data if data == "[DONE]" else json.loads(data) for data in datas]


@pytest.mark.parametrize("include_usage", [False, True])
def test_stream(include_usage: bool) -> None:
    writer = OpenAI().writer(Ask(include_usage=include_usage), IDENTITY)
    head = {"id": "cmpl-1", "object": "text_completion", "created": 1700000000, "model": "aixcoder-7b"}
    null = {"usage": None} if include_usage else {}
    expected: list[object] = [
        head | {"choices": [{"index": 0, "text": "a\n\n", "logprobs": None, "finish_reason": None}]} | null,
        head | {"choices": [{"index": 0, "text": "", "logprobs": None, "finish_reason": "length"}]} | null,
    ]
    if include_usage:
        usage = json.loads(writer.whole("", FINISHED))["usage"]
        expected.append(head | {"choices": [], "usage": usage})
    assert events(writer.delta("a\n\n") + writer.end(FINISHED)) == [*expected, "[DONE]"]


def test_broken_stream_ends_in_an_error_and_is_not_done() -> None:
    (event,) = events(OpenAI().writer(Ask(), IDENTITY).broken(problems.replica_lost()))
    assert isinstance(event, dict)
    assert event["error"]["code"] == "replica_lost"


@pytest.mark.parametrize(
    ("problem", "error"),
    [
        pytest.param(
            problems.invalid("no.", "n"),
            {"message": "no.", "type": "invalid_request_error", "param": "n", "code": "invalid_request"},
            id="theirs",
        ),
        pytest.param(
            Problem(503, "no_replica", "none.", retry_after=5),
            {"message": "none.", "type": "server_error", "param": None, "code": "no_replica"},
            id="ours",
        ),
    ],
)
def test_error(problem: Problem, error: dict[str, object]) -> None:
    assert json.loads(OpenAI().error(problem)) == {"error": error}


def test_models() -> None:
    body = json.loads(OpenAI().models([Model("a", 5, 4096), Model("b", 6, None)]))
    assert body == {
        "object": "list",
        "data": [
            {"id": "a", "object": "model", "created": 5, "owned_by": "aixcoder", "max_model_len": 4096},
            {"id": "b", "object": "model", "created": 6, "owned_by": "aixcoder"},
        ],
    }
