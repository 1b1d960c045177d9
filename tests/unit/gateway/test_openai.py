"""OpenAI's dialect: bodies in, requests to a replica, answers out."""

import json

import pytest

from aixcoder_serving.gateway import problems
from aixcoder_serving.gateway.dialects import Answer, Ask, Identity, Model, Usage, to_requests
from aixcoder_serving.gateway.dialects.openai import OpenAI
from aixcoder_serving.gateway.problems import Problem
from aixcoder_serving.gateway.transcript import Piece
from aixcoder_serving.protocol import (
    CompletionDefaults,
    CompletionRequest,
    Finished,
    LikelyToken,
    Sampling,
    TokenLogprobs,
)

IDENTITY = Identity("cmpl-1", "aixcoder-7b", 1700000000)
USAGE = Usage(7, 3, 5)
FINISHED = Finished(finish_reason="length", prompt_tokens=7, completion_tokens=3, cached_tokens=5)


def parse(**fields: object) -> Ask:
    return OpenAI().parse(json.dumps(fields).encode())


@pytest.mark.parametrize(
    ("body", "ask"),
    [
        pytest.param({"prompt": "a"}, Ask(("a",)), id="text"),
        pytest.param({"prompt": ""}, Ask(("",)), id="empty text"),
        pytest.param({"prompt": [1, 2]}, Ask(((1, 2),)), id="token ids"),
        pytest.param({"prompt": "a", "suffix": "b"}, Ask(("a",), suffix="b"), id="suffix"),
        pytest.param({"prompt": "a", "suffix": ""}, Ask(("a",), suffix=""), id="an empty suffix is one"),
        pytest.param({"prompt": "a", "suffix": None}, Ask(("a",)), id="null suffix is none"),
        pytest.param({"prompt": "a", "model": "m"}, Ask(("a",), model="m"), id="model"),
        pytest.param({"prompt": "a", "max_tokens": 0}, Ask(("a",), max_tokens=0), id="no tokens"),
        pytest.param({"prompt": "a", "temperature": 1}, Ask(("a",), temperature=1.0), id="integer temperature"),
        pytest.param({"prompt": "a", "top_p": 0.5, "seed": -3}, Ask(("a",), top_p=0.5, seed=-3), id="sampling"),
        pytest.param({"prompt": "a", "stop": "\n"}, Ask(("a",), stop=("\n",)), id="one stop"),
        pytest.param({"prompt": "a", "stop": ["x", "y"]}, Ask(("a",), stop=("x", "y")), id="stops"),
        pytest.param({"prompt": "a", "stop": None}, Ask(("a",)), id="null stop"),
        pytest.param({"prompt": "a", "ignore_eos": True}, Ask(("a",), ignore_eos=True), id="vLLM's ignore_eos"),
        pytest.param({"prompt": "a", "stream": True}, Ask(("a",), stream=True), id="stream"),
        pytest.param(
            {"prompt": "a", "stream": True, "stream_options": {"include_usage": True, "x": 1}},
            Ask(("a",), stream=True, include_usage=True),
            id="usage in the stream",
        ),
        pytest.param({"prompt": ["a", "b"]}, Ask(("a", "b")), id="texts"),
        pytest.param({"prompt": [[1, 2], [3]]}, Ask(((1, 2), (3,))), id="lists of token ids"),
        pytest.param({"prompt": "a", "n": 1, "best_of": 1, "echo": False}, Ask(("a",)), id="one of all"),
        pytest.param({"prompt": "a", "n": 3}, Ask(("a",), n=3, best_of=3), id="three"),
        pytest.param({"prompt": "a", "best_of": 3}, Ask(("a",), best_of=3), id="the best of three"),
        pytest.param({"prompt": "a", "echo": True, "logprobs": 0}, Ask(("a",), echo=True, logprobs=0), id="echo"),
        pytest.param({"prompt": "a", "logprobs": False}, Ask(("a",)), id="no logprobs"),
        pytest.param(
            {"prompt": "a", "presence_penalty": -2, "frequency_penalty": 0.5, "logit_bias": {"5": -100}},
            Ask(("a",), presence_penalty=-2.0, frequency_penalty=0.5, logit_bias=((5, -100.0),)),
            id="penalties and bias",
        ),
        pytest.param({"prompt": "a", "user": "u", "whatever": {"x": []}}, Ask(("a",), user="u"), id="unknown fields"),
        pytest.param({"prompt": "é\u2028😀"}, Ask(("é\u2028😀",)), id="unicode"),
    ],
)
def test_body_is_read(body: dict[str, object], ask: Ask) -> None:
    assert parse(**body) == ask


