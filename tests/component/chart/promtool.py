"""Prometheus' own checker of rules, unpacked from Debian's package: nothing is installed and no server is started."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

from e2e.cluster import cache, debian, progress

_PACKAGE = "promtool"


def promtool(*arguments: str | Path) -> str:
    """Run promtool. AssertionError with what it said where it fails."""
    program = cache.entry("debian", f"{debian.NODE_SUITE}-{_PACKAGE}", _unpack) / "usr/bin/promtool"
    done = subprocess.run(
        [program, *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def written(file: Path, content: Any) -> Path:
    """`content` in a file that promtool reads: JSON is YAML."""
    file.write_text(json.dumps(content))
    return file


def _unpack(folder: Path) -> None:
    with progress.step(f"Unpacking {_PACKAGE} of Debian {debian.NODE_SUITE}"):
        debian.download(debian.NODE_SUITE, (_PACKAGE,), folder)
