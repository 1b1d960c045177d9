"""A short trace on replicas that were measured."""

import json
from pathlib import Path

import pytest

from benchmarks.scaling.files import UnusableTrace
from benchmarks.scaling.fleet import Service
from benchmarks.scaling.predict import main, predict, read

REPLICA = Service(prefill_tokens_per_s=1000.0, token_s=0.01, token_s_per_request=0.0, slots=4)
COLD_START_S = 20.0


def burst(seconds: int, quiet: int, busy: int) -> str:
    """A heading; requests of 200 tokens, 0.2 s of a replica: two a second, eight from `quiet` for `busy` seconds."""
    lines = ["second,prompt,output"]
    for second in range(seconds):
        many = 8 if quiet <= second < quiet + busy else 2
        lines += [f"{second + number / many},200,5" for number in range(many)]
    return "\n".join([*lines, ""])


def test_a_burst(tmp_path: Path) -> None:
    """One replica, two at once with the burst: eight a second are 1.6 of them. Paid for from when it is asked for."""
    file = tmp_path / "short.csv"
    file.write_text(burst(300, 100, 30))
    outcome = predict(read(file), REPLICA, COLD_START_S, most=2, end_s=300.0)
    assert set(outcome.targets.tolist()) == {1, 2}
    first = int((outcome.targets == 2).argmax())
    assert first in {101, 102}
    doubled = int((outcome.targets == 2).sum())
    assert outcome.gpu_s == pytest.approx(300 + doubled, abs=2)


def test_slots_are_those_of_the_replica(tmp_path: Path) -> None:
    """Eight at once, with four slots: the others wait until the first have ended, a prompt and 60 tokens."""
    file = tmp_path / "short.csv"
    file.write_text("\n".join(["0,1,60"] * 8))
    outcomes = [predict(read(file), Service(slots=slots), COLD_START_S, most=1, end_s=60.0) for slots in (4, 8)]
    assert [outcome.slo for outcome in outcomes] == [0.5, 1.0]


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "short.csv"
    file.write_text(burst(300, 100, 30))
    speeds = ["--prefill-tokens-per-s", "1000", "--token-s", "0.01", "--slots", "4", "--cold-start", "20"]
    monkeypatch.setattr("sys.argv", ["predict", "--trace", str(file), *speeds, "--most", "2", "--end", "300"])
    assert main() == 0
    line = json.loads(capsys.readouterr().out)
    assert list(line) == ["gpu_s", "slo", "shed", "changes", "wishes"]
    assert line["wishes"][0] == [0, 1]
    assert line["changes"] == len(line["wishes"]) - 1 >= 1


@pytest.mark.parametrize(
    ("text", "told"),
    [
        pytest.param(None, "can not be read", id="not there"),
        pytest.param("second,prompt,output\n", "holds no request", id="a heading alone"),
        pytest.param("0,200,5\nlater,200,5\n", "line 2", id="a line that is none"),
    ],
)
def test_refused(tmp_path: Path, text: str | None, told: str) -> None:
    file = tmp_path / "short.csv"
    if text is not None:
        file.write_text(text)
    with pytest.raises(UnusableTrace, match=told):
        read(file)
