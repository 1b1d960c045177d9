"""Lines on stderr that say what goes on and how long it took."""

import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from e2e.cluster.errors import ClusterError

_HEARTBEAT_SECONDS = 10.0
_SHOWN_LINES = 20


def say(text: str) -> None:
    """Print one line, at once."""
    print(text, file=sys.stderr, flush=True)


@contextmanager
def step(text: str) -> Iterator[None]:
    """Say what begins, and at its end how many seconds it took."""
    say(f"{text} …")
    start = time.monotonic()
    yield
    say(f"{text}: {time.monotonic() - start:.1f} s")


def run(argv: Sequence[str | Path], *, what: str, env: Mapping[str, str] | None = None, cwd: Path | None = None) -> str:
    """Run a program to its end, with a line every ten seconds, and return its stdout.

    Raises ClusterError with the last lines of its output if it fails.
    """
    start = time.monotonic()
    with subprocess.Popen(
        [str(a) for a in argv], stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL,
        text=True, env=None if env is None else dict(env), cwd=cwd,
    ) as process:  # fmt: skip
        try:
            while True:
                try:
                    out, err = process.communicate(timeout=_HEARTBEAT_SECONDS)
                    break
                except subprocess.TimeoutExpired:
                    say(f"  {what}: {time.monotonic() - start:.0f} s so far")
        except BaseException:
            process.kill()
            raise
    if process.returncode != 0:
        tail = "\n".join((out + err).strip().splitlines()[-_SHOWN_LINES:])
        raise ClusterError(f"{what} failed: {Path(str(argv[0])).name} ended with {process.returncode}:\n{tail}")
    return out
