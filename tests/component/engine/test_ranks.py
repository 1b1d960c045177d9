"""Rank processes: their sums, their commands, and what happens when one of them fails, dies or stops moving.

Where a bar is a time, the guard is at most twice that, for others use the same cores.
"""

import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from aixcoder_serving.engine.cpu import build, library

pytestmark = pytest.mark.timeout(120)

REPOSITORY = Path(__file__).parents[3]
NOTICED = 2 * 2.0

Play = Callable[..., Any]


class Stage:
    """A process with one thread that forks another for each part it is told to play."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None

    def play(self, name: str, **arguments: Any) -> Any:
        process = self._started()
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps([name, arguments]) + "\n")
        process.stdin.flush()
        if not select.select([process.stdout], [], [], 60)[0]:
            self.close()
            pytest.fail(f"{name} hangs")
        answer = json.loads(process.stdout.readline())
        assert "raised" not in answer, answer["raised"]
        return answer["returned"]

    def close(self) -> None:
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.communicate()
            self._process = None

    def _started(self) -> subprocess.Popen[str]:
        if self._process is None:
            path = os.pathsep.join([str(REPOSITORY), str(REPOSITORY / "serving")])
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.component.engine.rank_programs"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                env={**os.environ, "OPENBLAS_NUM_THREADS": "1", "PYTHONPATH": path},
                start_new_session=True,
            )
        return self._process


@pytest.fixture(scope="module")
def play() -> Iterator[Play]:
    try:
        library.load()
    except library.LibraryMissing:
        build.build()
    stage = Stage()
    yield stage.play
    stage.close()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("size", [1, 2, 4, 8])
def test_a_sum_is_that_of_torch_in_the_order_of_ranks(play: Play, size: int, dtype: str) -> None:
    play("sums", size=size, dtype=dtype)


@pytest.mark.parametrize("size", [2, 3])
def test_bfloat16_is_rounded_as_torch_does(play: Play, size: int) -> None:
    play("special_numbers", size=size)


@pytest.mark.parametrize("size", [1, 2, 5])
def test_a_gather_holds_every_ranks_tensor(play: Play, size: int) -> None:
    play("gathers", size=size)


@pytest.mark.parametrize("size", [2, 4])
def test_a_thousand_mixed_calls(play: Play, size: int) -> None:
    play("mixed", size=size, calls=1000)


@pytest.mark.parametrize("size", [2, 5])
def test_commands_of_all_sizes_arrive_whole(play: Play, size: int) -> None:
    refused = play("commands", size=size)
    assert len(refused) == 1
    assert "67108864 is the most" in refused[0]


@pytest.mark.parametrize("size", [2, 3, 8])
def test_after_a_rank_failed_in_a_step_the_next_one_is_right(play: Play, size: int) -> None:
    assert play("failing", size=size, steps=30) == {"wrong": 0, "texts": ["ValueError, in rank_programs.py"]}


@pytest.mark.parametrize("who", [0, 1])
@pytest.mark.parametrize(
    ("what", "told"),
    [
        ("load", ["LoadFailed", "tensor x has another shape", "ModelInvalid"]),
        ("device", ["EngineClosed", "the device is lost: it fell off", ""]),
        ("memory", ["StepFailed", "rank {who}: out of memory", ""]),
    ],
)
def test_rank_0_raises_what_a_rank_raised(play: Play, what: str, told: list[str], who: int) -> None:
    assert play("raised", what=what, who=who) == [each.format(who=who) for each in told]


def test_an_interrupt_of_rank_0_ends_the_command_only(play: Play) -> None:
    assert play("raised", what="interrupt", who=0) == ["KeyboardInterrupt", "", ""]


@pytest.mark.parametrize("how", ["shape", "kind", "missing", "extra"])
def test_ranks_that_make_different_calls_fail_together(play: Play, how: str) -> None:
    told = play("disagreeing", how=how)
    assert len(told) == 3
    assert all("made different collective calls" in each or how == "missing" for each in told)


@pytest.mark.parametrize(
    ("how", "sentence"),
    [("SIGKILL", "rank {who} ended by signal 9 (SIGKILL)"), ("SIGSTOP", "rank {who} has not moved for 1.5 s")],
)
@pytest.mark.parametrize(
    ("size", "who", "where"), [(2, 1, "sum"), (4, 2, "sum"), (4, 3, "work"), (2, 1, "idle"), (4, 2, "idle")]
)
def test_a_lost_rank_is_noticed_by_all(play: Play, size: int, who: int, where: str, how: str, sentence: str) -> None:
    found = play("lost", size=size, where=where, how=how, who=who)
    assert found["told"] == found["again"] == sentence.format(who=who)
    assert found["noticed"] < NOTICED
    assert found["others"] is not None
    assert found["others"] < NOTICED
    assert found["nobody_left"]


def test_a_process_that_lost_its_ranks_starts_others(play: Play) -> None:
    """Nothing of the lost group is in the way of another one. What it counted cannot be: each group maps new memory."""
    assert play("restarted", size=3) == [6.0, 6.0, 6.0]


def test_a_patient_command_may_be_silent_for_long(play: Play) -> None:
    assert play("patient") == {
        "slow load": 6.0,
        "slow load of rank 0": 6.0,
        "slow step": "rank 1 has not moved for 0.4 s",
        "dead load": "rank 1 ended with exit code 3",
    }


def test_signals_to_the_whole_process_group_end_no_rank(play: Play) -> None:
    assert play("signals") == 6.0


def test_nothing_is_left_behind(play: Play) -> None:
    found = play("closed")
    assert found.pop("seconds") < 2
    assert found == {"states": ["gone"], "shared": ["/dev/zero"], "descriptors": 0}


def test_a_rank_that_does_not_come_back_is_killed(play: Play) -> None:
    found = play("close_busy")
    assert found["states"] == ["gone"]
    assert found["seconds"] < 2 * 2.0


def test_no_rank_outlives_rank_0(play: Play) -> None:
    assert play("rank_0_killed") == {"ended": True}


def test_a_frozen_rank_0_is_seen_from_outside_and_by_the_others(play: Play) -> None:
    found = play("rank_0_frozen")
    assert found["told"] == "rank 0 has not moved for 1.5 s"
    assert found["seen"] < NOTICED
    assert found["noticed"] is not None
    assert found["noticed"] < NOTICED


def test_a_process_with_threads_is_not_forked(play: Play) -> None:
    (told,) = play("threads")
    assert "this process has 2" in told
    assert "OPENBLAS_NUM_THREADS=1" in told


def test_other_ranks_do_not_hold_rank_0s_socket(play: Play) -> None:
    assert play("not_inherited") == ""


def test_waiting_for_a_command_costs_nothing(play: Play) -> None:
    found = play("idle")
    assert found["others"] <= 0.05
    assert found["rank 0"] <= 0.05


def test_latencies_of_two_ranks(play: Play) -> None:
    found = play("latencies", size=2)
    assert found["(1, 512)"] < 5 * 10
    assert found["(8, 4096)"] < 5 * 60
    assert found["command"] < 5 * 20
