import random

import pytest

from benchmarks.checkpoint import TINY
from benchmarks.contest import rotated
from benchmarks.engine import ENGINES, measure, prompts, read_arguments, weights_and_cache_mb
from benchmarks.peer import PeerFailed
from benchmarks.peers.lines import Load, Result
from benchmarks.summary import lower_quartile, percentile, significant, summarise


def ended(*times: float, counts: tuple[int, ...] = (), submitted: float = 0.0) -> Result:
    counts = counts or (1,) * len(times)
    return Result(0, "length", submitted, times[-1], times, counts, (7,) * sum(counts))


@pytest.mark.parametrize(
    ("name", "results", "tokens", "expected"),
    [
        ("one request", [ended(0.5, 0.6, 0.7, 0.8)], 4, (5.0, 0.5, 100.0)),
        ("from its own submission", [ended(2.0, 3.0, submitted=1.0)], 2, (1.0, 1.0, 1000.0)),
        ("until the last token of all", [ended(0.5, 1.0), ended(1.0, 2.0)], 2, (2.0, 0.75, 750.0)),
        ("several tokens at once", [ended(0.5, 0.75, 1.0, counts=(1, 2, 2))], 5, (5.0, 0.5, 125.0)),
    ],
)
def test_what_a_run_says(name: str, results: list[Result], tokens: int, expected: tuple[float, float, float]) -> None:
    found = measure(results, tokens)
    assert (found["tokens_per_s"], found["ttft_s"], found["itl_ms"]) == pytest.approx(expected), name


def test_tokens_that_all_come_at_once_have_no_time_between_them() -> None:
    assert set(measure([ended(0.5, counts=(3,))], 3)) == {"tokens_per_s", "ttft_s"}


@pytest.mark.parametrize(
    ("result", "sentence"),
    [
        (Result(0, "failed", 0.0, 1.0, error="out of memory"), "ended as failed: out of memory"),
        (Result(0, "cancelled", 0.0, 1.0), "ended as cancelled: it has 0 of 4 tokens"),
        (ended(0.5, 0.6), "it has 2 of 4 tokens"),
    ],
)
def test_a_run_with_an_incomplete_request_does_not_count(result: Result, sentence: str) -> None:
    with pytest.raises(PeerFailed, match=sentence):
        measure([ended(0.1, 0.2, 0.3, 0.4), result], 4)


def test_prompts_share_no_prefix() -> None:
    requests = prompts(32, 12, 5, random.Random(3))
    assert {len(request.prompt) for request in requests} == {12}
    assert len({request.prompt[0] for request in requests}) == 32
    assert {(request.max_tokens, request.at, request.cancel_at) for request in requests} == {(5, 0.0, None)}
    assert [request.id for request in requests] == list(range(32))


def test_each_engine_comes_first_in_turn() -> None:
    firsts = [rotated(ENGINES, repeat)[0] for repeat in range(len(ENGINES))]
    assert firsts == list(ENGINES)
    assert sorted(rotated(ENGINES, 9), key=repr) == sorted(ENGINES, key=repr)


def test_arguments_choose_engines() -> None:
    found = read_arguments(["--engines", "ours,vllm", "--concurrency", "8,1"], {"DTYPES": "bfloat16"})
    assert [(peer.name, peer.tensor_parallel) for peer in found.peers] == [
        ("ours", 1),
        ("vllm", 1),
        ("ours", 2),
        ("vllm", 2),
    ]
    assert (found.concurrency, found.dtypes, found.repeats) == ([1, 8], ["bfloat16"], 7)


@pytest.mark.parametrize(
    ("words", "environment", "sentence"),
    [
        (["--engines", "ours,sglang"], {}, "'sglang' is none of ours, transformers-generate"),
        ([], {"DTYPES": "float64"}, "'float64' is none of float32, bfloat16"),
        (["--concurrency", "1;8"], {}, "'1;8' is no list of numbers"),
        (["--concurrency", "0"], {}, "at least 1"),
        (["--repeats", "0"], {}, "at least 1"),
        (["--engines", "llama.cpp", "--tensor-parallel", "2"], {}, "none of these engines is measured"),
    ],
)
def test_a_wrong_argument_is_told(
    words: list[str], environment: dict[str, str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        read_arguments(words, {"DTYPES": "float32"} | environment)
    assert sentence in capsys.readouterr().err


@pytest.mark.parametrize(
    ("values", "expected"), [([4.0], 4.0), ([1.0, 2.0], 1.25), ([7.0, 1.0, 3.0, 2.0, 6.0, 4.0, 5.0], 2.5)]
)
def test_lower_quartile(values: list[float], expected: float) -> None:
    assert lower_quartile(values) == expected


@pytest.mark.parametrize(("percent", "expected"), [(0, 1), (50, 10), (95, 19), (96, 20), (100, 20)])
def test_percentile_is_one_of_the_values(percent: float, expected: int) -> None:
    assert percentile([float(n) for n in range(20, 0, -1)], percent) == expected


def test_no_values_have_no_percentile() -> None:
    with pytest.raises(ValueError, match="no values"):
        percentile([], 95)


def test_a_summary_has_the_lower_quartile_beside_the_median() -> None:
    repeats = [{"tokens_per_s": value} for value in (3.0, 1.0, 2.0, 5.0, 4.0)]
    assert summarise(repeats) == {"tokens_per_s": 3.0, "tokens_per_s_q1": 2.0}


@pytest.mark.parametrize(
    ("value", "expected"), [(123456.0, 123500.0), (0.00123456, 0.001235), (12.0, 12.0), (0.0, 0.0)]
)
def test_digits(value: float, expected: float) -> None:
    assert significant(value, 4) == expected


def test_weights_and_cache_by_arithmetic() -> None:
    one, two = (
        weights_and_cache_mb(Load(str(TINY), "bfloat16", ranks, 2, 1, 64, 1000, 4096, False, False)) for ranks in (1, 2)
    )
    file = (TINY / "model.safetensors").stat().st_size / 1e6
    assert one == pytest.approx(file + 4.096, rel=0.01)
    assert one < two < one * 1.01, "each rank has all norms"
