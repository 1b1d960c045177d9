"""Traces, schedules, the measures of a run and its peers."""

from pathlib import Path

import numpy as np
import pytest

from benchmarks.scaling import peers
from benchmarks.scaling.clairvoyant import follow, schedule
from benchmarks.scaling.files import families
from benchmarks.scaling.fleet import Counts
from benchmarks.scaling.ours import ours
from benchmarks.scaling.plot import draw
from benchmarks.scaling.run import Policy, Seen, run, worst
from benchmarks.scaling.traces import Trace, per_second, read, work_s

AZURE = """TIMESTAMP,ContextTokens,GeneratedTokens
2023-11-16 18:17:04.0000000,1200,10
2023-11-16 18:17:03.5000000,2400,20
"""


@pytest.fixture
def azure(tmp_path: Path) -> Path:
    file = tmp_path / "azure2023_code.csv"
    file.write_text(AZURE)
    return file


@pytest.fixture
def chunks(tmp_path: Path, azure: Path) -> list[str]:
    """Two clients: one of 100 requests in a window of each day once scaled, one that is asleep."""
    folder = tmp_path / "servegen"
    folder.mkdir()
    rows = {"0": "0,3.3333,1,Gamma,1,0.3\n86400,3.3333,1,Weibull,1,0.3\n", "1": "0,0,0,,0,0\n600,0,0,,0,0\n"}
    for number, text in rows.items():
        (folder / f"m-tiny.chunk-{number}-trace.csv").write_text(text)
    return [str(file) for file in folder.iterdir()]


def test_azure_is_doubled(azure: Path) -> None:
    (family,) = families([str(azure)])
    trace = read(family, None)
    assert (trace.name, trace.day, len(trace.at)) == ("azure2023_code", None, 4)
    assert list(trace.at) == sorted(trace.at)
    assert trace.at[0] == 0.0
    assert set(trace.prompt.tolist()) <= {1200, 2400}


def test_servegen_days(chunks: list[str]) -> None:
    (family,) = families(chunks)
    assert family.name == "m-tiny"
    assert family.days() == [0, 1]
    first, second = read(family, 0), read(family, 1)
    for trace in (first, second):
        assert 60 < len(trace.at) < 140
        assert 0 <= trace.at[0] <= trace.at[-1] < 600
    again = read(families(list(reversed(chunks)))[0], 0)
    assert np.array_equal(first.at, again.at)
    assert np.array_equal(first.prompt, again.prompt)
    assert not np.array_equal(first.at[:50], second.at[:50])


def test_cancels(chunks: list[str]) -> None:
    trace = read(families(chunks)[0], 0).cancelled(0.7)
    after = trace.leaves - trace.at
    left = np.isfinite(after)
    assert 0.5 < left.mean() < 0.9
    assert after[left].min() >= 0.1
    assert after[left].max() <= 0.4


def small(leaves: float) -> Trace:
    one = np.array([0.0])
    return Trace("small", None, one, np.array([1200], np.int32), np.array([100], np.int32), np.array([leaves]))


@pytest.mark.parametrize(
    ("leaves", "seconds"),
    [
        pytest.param(np.inf, 0.1 + 100 * 0.0003, id="all of it"),
        pytest.param(0.04, 0.04, id="a part of its prompt"),
        pytest.param(0.1 + 0.0113 * 10.5, 0.1 + 10 * 0.0003, id="its prompt and ten tokens"),
    ],
)
def test_work(leaves: float, seconds: float) -> None:
    assert work_s(small(leaves), 12_000.0, 0.011, 0.0003).tolist() == pytest.approx([seconds])


def test_per_second() -> None:
    at = np.array([0.1, 0.9, 2.0])
    assert per_second(at, None, 3).tolist() == [2, 0, 1]
    assert per_second(at, np.array([0.5, 0.25, 1.0]), 3).tolist() == [0.75, 0, 1]


