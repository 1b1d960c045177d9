"""The cluster's long-running programs: started, looked after, started again when they end."""

import subprocess
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from e2e.cluster.errors import ClusterError

_RESTART_SECONDS = 1.0
_LOG_LINES = 15


@dataclass
class _Daemon:
    command: list[str]
    log: Path
    environment: Mapping[str, str] | None
    process: subprocess.Popen[bytes] = field(init=False)
    restarts: int = 0


class Daemons:
    """Programs by name. While `watch` is on, one that ends is started again a second later."""

    def __init__(self, logs: Path) -> None:
        self._logs = logs
        self._daemons: dict[str, _Daemon] = {}
        self._lock = threading.Lock()

    def start(
        self, name: str, program: Path, arguments: list[str], environment: Mapping[str, str] | None = None
    ) -> None:
        """Start a program; its output goes to `logs/NAME.log`."""
        daemon = _Daemon([str(program), *arguments], self._logs / f"{name}.log", environment)
        with self._lock:
            _spawn(daemon)
            self._daemons[name] = daemon

    def check(self) -> None:
        """Raise ClusterError with the log's end of a program that has ended."""
        with self._lock:
            for name, daemon in self._daemons.items():
                if daemon.process.poll() is not None:
                    lines = daemon.log.read_text(errors="replace").splitlines()[-_LOG_LINES:]
                    raise ClusterError(f"{name} ended with {daemon.process.returncode}:\n" + "\n".join(lines))

    def restarts(self) -> dict[str, int]:
        """How often each program was started again."""
        with self._lock:
            return {name: daemon.restarts for name, daemon in self._daemons.items()}

    def watch(self) -> None:
        """Start again what ends, for ever."""
        while True:
            time.sleep(_RESTART_SECONDS)
            with self._lock:
                for daemon in self._daemons.values():
                    if daemon.process.poll() is not None:
                        daemon.restarts += 1
                        _spawn(daemon)


def _spawn(daemon: _Daemon) -> None:
    with daemon.log.open("ab") as log:
        daemon.process = subprocess.Popen(
            daemon.command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=daemon.environment,
            start_new_session=True,
        )
