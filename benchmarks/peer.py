"""A driver as the harness sees it: a process group, started, asked, paused while others are timed, and ended."""

from __future__ import annotations

import hashlib
import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.checkpoint import cache
from benchmarks.peers.lines import STOP_SECONDS, Load, Request, Result

ROOT = Path(__file__).parent.parent
PROJECTS = ROOT / "benchmarks" / "peers"
INSTALL_SECONDS, LOAD_SECONDS, QUIT_SECONDS = 3600.0, 600.0, 20.0
MARGIN_SECONDS = STOP_SECONDS + 20.0
"""What a run may take beyond its own limit until its driver counts as hung."""


class PeerFailed(RuntimeError):
    """An engine that can not be installed, does not load, fails or hangs: a sentence."""


@dataclass(frozen=True)
class Peer:
    """How to start one engine: `project` is a folder of benchmarks/peers, None our own environment.

    `pausable`: its processes can be stopped by a signal while others are timed. Ours can not: it takes a process that
    stands still for lost. It sleeps while it has nothing to do.
    """

    name: str
    project: str | None
    driver: str
    arguments: tuple[str, ...] = ()
    tensor_parallel: int = 1
    pausable: bool = True

    def python(self) -> Path:
        """The interpreter to run it with; its project is installed first. Raises `PeerFailed`."""
        return Path(sys.executable) if self.project is None else installed(self.project)


def installed(project: str) -> Path:
    """Install a project's lock into the cache, where that is not done; its interpreter. Raises `PeerFailed`."""
    folder, environment = PROJECTS / project, cache() / "peers" / project
    wanted = hashlib.sha256((folder / "uv.lock").read_bytes() + (folder / "pyproject.toml").read_bytes()).hexdigest()
    stamp, log = environment / ".installed", cache() / "peers" / f"{project}.log"
    if not (stamp.is_file() and stamp.read_text() == wanted):
        environment.parent.mkdir(parents=True, exist_ok=True)
        print(f"{project}: installing its locked environment (log: {log})", file=sys.stderr)
        with log.open("w") as output:
            try:
                done = subprocess.run(
                    ["uv", "sync", "--locked", "--project", folder],
                    env=os.environ | {"UV_PROJECT_ENVIRONMENT": str(environment)},
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    timeout=INSTALL_SECONDS,
                )
            except (subprocess.TimeoutExpired, OSError) as error:
                raise PeerFailed(f"{project} can not be installed: {error}") from error
        if done.returncode:
            last = (log.read_text(errors="replace").strip().splitlines() or ["uv said nothing"])[-1]
            raise PeerFailed(f"{project} can not be installed, see {log.name}: {last}")
        stamp.write_text(wanted)
    return environment / "bin" / "python"


