"""What `test_ranks.py` has done by real rank processes. Each function is rank 0's part; what it returns is compared.

Runs as a program of one thread, which a test process is not: it forks a process for each function it is told to run.
"""

import contextlib
import hashlib
import json
import os
import pickle
import random
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from aixcoder_serving.engine.interface import EngineClosed, LoadFailed
from aixcoder_serving.engine.ops import Collectives
from aixcoder_serving.engine.ranks import Rank, RankGroup, RankLost, StepFailed
from aixcoder_serving.engine.watchdog import Heartbeat

SHAPES = [(0,), (1,), (3, 5), (1, 512), (8, 4096), (333, 1001), (3, 262144 + 17)]  # the last ones: more than one piece
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}

Work = Callable[[Collectives, Any], Any]


class Group:
    """A group in which every rank does `work(collectives, command)`."""

    def __init__(self, size: int, work: Work, **options: Any) -> None:
        def main(rank: Rank) -> None:
            rank.serve(lambda payload: work(rank.collectives, pickle.loads(payload)))

        self._work = work
        self.ranks = RankGroup.fork(size, main, **options)

    def run(self, command: Any = None, *, patient: bool = False) -> Any:
        payload = pickle.dumps(command)
        return self.ranks.run(payload, lambda: self._work(self.ranks.collectives, command), patient=patient)


@contextlib.contextmanager
def group(size: int, work: Work, **options: Any) -> Iterator[Group]:
    made = Group(size, work, **options)
    try:
        yield made
    finally:
        made.ranks.close()


def part(seed: int, rank: int, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed * 100 + rank)).to(dtype)


def added(parts: list[Tensor]) -> Tensor:
    """What torch makes of it: in float32, in the order of ranks, rounded once."""
    total = parts[0].float()
    for each in parts[1:]:
        total = total + each.float()
    return total.to(parts[0].dtype)


def one_sum(collectives: Collectives, _command: Any = None) -> float:
    x = torch.full((7,), float(collectives.rank + 1))
    return float(collectives.all_reduce(x)[3])


