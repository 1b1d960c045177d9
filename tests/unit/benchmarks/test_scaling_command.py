"""The command line of the scaling benchmark: what it takes, prints and refuses."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from benchmarks.scaling.__main__ import main
from benchmarks.scaling.files import families
from benchmarks.scaling.measure import Line
from benchmarks.scaling.report import Job, table
from benchmarks.scaling.traces import read

KEYS = ["trace", "day", "policy", "cold_start_s", "slo", "shed", "cost_ratio", "changes_per_day", "worst_s"]
AZURE = "TIMESTAMP,ContextTokens,GeneratedTokens\n" + "".join(
    f"2023-11-16 18:{minute:02}:03.9799600,{1000 + minute},10\n" for minute in range(15)
)
Play = Callable[..., list[dict[str, Any]]]


def windows(day: int, rate: float = 4.0) -> str:
    """Two windows of a day, at a twentieth of the rate in requests per second."""
    return "".join(f"{day * 86400 + start},{rate},1,Gamma,1,0.3\n" for start in (0, 600))


@pytest.fixture
def azure(tmp_path: Path) -> str:
    file = tmp_path / "azure2023_code.csv"
    file.write_text(AZURE)
    return str(file)


@pytest.fixture
def clients(tmp_path: Path) -> list[str]:
    """Three of a family, of two days, the third without a request."""
    texts = [windows(0) + windows(1), windows(0, 8) + windows(1, 2), "0,0,0,,0,0\n86400,0,0,,0,0\n"]
    files = [tmp_path / f"m-tiny.chunk-{number}-trace.csv" for number in range(len(texts))]
    for file, text in zip(files, texts, strict=True):
        file.write_text(text)
    return [str(file) for file in files]


@pytest.fixture
def play(capsys: pytest.CaptureFixture[str]) -> Play:
    def lines(files: list[str], *more: str) -> list[dict[str, Any]]:
        arguments = [word for file in files for word in ("--trace", file)]
        assert main([*arguments, "--cold-start", "30", "--json", *more]) == 0
        return [json.loads(line) for line in capsys.readouterr().out.splitlines()]

    return lines


def test_a_line_for_each_policy_and_day(play: Play, clients: list[str], azure: str) -> None:
    lines = play([*clients, azure], "--policy", "ours", "--policy", "clairvoyant")
    assert [(line["trace"], line["day"], line["policy"]) for line in lines] == [
        ("m-tiny", 0, "ours"),
        ("m-tiny", 0, "clairvoyant"),
        ("m-tiny", 1, "ours"),
        ("m-tiny", 1, "clairvoyant"),
        ("azure2023_code", None, "ours"),
        ("azure2023_code", None, "clairvoyant"),
    ]
    assert all(list(line) == KEYS for line in lines)
    assert [line["cost_ratio"] for line in lines[1::2]] == [1, 1, 1]
    assert all(0.9 < line["slo"] <= 1 and line["shed"] == 0 for line in lines)


def test_all_policies_where_none_is_named(play: Play, azure: str) -> None:
    assert len(play([azure])) == 9


def test_only_the_days_that_are_wanted(play: Play, clients: list[str]) -> None:
    assert [line["day"] for line in play(clients, "--policy", "ours", "--day", "1", "7")] == [1]


def test_the_order_of_the_files_and_a_file_twice_change_nothing(play: Play, clients: list[str]) -> None:
    usual = play(clients, "--policy", "ours")
    assert play([*reversed(clients), clients[0]], "--policy", "ours") == usual


def test_with_cancels(play: Play, clients: list[str]) -> None:
    usual, cancelled = (play(clients, "--policy", "ours", *more) for more in ([], ["--cancel", "0.7"]))
    assert [list(line) for line in cancelled] == [list(line) for line in usual]
    assert [line["day"] for line in cancelled] == [0, 1]


def test_days_in_folders_of_their_own_are_one_trace(tmp_path: Path, clients: list[str]) -> None:
    """Named as ServeGen names them: the folder is the family's name. What is in both counts once."""
    files = []
    for folder, text in (("a", windows(0)), ("b", windows(0) + windows(3))):
        file = tmp_path / folder / "m-other" / "chunk-7-trace.csv"
        file.parent.mkdir(parents=True)
        file.write_text(text)
        files.append(str(file))
    (family,) = families(files)
    assert (family.name, family.days(), len(family.clients)) == ("m-other", [0, 3], 1)
    assert len(read(family, 0).at) == pytest.approx(240, rel=0.3)