class Running:
    """A started driver. Every method but `end` raises `PeerFailed`; after that only `end` is of use."""

    def __init__(self, peer: Peer, environment: Mapping[str, str] | None = None) -> None:
        self._log = tempfile.TemporaryFile("w+", errors="replace")  # noqa: SIM115  # closed by `end`
        self._process = subprocess.Popen(
            [peer.python(), ROOT / peer.driver, *peer.arguments],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT), **(environment or {})},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            start_new_session=True,
            text=True,
        )
        self._pausable = peer.pausable
        self._lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self._imports_mb = self._started_imports_mb = 0.0
        self.loaded: dict[str, Any] = {}

    def load(self, options: Load) -> None:
        """Load; what the driver tells of itself is in `loaded` then."""
        self._send({"load": asdict(options)})
        self.loaded = self._answer("loaded", LOAD_SECONDS)
        self._imports_mb = float(self.loaded.get("imports_mb", 0.0))
        self._started_imports_mb = float(self.loaded.get("started_imports_mb", self._imports_mb))

    def reset(self) -> None:
        """Forget cached prompts."""
        self._send({"reset": True})
        self._answer("reset", LOAD_SECONDS)

    def run(
        self, requests: Sequence[Request], limit_s: float, enough: Callable[[Result], bool] | None = None
    ) -> list[Result]:
        """Run all; results in the order in which they ended. Where `enough` says so of one, the rest is cancelled."""
        self._send({"run": [asdict(request) for request in requests], "limit_s": limit_s})
        deadline = time.monotonic() + limit_s + MARGIN_SECONDS
        results: list[Result] = []
        stopped = False
        while "done" not in (message := self._message(deadline)):
            if "request" not in message:
                raise PeerFailed(f"the driver said {list(message)} in a run")
            try:
                results.append(Result(**message["request"]))
            except TypeError as error:
                raise PeerFailed(f"the driver told of a request what is no result: {error}") from error
            if enough is not None and not stopped and enough(results[-1]):
                stopped = True
                self._send({"stop": True})
        return results

    def pause(self) -> None:
        """Stop all its processes, so that what spins while idle takes no time from others."""
        if self._pausable:
            self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let them run again."""
        self._signal(signal.SIGCONT)

    def memory_mb(self) -> float:
        """What all its processes took beside their imports, in 10^6 bytes.

        Of a process that was started as a program: the most it had, less what it had after its imports. One that was
        only forked shares those with its parent: what it has alone now. Memory that ranks share counts once, for the
        first of them.
        """

        def mb(pid: int) -> float:
            if forked(pid):
                return alone_mb(pid)
            return max(0.0, peak_mb(pid) - (self._imports_mb if pid == self._process.pid else self._started_imports_mb))

        return sum(mb(process.pid) for process in self.processes())

    def processes(self) -> set[Process]:
        """The driver and all that descends from it."""
        return family(self._process.pid)

    def end(self) -> None:
        """End the driver and all that it started."""
        self.resume()
        started = self.processes()
        if self._process.stdin is not None:
            with suppress(OSError):
                self._process.stdin.close()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(QUIT_SECONDS)
        self._signal(signal.SIGKILL)
        # What made a session of its own is in another group.
        for process in processes():
            if process in started:
                with suppress(ProcessLookupError):
                    os.kill(process.pid, signal.SIGKILL)
        self._process.wait()
        self._reader.join()
        if self._process.stdout is not None:
            self._process.stdout.close()
        self._log.close()

    def _read(self) -> None:
        if self._process.stdout is not None:
            for line in self._process.stdout:
                self._lines.put(line)
        self._lines.put(None)

    def _send(self, message: Mapping[str, Any]) -> None:
        if self._process.stdin is None:
            raise PeerFailed("the driver has no standard input")
        try:
            self._process.stdin.write(json.dumps(message) + "\n")
            self._process.stdin.flush()
        except OSError as error:
            raise PeerFailed(f"the driver is gone{self._last_words()}") from error

    def _answer(self, key: str, seconds: float) -> Any:
        message = self._message(time.monotonic() + seconds)
        if key not in message:
            raise PeerFailed(f"the driver said {list(message)} and not {key}")
        return message[key]

    def _message(self, deadline: float) -> dict[str, Any]:
        try:
            line = self._lines.get(timeout=max(0.0, deadline - time.monotonic()))
        except queue.Empty:
            raise PeerFailed(f"the driver did not answer in time{self._last_words()}") from None
        if line is None:
            raise PeerFailed(f"the driver is gone{self._last_words()}")
        message: dict[str, Any] | None = None
        with suppress(ValueError):
            message = json.loads(line)
        if not isinstance(message, dict):
            raise PeerFailed(f"the driver wrote a line that is no JSON object: {line[:100]!r}")
        if "error" in message:
            raise PeerFailed(str(message["error"]))
        return message

    def _last_words(self) -> str:
        """The last line that it wrote to standard error, if any."""
        self._log.seek(max(0, self._log.seek(0, os.SEEK_END) - 4000))
        lines = [line.strip() for line in self._log.read().splitlines() if line.strip()]
        return f": {lines[-1][:300]}" if lines else ""

    def _signal(self, number: signal.Signals) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, number)


@dataclass(frozen=True)
class Process:
    """A process now; `started` tells it from a later one with the same number."""

    pid: int
    started: str


def processes() -> dict[Process, int]:
    """All processes, and their parents' numbers."""
    found: dict[Process, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            # The name, in parentheses, may hold anything: fields are counted from behind it.
            with suppress(OSError):
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
                found[Process(int(entry.name), fields[19])] = int(fields[1])
    return found


def family(pid: int) -> set[Process]:
    """A process and all that descend from it."""
    children: dict[int, list[Process]] = {}
    found: set[Process] = set()
    for process, parent in processes().items():
        children.setdefault(parent, []).append(process)
        if process.pid == pid:
            found.add(process)
    waiting = [pid]
    while waiting:
        below = children.get(waiting.pop(), [])
        found.update(below)
        waiting += [process.pid for process in below]
    return found


def forked(pid: int) -> bool:
    """Whether a process runs the program of its parent, which it has not started anew."""
    try:
        parent = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1]
        own, other = (Path(f"/proc/{number}/cmdline").read_bytes() for number in (pid, parent))
    except OSError:
        return False
    return own == other


def peak_mb(pid: int) -> float:
    """The most memory that a process had so far, in 10^6 bytes; nothing where it is gone."""
    return _kilobytes(Path(f"/proc/{pid}/status"), "VmHWM:") * 1024 / 1e6


def alone_mb(pid: int) -> float:
    """The memory that no other process has, in 10^6 bytes; nothing where it is gone."""
    return _kilobytes(Path(f"/proc/{pid}/smaps_rollup"), "Private_") * 1024 / 1e6


def _kilobytes(file: Path, name: str) -> int:
    """The sum of the lines that begin so; nothing where the file is gone."""
    try:
        lines = file.read_text().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) for line in lines if line.startswith(name))
