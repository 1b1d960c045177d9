import os
import signal
from collections.abc import Callable

import pytest
import torch

from aixcoder_serving.engine import watchdog
from aixcoder_serving.engine.interface import EngineClosed, LoadFailed
from aixcoder_serving.engine.rank_process import Told, told
from aixcoder_serving.engine.ranks import RankGroup, RanksDisagree, StepFailed
from aixcoder_serving.engine.shared_memory import loss_sentence
from aixcoder_serving.engine.watchdog import Heartbeat


def _raised(error: BaseException) -> BaseException:
    try:
        raise error
    except BaseException as caught:
        return caught


@pytest.mark.parametrize(
    ("error", "reason", "sentence"),
    [
        (ValueError("def secret(): pass"), "", "ValueError, in test_ranks.py line "),
        (KeyError(49151), "", "KeyError, in test_ranks.py line "),
        (MemoryError("secret"), "", "out of memory, in test_ranks.py line "),
        (torch.OutOfMemoryError("secret"), "", "out of memory, in test_ranks.py line "),
        (RuntimeError("[enforce fail] can't allocate memory: 7 bytes"), "", "out of memory, in test_ranks.py line "),
        (OSError(28, "No space left on device", "/secret"), "", "OSError: No space left on device, in test_ranks.py"),
        (RanksDisagree("ranks 0 and 1 differ"), "", "ranks 0 and 1 differ, in test_ranks.py line "),
        (EngineClosed("the device is lost"), "EngineClosed", "the device is lost"),
        (LoadFailed("OutOfMemory", "it needs 3 GiB\nand has 2"), "OutOfMemory", "it needs 3 GiB\nand has 2"),
    ],
)
def test_what_is_told_of_an_exception_holds_no_data(error: Exception, reason: str, sentence: str) -> None:
    found = told(_raised(error))
    assert found.reason == reason
    assert found.sentence.startswith(sentence)
    assert "secret" not in found.sentence
    assert "49151" not in found.sentence
    assert Told.parse(str(found)) == found


def test_an_exception_that_was_never_raised_has_no_place() -> None:
    assert told(ValueError()) == Told("", "ValueError")


@pytest.mark.parametrize(
    ("rank", "kind", "status", "sentence"),
    [
        (1, 1, 9, "rank 1 ended by signal 9 (SIGKILL)"),
        (31, 1, 11, "rank 31 ended by signal 11 (SIGSEGV)"),
        (2, 1, 0x80 | 6, "rank 2 ended by signal 6 (SIGABRT)"),
        (2, 1, 3 << 8, "rank 2 ended with exit code 3"),
        (2, 1, 0, "rank 2 ended with exit code 0"),
        (2, 1, 0xFFFF, "rank 2 has ended"),
        (0, 2, 0, "rank 0 has not moved for 1.5 s"),
    ],
)
def test_a_loss_in_words(rank: int, kind: int, status: int, sentence: str) -> None:
    assert loss_sentence((rank + 1) | kind << 8 | status << 16, 1.5) == sentence


def test_a_single_rank_needs_nobody() -> None:
    heartbeat = Heartbeat()
    group = RankGroup.fork(1, lambda _rank: None, heartbeat=heartbeat)
    assert group.run(b"", lambda: heartbeat.patient, patient=True) is True
    assert group.run(b"", lambda: heartbeat.patient) is False
    group.check()
    assert group.failure is None
    assert group.pids == ()
    group.close()
    heartbeat.close()


def _fail(error: Exception) -> None:
    raise error


@pytest.mark.parametrize(
    ("error", "type_", "message"),
    [
        (ZeroDivisionError("7"), StepFailed, "rank 0: ZeroDivisionError, in test_ranks.py"),
        (EngineClosed("the device is lost"), EngineClosed, "the device is lost"),
        (LoadFailed("ModelInvalid", "no such tensor"), LoadFailed, "no such tensor"),
    ],
)
def test_a_single_rank_fails_as_several_do(error: Exception, type_: type[Exception], message: str) -> None:
    group = RankGroup.fork(1, lambda _rank: None)
    with pytest.raises(type_, match=message) as caught:
        group.run(b"", lambda: _fail(error))
    assert type(caught.value) is type_
    assert group.run(b"", lambda: 5) == 5


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    now = [100.0]
    monkeypatch.setattr(watchdog, "monotonic", lambda: now[0])

    def pass_(seconds: float) -> None:
        now[0] += seconds

    return pass_


def test_a_heartbeats_age_is_the_silence_that_was_watched(clock: Callable[[float], None]) -> None:
    watcher = Heartbeat()
    beating = Heartbeat(os.dup(watcher.fd))
    clock(5)
    assert watcher.age() == 0, "nothing has begun to beat"
    beating.beat()
    clock(0.5)
    assert watcher.age() == 0
    for seen in (0.5, 1.0, 1.5):
        clock(0.5)
        assert watcher.age() == pytest.approx(seen)
    beating.beat()
    clock(0.5)
    assert watcher.age() == 0
    clock(60)
    assert watcher.age() == pytest.approx(0.6), "the watcher itself did not run for a minute"
    beating.patient = True
    clock(0.5)
    assert watcher.age() == 0
    beating.patient = False
    clock(0.5)
    assert watcher.age() == pytest.approx(0.5)
    for each in (beating, watcher):
        each.close()
        each.close()
        each.beat()


def test_a_child_whose_parent_is_gone_ends_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[tuple[int, int]] = []
    monkeypatch.setattr("aixcoder_serving.engine.watchdog.os.kill", lambda pid, number: sent.append((pid, number)))
    monkeypatch.setattr("aixcoder_serving.engine.watchdog.ctypes.CDLL", _Kernel)
    watchdog.die_with_parent(os.getppid())
    assert sent == []
    watchdog.die_with_parent(os.getppid() + 1)
    assert sent == [(os.getpid(), signal.SIGKILL)]


class _Kernel:
    def __init__(self, *_: object, **__: object) -> None: ...

    def prctl(self, option: int, *_: int) -> int:
        assert option == 1
        return 0
