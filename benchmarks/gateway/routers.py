"""The routers that are compared: how each is started before one mock replica, and ended."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.gateway import envoy
from benchmarks.peer import PeerFailed, installed

START_SECONDS = 60.0

LITELLM = {
    "model_list": [
        {
            "model_name": "mock",
            "litellm_params": {
                "model": "text-completion-openai/mock",
                "api_base": "http://127.0.0.1:{mock}/v1",
                "api_key": "none",
            },
        }
    ],
    # It asks for no key, as the others.
    "general_settings": {"dangerously_permit_weak_or_unset_master_key": True},
}


@dataclass(frozen=True)
class Router:
    """One router. `project`: its locked environment under benchmarks/peers; None: our own."""

    name: str
    project: str | None

    def command(self, folder: Path, port: int, mock: int) -> Sequence[str]:
        """How to start it. Raises `PeerFailed` where it can not be installed."""
        if self.project is None:
            return [sys.executable, "-m", "benchmarks.gateway.ours", str(port), str(mock)]
        programs = installed(self.project).parent
        target = f"http://127.0.0.1:{mock}"
        match self.name:
            case "vllm-router":
                return [str(programs / "vllm-router"), "--port", str(port), "--worker-urls", target]
            case "sglang-router":
                module = "sglang_router.launch_router"
                return [str(programs / "python"), "-m", module, "--port", str(port), "--worker-urls", target]
            case "litellm":
                (folder / "litellm.yaml").write_text(json.dumps(LITELLM).replace("{mock}", str(mock)))
                return [str(programs / "litellm"), "--config", str(folder / "litellm.yaml"), "--port", str(port)]
            case _:
                (folder / "envoy.yaml").write_text(envoy.CONFIGURATION.format(port=port, gateway=mock))
                return envoy.command(folder / "envoy.yaml")


ROUTERS = (
    Router("ours", None),
    Router("vllm-router", "vllm-router"),
    Router("sglang-router", "sglang-router"),
    Router("litellm", "litellm"),
    Router("envoy", "envoy"),
)


@dataclass(frozen=True)
class Started:
    """A router that listens on `port`; `pid` is the first of its process group."""

    port: int
    pid: int

    def processes(self) -> list[int]:
        """All processes of it."""
        group = []
        for entry in Path("/proc").iterdir():
            try:
                if entry.name.isdecimal() and os.getpgid(int(entry.name)) == self.pid:
                    group.append(int(entry.name))
            except ProcessLookupError:
                continue
        return group

    def rss_mb(self) -> float:
        """Resident memory of them, what they share counted once a process."""
        return sum(_status_kb(pid, "VmRSS:") for pid in self.processes()) / 1024

    def cpu_seconds(self) -> float:
        """Processor time they have used."""
        ticks = 0
        for pid in self.processes():
            fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
            ticks += int(fields[11]) + int(fields[12])
        return ticks / os.sysconf("SC_CLK_TCK")


@contextmanager
def started(router: Router, mock: int) -> Iterator[Started]:
    """Start a router before the mock replica; end all of its processes at the end. Raises `PeerFailed`."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = int(free.getsockname()[1])
    with tempfile.TemporaryDirectory() as name, (Path(name) / "log").open("w+") as log:
        command = router.command(Path(name), port, mock)
        process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
        try:
            _wait(process, port, Path(name) / "log")
            yield Started(port, process.pid)
        finally:
            for number in (signal.SIGTERM, signal.SIGKILL):
                try:
                    os.killpg(process.pid, number)
                    process.wait(5)
                    break
                except subprocess.TimeoutExpired:
                    continue
                except ProcessLookupError:
                    break


def _wait(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    """Until the router answers."""
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            break
        with socket.socket() as probe:
            probe.settimeout(2)
            try:
                probe.connect(("127.0.0.1", port))
                probe.sendall(b"GET /health HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
                if b" 200 " in probe.recv(100):
                    return
            except OSError:
                pass
        time.sleep(0.2)
    last = (log.read_text(errors="replace").strip().splitlines() or ["it said nothing"])[-1]
    raise PeerFailed(f"it does not answer within {START_SECONDS:.0f} s: {last}")


def _status_kb(pid: int, field: str) -> int:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith(field)), 0)