@pytest.mark.parametrize(
    ("body", "param", "sentence"),
    [
        pytest.param({}, "prompt", "a string, a list", id="no prompt"),
        pytest.param({"prompt": []}, "prompt", "list of token ids", id="empty list"),
        pytest.param({"prompt": [[]]}, "prompt", "list of token ids", id="empty ids"),
        pytest.param({"prompt": ["a", 1]}, "prompt", "list of strings", id="a mixture"),
        pytest.param({"prompt": [1, True]}, "prompt", "list of token ids", id="a bool is no token id"),
        pytest.param({"prompt": [1, -1]}, "prompt", "token ids from 0", id="negative token id"),
        pytest.param({"prompt": [2**40]}, "prompt", "token ids", id="huge token id"),
        pytest.param({"prompt": {"a": 1}}, "prompt", "a string", id="object"),
        pytest.param({"prompt": ["a"] * 65}, "prompt", "more than 64", id="too many prompts"),
        pytest.param({"prompt": ["a"] * 33, "n": 2}, "prompt", "more than 64", id="too many completions"),
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
        pytest.param({"prompt": "a", "n": 0}, "n", "from 1 to 64", id="n"),
        pytest.param({"prompt": "a", "n": 65}, "n", "from 1 to 64", id="a large n"),
        pytest.param({"prompt": "a", "n": 3, "best_of": 2}, "best_of", "no less than `n`", id="best_of below n"),
        pytest.param(
            {"prompt": "a", "best_of": 2, "stream": True}, "best_of", "can not be streamed", id="best, streamed"
        ),
        pytest.param({"prompt": [1], "echo": True}, "echo", "a text", id="echo of ids"),
        pytest.param({"prompt": "a", "logprobs": 21}, "logprobs", "0 to 20", id="logprobs"),
        pytest.param({"prompt": "a", "logprobs": True}, "logprobs", "0 to 20", id="true is no number"),
        pytest.param({"prompt": "a", "presence_penalty": 2.5}, "presence_penalty", "-2 to 2", id="presence"),
        pytest.param({"prompt": "a", "frequency_penalty": -3}, "frequency_penalty", "-2 to 2", id="frequency"),
        pytest.param({"prompt": "a", "logit_bias": {"x": 1}}, "logit_bias", "token ids", id="bias of a word"),
        pytest.param({"prompt": "a", "logit_bias": {"5": 101}}, "logit_bias", "-100 to 100", id="a large bias"),
        pytest.param({"prompt": "a", "user": 5}, "user", "a string", id="user"),
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
        pytest.param(Ask(("a",)), CompletionDefaults(), Sampling(), id="the protocol's"),
        pytest.param(
            Ask(("a",)),
            CompletionDefaults(max_tokens=64, temperature=0.2),
            Sampling(max_tokens=64, temperature=0.2),
            id="the deployment's",
        ),
        pytest.param(
            Ask(("a",), max_tokens=0, temperature=0.0, top_p=0.9, seed=1, stop=("x",), ignore_eos=True),
            CompletionDefaults(max_tokens=64, temperature=0.2),
            Sampling(max_tokens=0, temperature=0.0, top_p=0.9, seed=1, stop=("x",), ignore_eos=True),
            id="the client's, zero too",
        ),
    ],
)
def test_what_the_client_left_out(ask: Ask, defaults: CompletionDefaults, sampling: Sampling) -> None:
    assert to_requests(ask, defaults, "r", "")[0].sampling == sampling


def requests(ask: Ask) -> list[CompletionRequest]:
    return to_requests(ask, CompletionDefaults(), "r", "salt")


