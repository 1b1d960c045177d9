"""How many threads the engine may use: cores less one, which is for HTTP and tokenising."""

from __future__ import annotations

import os
from pathlib import Path


def engine_threads(wanted: int | None, root: Path = Path("/")) -> int:
    """All ranks together; `wanted` as it is. A container's CPU limit counts, in both versions of control groups."""
    return wanted if wanted is not None else max(1, cores(root) - 1)


def cores(root: Path = Path("/")) -> int:
    """Cores that this process can use at once, at least 1; of a limit in fractions, what it is rounded up."""
    found = len(os.sched_getaffinity(0))
    quota, period = _limit(root)
    return max(1, min(found, -(-quota // period))) if quota > 0 and period > 0 else found


def _limit(root: Path) -> tuple[int, int]:
    """Microseconds of processor time in each period; (0, 0) without a limit."""
    v2 = root / "sys/fs/cgroup/cpu.max"
    if v2.is_file():
        quota, _, period = v2.read_text().partition(" ")
        return (0, 0) if quota == "max" else (int(quota), int(period))
    v1 = root / "sys/fs/cgroup/cpu"
    if (v1 / "cpu.cfs_quota_us").is_file():
        return int((v1 / "cpu.cfs_quota_us").read_text()), int((v1 / "cpu.cfs_period_us").read_text())
    return 0, 0
