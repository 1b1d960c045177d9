"""The one cgroup that a cluster's pods are in, in each hierarchy that the kernel has mounted."""

import contextlib
import os
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from e2e.cluster.errors import ClusterError

_MOUNTS = Path("/proc/self/mounts")
# File → what freezes, what thaws: v1, v2.
_FREEZERS = {"freezer.state": ("FROZEN", "THAWED"), "cgroup.freeze": ("1", "0")}


def hierarchies(mounts: str) -> list[Path]:
    """Mount points of the cgroup hierarchies in the text of /proc/self/mounts: one for v2, many for v1."""
    fields = [line.split() for line in mounts.splitlines()]
    return [Path(f[1]) for f in fields if f[2] in {"cgroup", "cgroup2"}]


def create(name: str) -> None:
    """Make the cgroup wherever there is a hierarchy; kubelet refuses a root cgroup that lacks in one."""
    for hierarchy in _mounted():
        controllers = hierarchy / "cgroup.controllers"
        if controllers.exists():
            wanted = " ".join(f"+{c}" for c in controllers.read_text().split())
            with contextlib.suppress(OSError):  # controllers that v1 hierarchies use, or that are delegated already
                (hierarchy / "cgroup.subtree_control").write_text(wanted)
        group = hierarchy / name
        group.mkdir(exist_ok=True)
        # v1: without processors and memory nodes of its own no process may enter.
        for setting in ("cpuset.cpus", "cpuset.mems"):
            if (group / setting).exists() and (hierarchy / setting).exists():
                (group / setting).write_text((hierarchy / setting).read_text())


def remove(name: str, *, seconds: float = 30) -> None:
    """Remove the cgroup and all below it; waits for processes that are ending. Raises ClusterError if one stays."""
    deadline = time.monotonic() + seconds
    while left := [group for hierarchy in _mounted() for group in _innermost_first(hierarchy / name)]:
        for group in left:
            try:
                group.rmdir()
            except FileNotFoundError:
                continue
            except OSError as error:  # busy: a process is ending
                if time.monotonic() > deadline:
                    raise ClusterError(f"The cgroup {group} cannot be removed: {error.strerror}.") from error
        time.sleep(0.02)


def processes(name: str, group: str) -> set[int]:
    """Ids of the processes in the cgroup `group`, which is anywhere below `name`, and in those below it."""
    found = set()
    for hierarchy in _mounted():
        for listed in (hierarchy / name).glob(f"**/{group}/**/cgroup.procs"):
            with contextlib.suppress(OSError):  # the cgroup is gone, or its container is
                found |= {int(pid) for pid in listed.read_text().split()}
    return found


@contextlib.contextmanager
def frozen(name: str, group: str) -> Iterator[None]:
    """Its processes stand still while the block runs. Raises ClusterError where there is no such cgroup."""
    found = [
        (file, states)
        for hierarchy in _mounted()
        for setting, states in _FREEZERS.items()
        for file in (hierarchy / name).glob(f"**/{group}/{setting}")
    ]
    if not found:
        raise ClusterError(f"There is no cgroup {group} that can be frozen below {name}.")
    try:
        for file, (freeze, _) in found:
            file.write_text(freeze)
        yield
    finally:
        for file, (_, thaw) in found:
            file.write_text(thaw)


def _mounted() -> list[Path]:
    return hierarchies(_MOUNTS.read_text())


def _innermost_first(group: Path) -> Iterable[Path]:
    return [Path(folder) for folder, _, _ in os.walk(group, topdown=False)]