def state(pid: int) -> str:
    """A process's state by /proc; "gone" where it has none."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return "gone"


def all_end(pids: tuple[int, ...], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while not (ended := all(state(pid) in "Zgone" for pid in pids)) and time.monotonic() < deadline:
        time.sleep(0.01)
    return ended


def sums(size: int, dtype: str) -> None:
    def work(collectives: Collectives, _command: Any) -> None:
        for seed, shape in enumerate(SHAPES):
            parts = [part(seed, rank, shape, DTYPES[dtype]) for rank in range(size)]
            x = parts[collectives.rank].clone()
            got = collectives.all_reduce(x)
            assert got.data_ptr() == x.data_ptr()
            assert torch.equal(got, added(parts))

    with group(size, work) as made:
        made.run()


def special_numbers(size: int) -> None:
    """Ties to even, overflow, infinities and not-a-numbers are rounded to bfloat16 as torch does."""
    ties = torch.tensor([1.0, 3.0, -1.0, -3.0]) * 2.0**-8 + 1.0
    odd = torch.tensor([3.4e38, -3.4e38, float("inf"), float("nan"), 0.0, -0.0, 1e-40])

    def work(collectives: Collectives, _command: Any) -> None:
        parts = [torch.cat([ties.bfloat16(), odd.bfloat16(), torch.tensor([2.0**-8 * rank])]) for rank in range(size)]
        want = added([each.bfloat16() for each in parts])
        got = collectives.all_reduce(parts[collectives.rank].bfloat16())
        assert want.isnan().any()
        assert torch.equal(got.isnan(), want.isnan())
        assert torch.equal(got[~got.isnan()].view(torch.int16), want[~want.isnan()].view(torch.int16))

    with group(size, work) as made:
        made.run()


def gathers(size: int) -> None:
    made_of: list[Callable[[int], Tensor]] = [
        lambda rank: torch.tensor([rank, -rank], dtype=torch.int64),
        lambda rank: torch.full((3, 2), rank, dtype=torch.int32).t(),  # not contiguous
        lambda rank: torch.full((2, 3), float(rank), dtype=torch.bfloat16),
        lambda rank: torch.tensor(float(rank)),
        lambda rank: torch.full((700_001,), rank, dtype=torch.float16),
        lambda rank: torch.zeros((0, 4)),
    ]

    def work(collectives: Collectives, _command: Any) -> None:
        for make in made_of:
            got = collectives.all_gather(make(collectives.rank))
            assert torch.equal(got, torch.stack([make(rank) for rank in range(size)]))

    with group(size, work) as made:
        made.run()


def mixed(size: int, calls: int) -> None:
    """Many calls of random kinds and sizes, ranks at different speeds, over several commands."""

    def work(collectives: Collectives, seed: int) -> None:
        chance, own = random.Random(seed), random.Random(seed * 10 + collectives.rank)
        for n in range(calls // 10):
            shape = (chance.choice([1, 2, 3]), chance.choice([1, 100, 512, 4096]) if n % 50 else 300_000)
            dtype, gather = chance.choice(list(DTYPES.values())), chance.random() < 0.4
            parts = [part(n, rank, shape, dtype) for rank in range(size)]
            if own.random() < 0.05:
                time.sleep(own.random() * 0.005)
            x = parts[collectives.rank].clone()
            if gather:
                assert torch.equal(collectives.all_gather(x), torch.stack(parts))
            else:
                assert torch.equal(collectives.all_reduce(x), added(parts))

    with group(size, work) as made:
        for seed in range(10):
            made.run(seed)


def commands(size: int) -> list[str]:
    """Every rank reads every command whole; one that is too large is refused and nothing else happens."""

    def work(collectives: Collectives, command: tuple[bytes, str]) -> None:
        assert hashlib.sha256(command[0]).hexdigest() == command[1]
        collectives.all_reduce(torch.ones(1))

    refused = []
    with group(size, work) as made:
        prompts = pickle.dumps([tuple(range(n, n + 32_768)) for n in range(8)])
        for data in (b"", bytes(300), prompts, os.urandom(2**25), b"again"):
            made.run((data, hashlib.sha256(data).hexdigest()))
        try:
            made.run((bytes(2**26), ""))
        except ValueError as error:
            refused.append(str(error))
        made.run((b"again", hashlib.sha256(b"again").hexdigest()))
    return refused


def failing(size: int, steps: int) -> dict[str, Any]:
    """Ranks raise in the middle of a step, soon or after the others have long been waiting; the next step is right."""

    def work(collectives: Collectives, command: tuple[int, dict[int, int], float]) -> None:
        seed, failures, pause = command
        for call in range(6):
            if failures.get(collectives.rank) == call:
                time.sleep(pause)
                raise ValueError("the user's words")
            parts = [part(seed + call, rank, (1 + 999 * call,), torch.float32) for rank in range(size)]
            assert torch.equal(collectives.all_reduce(parts[collectives.rank].clone()), added(parts))

    chance = random.Random(size)
    wrong, texts = 0, set()
    with group(size, work) as made:
        for step in range(steps):
            failures = {rank: chance.randrange(7) for rank in chance.sample(range(size), chance.choice([1, 1, 2]))}
            first = [rank for rank, call in failures.items() if call < 6]
            try:
                made.run((step, failures, chance.choice([0, 0, 0.01, 0.3])))
                wrong += bool(first)
            except StepFailed as failed:
                wrong += failed.rank not in first
                texts.add(str(failed).partition(" line")[0].partition(": ")[2])
            made.run((step, {}, 0.0))
    return {"wrong": wrong, "texts": sorted(texts)}


def raised(what: str, who: int) -> list[str]:
    """What rank 0 raises for what rank `who` raised."""
    errors: dict[str, Callable[[], BaseException]] = {
        "load": lambda: LoadFailed("ModelInvalid", "tensor x has another shape"),
        "device": lambda: EngineClosed("the device is lost: it fell off"),
        "memory": MemoryError,
        "interrupt": KeyboardInterrupt,
    }

    def work(collectives: Collectives, command: Any) -> float:
        if command and collectives.rank == who:
            raise errors[what]()
        return one_sum(collectives)

    with group(2, work) as made:
        try:
            made.run("fail")
        except BaseException as error:
            told = [type(error).__name__, str(error).partition(",")[0], str(getattr(error, "reason", ""))]
        else:
            told = []
        assert made.run() == 3.0
    return told


def disagreeing(how: str) -> list[str]:
    """One rank makes another call than the others."""

    def work(collectives: Collectives, command: Any) -> float:
        odd = command and collectives.rank == 1
        if odd and how == "shape":
            collectives.all_reduce(torch.ones(5))
        elif odd and how == "kind":
            collectives.all_gather(torch.ones(4))
        elif not (odd and how == "missing"):
            collectives.all_reduce(torch.ones(4))
        if odd and how == "extra":
            collectives.all_reduce(torch.ones(4))
        return one_sum(collectives) if not command else 0.0

    told = []
    with group(3, work) as made:
        for _ in range(3):
            try:
                made.run("odd")
            except StepFailed as failed:
                told.append(str(failed).partition(": ")[2].partition(" ranks" if how == "missing" else ",")[0])
            assert made.run() == 6.0
    return told


def lost(size: int, where: str, how: str, who: int) -> dict[str, Any]:
    """Rank `who` is killed or frozen. When rank 0 and the others notice, in seconds, and what rank 0 says."""
    number = getattr(signal, how)

    def work(collectives: Collectives, command: Any) -> float:
        one_sum(collectives)
        if command and collectives.rank == who:
            os.kill(os.getpid(), number)
        started = time.monotonic()
        try:
            return one_sum(collectives) if where == "sum" or not command else 0.0
        except RankLost:
            seen.append(time.monotonic() - started)
            raise

    seen: list[float] = []
    with group(size, work) as made:
        ranks = made.ranks
        assert made.run(patient=True) == size * (size + 1) / 2
        others = tuple(pid for rank, pid in enumerate(ranks.pids, start=1) if rank != who)
        started = time.monotonic()
        try:
            if where == "idle":
                os.kill(ranks.pids[who - 1], number)
                while time.monotonic() < started + 10:
                    ranks.check()
                    time.sleep(0.25)
            else:
                made.run("go")
        except RankLost as error:
            told = str(error)
        noticed = seen[0] if seen else time.monotonic() - started
        left = all_end(others, 10)
        others_noticed = time.monotonic() - started
        again = ""
        try:
            made.run()
        except RankLost as error:
            again = str(error)
    nobody = all(state(pid) == "gone" for pid in (*others, *ranks.pids))
    assert ranks.failure == told
    return {
        "told": told,
        "again": again,
        "noticed": noticed,
        "others": others_noticed if left else None,
        "nobody_left": nobody and not ranks.pids,
    }


def restarted(size: int) -> list[float]:
    """After a loss and a close, the same process starts another group."""
    results = []
    for _ in range(3):
        with group(size, one_sum) as made:
            results.append(made.run())
            os.kill(made.ranks.pids[-1], signal.SIGKILL)
            with contextlib.suppress(RankLost):
                made.run()
    return results


def patient() -> dict[str, Any]:
    """A silent rank is no frozen one while a command is patient, whichever rank it is; a dead one is a dead one."""

    def work(collectives: Collectives, command: tuple[int, str] | None) -> float:
        if command and collectives.rank == command[0]:
            if command[1] == "die":
                os._exit(3)
            time.sleep(1.0)
        return one_sum(collectives)

    result: dict[str, Any] = {}
    for name, command, waits in (
        ("slow load", (1, "sleep"), True),
        ("slow load of rank 0", (0, "sleep"), True),
        ("slow step", (1, "sleep"), False),
        ("dead load", (1, "die"), True),
    ):
        with group(3, work, freeze_seconds=0.4) as made:
            try:
                result[name] = made.run(command, patient=waits)
                result[name] = made.run()
            except RankLost as error:
                result[name] = str(error)
    return result


def signals() -> float:
    """What reaches the whole process group ends no rank."""
    with group(3, one_sum) as made:
        made.run()
        for pid in made.ranks.pids:
            os.kill(pid, signal.SIGINT)
            os.kill(pid, signal.SIGTERM)
        time.sleep(0.1)
        return float(made.run())


def closed() -> dict[str, Any]:
    """Nothing is left after a close: no process, no name in /dev/shm, no descriptor."""
    descriptors = len(os.listdir("/proc/self/fd"))
    made = Group(4, one_sum)
    made.run()
    pids = made.ranks.pids
    maps = [line.split() for pid in (os.getpid(), *pids) for line in Path(f"/proc/{pid}/maps").read_text().splitlines()]
    shared = {each[5] for each in maps if each[1] == "rw-s"}  # /dev/zero: memory without a name
    started = time.monotonic()
    made.ranks.close()
    seconds = time.monotonic() - started
    made.ranks.close()
    return {
        "states": sorted({state(pid) for pid in pids}),
        "shared": sorted(shared),
        "descriptors": len(os.listdir("/proc/self/fd")) - descriptors,
        "seconds": seconds,
    }


def close_busy() -> dict[str, Any]:
    """A rank that does not come back is killed."""

    ranks = RankGroup.fork(2, lambda _rank: time.sleep(60))
    pids = ranks.pids
    started = time.monotonic()
    ranks.close()
    return {"states": [state(pid) for pid in pids], "seconds": time.monotonic() - started}


def rank_0_killed() -> dict[str, Any]:
    """The other ranks do not outlive it, not even in the middle of a step or frozen."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:

        def work(collectives: Collectives, command: Any) -> None:
            one_sum(collectives)
            if command and collectives.rank == 1:
                time.sleep(60)
            if command and collectives.rank == 2:
                os.kill(os.getpid(), signal.SIGSTOP)
            if command and collectives.rank == 0:
                os.write(writer, pickle.dumps(made.ranks.pids))
                time.sleep(60)

        made = Group(4, work)
        made.run("go", patient=True)
    pids = pickle.loads(os.read(reader, 1000))
    time.sleep(0.1)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return {"ended": all_end(pids, 2)}