def test_request_carries_the_prompt_as_it_came() -> None:
    (request,) = requests(Ask(((5, 6),)))
    assert (request.id, request.prefix, request.suffix, request.prompt_token_ids) == ("r", None, None, (5, 6))
    (request,) = requests(Ask(("a",), suffix=""))
    assert (request.prefix, request.suffix, request.prompt_token_ids, request.cache_salt) == ("a", "", None, "salt")


def test_a_request_for_each_sample_of_each_prompt() -> None:
    found = requests(Ask(("a", "b"), n=2, best_of=2, seed=2**63 - 1))
    assert [(r.id, r.prefix, r.sampling.seed) for r in found] == [
        ("r-0", "a", 2**63 - 1),
        ("r-1", "a", -(2**63)),
        ("r-2", "b", 2**63 - 1),
        ("r-3", "b", -(2**63)),
    ]


def test_the_best_need_logprobs_and_an_echo_those_of_the_prompt() -> None:
    assert [r.sampling.logprobs for r in requests(Ask(("a",), best_of=2))] == [0, 0]
    assert requests(Ask(("a",), echo=True, logprobs=3))[0].sampling.prompt_logprobs == 3
    assert requests(Ask(("a",), logprobs=3))[0].sampling.prompt_logprobs is None


def test_whole_answer() -> None:
    body = json.loads(OpenAI().writer(Ask(("a",)), IDENTITY).whole([Answer(0, Piece("x = 1"), FINISHED)], USAGE))
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
    writer = OpenAI().writer(Ask(("a",), include_usage=include_usage), IDENTITY)
    head = {"id": "cmpl-1", "object": "text_completion", "created": 1700000000, "model": "aixcoder-7b"}
    null = {"usage": None} if include_usage else {}
    expected: list[object] = [
        head | {"choices": [{"index": 0, "text": "a\n\n", "logprobs": None, "finish_reason": None}]} | null,
        head | {"choices": [{"index": 0, "text": "", "logprobs": None, "finish_reason": "length"}]} | null,
    ]
    if include_usage:
        usage = json.loads(writer.whole([], USAGE))["usage"]
        expected.append(head | {"choices": [], "usage": usage})
    stream = writer.delta(0, Piece("a\n\n")) + writer.finish(0, FINISHED) + writer.end(USAGE)
    assert events(stream) == [*expected, "[DONE]"]


def token(text: str, logprob: float) -> TokenLogprobs:
    return TokenLogprobs(token_id=1, text=text, logprob=logprob, top=(LikelyToken(token_id=2, text="?", logprob=-0.5),))


def test_logprobs_have_offsets_in_the_text() -> None:
    writer = OpenAI().writer(Ask(("a",), logprobs=1), IDENTITY)
    first = events(writer.delta(0, Piece("ab", (token("a", -1.0), token("b", -2.0)))))[0]
    second = events(writer.delta(0, Piece("c", (token("c", -3.0),))))[0]
    assert isinstance(first, dict)
    assert isinstance(second, dict)
    assert first["choices"][0]["logprobs"] == {
        "tokens": ["a", "b"],
        "token_logprobs": [-1.0, -2.0],
        "top_logprobs": [{"?": -0.5}, {"?": -0.5}],
        "text_offset": [0, 1],
    }
    assert second["choices"][0]["logprobs"]["text_offset"] == [2]


def test_an_echo_stands_before_the_first_piece_only() -> None:
    writer = OpenAI().writer(Ask(("def ",), echo=True), IDENTITY)
    texts = [
        event["choices"][0]["text"]
        for event in events(writer.delta(0, Piece("f")) + writer.delta(0, Piece("()")))
        if isinstance(event, dict)
    ]
    assert texts == ["def f", "()"]


def test_an_echo_stands_alone_where_nothing_follows() -> None:
    writer = OpenAI().writer(Ask(("def ",), echo=True), IDENTITY)
    (event,) = events(writer.finish(0, Finished(finish_reason="stop", prompt_tokens=2, completion_tokens=1)))
    assert isinstance(event, dict)
    assert event["choices"][0]["text"] == "def "


def test_broken_stream_ends_in_an_error_and_is_not_done() -> None:
    (event,) = events(OpenAI().writer(Ask(("a",)), IDENTITY).broken(problems.replica_lost()))
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
