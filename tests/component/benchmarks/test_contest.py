"""Engines that go wrong in a contest, and what is left of one that is ended."""

import signal
import subprocess
import sys
import time

import pytest

from benchmarks.contest import Contest
from benchmarks.peer import Peer, Running, processes
from benchmarks.peers.lines import Result
from tests.component.benchmarks.test_ours import OPTIONS

DRIVER = "tests/component/benchmarks/broken_driver.py"
GOOD = Peer("good", None, DRIVER, ("good",))


def run(running: Running) -> list[Result]:
    return running.run([], 5.0)


@pytest.mark.parametrize(
    ("how", "sentence"),
    [
        ("no json", "a line that is no JSON object: 'this is no JSON"),
        ("no object", "a line that is no JSON object: '5"),
        ("a wrong field", "what is no result"),
        ("an error", "out of paper"),
        ("gone", "the driver is gone"),
    ],
)
def test_an_engine_that_goes_wrong_is_told_and_the_others_go_on(how: str, sentence: str) -> None:
    told: list[dict[str, object]] = []
    contest = Contest("engine", "float32", told.append)
    broken = Peer("broken", None, DRIVER, (how,))
    turns: dict[str, list[Result] | None] = {}
    try:
        for peer in (broken, GOOD):
            contest.load(peer, OPTIONS)
        for peer in (broken, GOOD):
            turns[peer.name] = contest.turn(peer, run)
    finally:
        contest.end()
    assert turns == {"broken": None, "good": []}
    (line,) = told
    assert line["engine"] == "broken"
    assert sentence in str(line["error"])


def test_sigterm_leaves_nothing() -> None:
    """The engines of a contest wait stopped: nobody else would end them."""
    program = (
        "import time\n"
        "from benchmarks.contest import Contest, end_on_sigterm\n"
        "from tests.component.benchmarks.test_contest import GOOD, OPTIONS\n"
        "end_on_sigterm()\n"
        "contest = Contest('engine', 'float32', print)\n"
        "try:\n"
        "    contest.load(GOOD, OPTIONS)\n"
        "    print('loaded', flush=True)\n"
        "    time.sleep(600)\n"
        "finally:\n"
        "    contest.end()\n"
    )

    def drivers(parent: int) -> list[int]:
        return [process.pid for process, its_parent in processes().items() if its_parent == parent]

    with subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as harness:
        assert harness.stdout is not None
        assert harness.stdout.readline() == "loaded\n"
        (pid,) = drivers(harness.pid)
        harness.send_signal(signal.SIGTERM)
        harness.wait(60)
    deadline = time.monotonic() + 10
    while any(process.pid == pid for process in processes()) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert all(process.pid != pid for process in processes())