def rank_0_frozen() -> dict[str, Any]:
    """A watcher sees it by the heartbeat, the other ranks in their step; when it goes on it knows."""
    reader, writer = os.pipe()
    heartbeat = Heartbeat()
    pid = os.fork()
    if pid == 0:

        def work(collectives: Collectives, command: Any) -> float:
            one_sum(collectives)
            if command and collectives.rank == 0:
                os.kill(os.getpid(), signal.SIGSTOP)
            return one_sum(collectives)

        made = Group(3, work, heartbeat=Heartbeat(heartbeat.fd))
        made.run()
        os.write(writer, pickle.dumps(made.ranks.pids))
        try:
            made.run("go")
        except RankLost as error:
            os.write(writer, pickle.dumps(str(error)))
        made.ranks.close()
        os._exit(0)
    pids = pickle.loads(os.read(reader, 1000))
    while state(pid) != "T":
        heartbeat.age()
        time.sleep(0.01)
    started = time.monotonic()
    while heartbeat.age() < 1.5 and time.monotonic() < started + 10:
        time.sleep(0.1)
    seen = time.monotonic() - started
    ended = all_end(pids, 10)
    noticed = time.monotonic() - started
    os.kill(pid, signal.SIGCONT)
    told = pickle.loads(os.read(reader, 1000))
    os.waitpid(pid, 0)
    heartbeat.close()
    return {"seen": seen, "noticed": noticed if ended else None, "told": told}