def test_a_schedule_asks_a_cold_start_early_and_keeps_what_it_needs_again() -> None:
    work = np.array([0, 0, 0, 0, 2.0, 0, 0, 0, 0, 0, 3.0, 0])
    assert schedule(work, 2, 1, 1.0, 0.0).tolist() == [1, 1, 2, 2, 2, 1, 1, 1, 3, 3, 3, 1]
    assert schedule(work, 2, 1, 0.5, 0.0).tolist() == [1, 1, 4, 4, 4, 1, 1, 1, 6, 6, 6, 1]
    assert schedule(np.full(3, 4.0), 0, 1, 1.0, 0.5).tolist() == [5, 5, 5]
    assert schedule(np.array([3.0, 0, 0]), 0, 3, 1.0, 0.0).tolist() == [2, 1, 1]


def test_the_worst_time() -> None:
    """Ten seconds with one of ten late are good, with two of ten bad."""
    at = np.repeat(np.arange(0, 60, 10.0), 10)
    late = np.zeros(60, bool)
    late[[0, 10, 11, 20, 21, 22, 40, 41]] = True
    assert worst(at, late) == 20.0


def test_a_run() -> None:
    """A request a second of 0.1 s on one replica; from 400 s on three at once, of which the third waits for 0.2 s."""
    at = np.concatenate([np.arange(0, 400.0), np.repeat(np.arange(400, 600.0), 3), [620.0]])
    trace = Trace(
        "hand", None, at, np.full(len(at), 1201, np.int32), np.zeros(len(at), np.int32), np.full(len(at), np.inf)
    )
    outcome = run(trace, follow(np.array([1] * 500 + [2])), 30.0)
    late = 130
    assert outcome.slo == pytest.approx(1 - late / 700)
    assert outcome.shed == 0
    assert outcome.gpu_s == pytest.approx(320 + 120)
    assert outcome.changes_per_day == pytest.approx(86_400 / 320)
    assert outcome.worst_s == 130
    assert outcome.targets.tolist() == [1] * 500 + [2] * 121


def asked(policy: Policy, queued: float, running: float, seconds: int, target: int = 2, start: int = 0) -> int:
    """The target after so many seconds in which nothing else changes, every wish fulfilled at once."""
    for second in range(start, start + seconds):
        counts = Counts(*[0.0] * 14)._replace(queued=queued, running=running, ready=float(target))
        target = policy(Seen(second, counts, counts, target))
    return target


def test_ray_serve() -> None:
    policy = peers.ray_serve()
    assert asked(policy, 0, 20, 30) == 2
    assert asked(policy, 0, 20, 30, start=30) == 10
    assert asked(policy, 0, 2, 590, target=10, start=60) == 10
    assert asked(policy, 0, 2, 60, target=10, start=650) == 1


def test_knative() -> None:
    assert asked(peers.knative(), 0, 11, 61) == 2
    assert asked(peers.knative(), 0, 56, 3) == 10
    assert asked(peers.knative(), 0, 0, 1, target=8) == 4


def test_hpa() -> None:
    policy = peers.hpa_queue()
    assert asked(policy, 30, 0, 31) == 6
    assert asked(policy, 0, 0, 280, target=6, start=31) == 6
    assert asked(policy, 0, 0, 60, target=6, start=311) == 0


def test_llm_d() -> None:
    assert asked(peers.llm_d(), 0, 16, 61, target=2) == 3
    assert asked(peers.llm_d(), 0, 0, 1, target=2) == 1
    assert asked(peers.llm_d(), 0, 10, 61, target=2) == 2


def test_aibrix() -> None:
    assert asked(peers.aibrix(), 0, 20, 1, target=2) == 4
    assert asked(peers.aibrix(), 0, 8, 100, target=2) == 2
    assert asked(peers.aibrix(), 0, 0, 100, target=8) == 4


def test_ours_is_asked_as_the_operator_asks_it() -> None:
    policy = ours(30.0)
    counts = Counts(*[0.0] * 14)
    target = 1
    for second in range(60):
        before = counts
        counts = counts._replace(arrivals=50.0 * second, completed=50.0 * second, tokens_prefilled=120_000.0 * second)
        target = policy(Seen(second, counts, before, target))
    assert target == pytest.approx(11, abs=1)


def test_a_picture(tmp_path: Path) -> None:
    file = tmp_path / "day.svg"
    draw(file, "a day", {"load": np.zeros(7200), "wish": np.full(7200, 12.0)})
    text = file.read_text()
    assert text.startswith("<svg")
    assert text.count("<path") == 2
    assert ">15</text>" in text