def test_two_files_of_azures_are_two_traces(tmp_path: Path, azure: str) -> None:
    other = tmp_path / "azure2024_code.csv"
    other.write_text(AZURE.replace(".9799600", "+00:00"))
    assert [family.name for family in families([azure, str(other)])] == ["azure2023_code", "azure2024_code"]
    assert [len(read(family, None).at) for family in families([azure, str(other)])] == [30, 30]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        pytest.param(None, "can not be read", id="not there"),
        pytest.param("", "is no trace", id="empty"),
        pytest.param("a,b\n1,2\n3,4\n", "is no trace", id="another table"),
        pytest.param("\0\1\2", "is no trace", id="not text"),
        pytest.param(AZURE + "yesterday,5,5\n", "line 17: no request", id="a line of Azure's that is none"),
        pytest.param(windows(0) + "1200,nan,1,Gamma,1,0.3\n", "line 3: no window", id="a rate that is no number"),
        pytest.param("0,0,0,,0,0\n", "long enough", id="no request at all"),
    ],
)
def test_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str | None, told: str) -> None:
    file = tmp_path / "some.csv"
    if text is not None:
        file.write_text(text)
    assert main(["--trace", str(file), "--cold-start", "30", "--policy", "ours"]) == 2
    printed = capsys.readouterr()
    assert told in printed.err
    assert printed.out == ""


def test_days_that_are_not_there_are_refused(capsys: pytest.CaptureFixture[str], clients: list[str]) -> None:
    assert main(["--trace", *clients, "--day", "5", "--cold-start", "30"]) == 2
    assert "none of these days is in a trace: 5. m-tiny has 0, 1" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        pytest.param(["--policy", "mine"], "'ours'", id="a policy that there is not: all are named"),
        pytest.param(["--cancel", "70"], "no share", id="more than all cancelled"),
        pytest.param(["--cold-start", "-1"], "no number of seconds", id="a start in the past"),
    ],
)
def test_wrong_arguments(capsys: pytest.CaptureFixture[str], azure: str, arguments: list[str], told: str) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["--trace", azure, "--cold-start", "30", *arguments])
    assert told in capsys.readouterr().err


def test_tokens_are_drawn_from_azures_code_trace(clients: list[str]) -> None:
    (family,) = families(clients)
    trace = read(family, 0)
    assert trace.prompt.max() <= 7437
    assert trace.prompt.mean() == pytest.approx(2048, rel=0.15)
    assert trace.output.mean() == pytest.approx(28, rel=0.3)


def test_the_table(clients: list[str]) -> None:
    """A share is rounded down: 98.997 % is a miss."""
    (family,) = families(clients)

    def line(policy: str, cold_start_s: float, slo: float, cost: float | None) -> Line:
        return Line(
            trace="m-tiny",
            day=0,
            policy=policy,
            cold_start_s=cold_start_s,
            slo=slo,
            shed=0.0,
            cost_ratio=cost,
            changes_per_day=1.0,
            worst_s=0.0,
        )

    stays, typing = Job(family, 0, 0.0, 30.0, None), Job(family, 0, 0.7, 30.0, None)
    lines = [
        (stays, line("ours", 30.0, 0.98997, 1.0)),
        (stays, line("ours", 120.0, 0.9943, None)),
        (typing, line("ours", 30.0, 1.0, 1.5)),
    ]
    assert table(lines).splitlines() == [
        "|  | m-tiny day 0, D=30 | m-tiny day 0, D=120 |",
        "| --- | --- | --- |",
        "| ours | 98.99 @ 1.000 | 99.43 @ no clairvoyant |",
        "| ours, 70% cancelled | 100.00 @ 1.500 |  |",
    ]