def threads() -> list[str]:
    """A process with a second thread is refused before anything is forked."""
    stop = threading.Event()
    thread = threading.Thread(target=stop.wait)
    thread.start()
    try:
        Group(2, one_sum)
    except RuntimeError as error:
        return [str(error)]
    finally:
        stop.set()
        thread.join()
    return []


def not_inherited() -> str:
    """The other end of a socket sees that rank 0 has closed it, for no other rank holds it."""
    mine, theirs = socket.socketpair()
    theirs.settimeout(5)
    with group(3, one_sum, close=(mine, theirs)) as made:
        made.run()
        mine.close()
        return theirs.recv(1).decode()


def idle() -> dict[str, float]:
    """Seconds of processor time in one second of waiting for a command, all ranks together; and of being frozen."""

    def ticks(pids: tuple[int, ...]) -> int:
        fields = [Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split() for pid in pids]
        return sum(int(each[11]) + int(each[12]) for each in fields)

    with group(4, one_sum) as made:
        made.run()
        time.sleep(0.1)
        before, own = ticks(made.ranks.pids), time.process_time()
        for _ in range(4):
            time.sleep(0.25)
            made.ranks.check()
        used = (ticks(made.ranks.pids) - before) / os.sysconf("SC_CLK_TCK")
        return {"others": used, "rank 0": time.process_time() - own}


def latencies(size: int) -> dict[str, float]:
    """Microseconds, the lower quartile of many: others use the same cores."""

    def work(collectives: Collectives, command: Any) -> list[float]:
        x = torch.zeros(command) if command else torch.zeros(0)
        taken = []
        for _ in range(500 if command else 0):
            started = time.perf_counter()
            collectives.all_reduce(x)
            taken.append(time.perf_counter() - started)
        return taken

    def quartile(taken: list[float]) -> float:
        return sorted(taken)[len(taken) // 4] * 1e6

    result = {}
    with group(size, work) as made:
        for shape in ((1, 512), (8, 4096)):
            result[str(shape)] = quartile(made.run(shape))
        taken = []
        payload = bytes(300)
        for _ in range(500):
            started = time.perf_counter()
            made.ranks.run(pickle.dumps(()) + payload, lambda: None)
            taken.append(time.perf_counter() - started)
        result["command"] = quartile(taken)
    return result


def main() -> None:
    """Read lines (name, arguments), answer each with a line: what the function returned, or how it ended."""
    for line in sys.stdin:
        name, arguments = json.loads(line)
        pid = os.fork()
        if pid == 0:
            try:
                answer = {"returned": globals()[name](**arguments)}
            except BaseException:
                answer = {"raised": traceback.format_exc()}
            print(json.dumps(answer), flush=True)
            os._exit(0)
        status = os.waitpid(pid, 0)[1]
        if status:
            print(json.dumps({"raised": f"rank 0 ended with wait status {status}"}), flush=True)


if __name__ == "__main__":
    main()
