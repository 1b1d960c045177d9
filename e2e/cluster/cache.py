"""Where built and unpacked things lie between runs, and how two runs at once share them."""

import fcntl
import hashlib
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

# The file beside an entry whose time is that of its last use.
_USED = ".used"


def root() -> Path:
    """`${XDG_CACHE_HOME:-~/.cache}/aixcoder`, made where it is missing."""
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    path = Path(base).absolute() / "aixcoder"
    path.mkdir(parents=True, exist_ok=True)
    return path


def key(*parts: str | bytes) -> str:
    """Twelve hex digits that change when any part or the division into parts changes."""
    digest = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        digest.update(f"{len(data)}:".encode() + data)
    return digest.hexdigest()[:12]


def prune(*, unused_days: float) -> list[str]:
    """Remove the entries that no call has asked for since; returns them as `kind/key`."""
    removed = []
    for used in sorted(root().glob(f"*/*{_USED}")):
        if time.time() - used.stat().st_mtime >= unused_days * 86400:
            entry_folder = used.with_name(used.name.removesuffix(_USED))
            with lock(used.parent.name):
                shutil.rmtree(entry_folder, ignore_errors=True)
                used.unlink()
            removed.append(f"{used.parent.name}/{entry_folder.name}")
    return removed


@contextmanager
def lock(name: str) -> Iterator[None]:
    """Hold the machine-wide lock `name`; waits for another process that holds it. Freed by the kernel at any death."""
    folder = root() / "locks"
    folder.mkdir(exist_ok=True)
    with (folder / f"{name}.lock").open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def entry(kind: str, entry_key: str, make: Callable[[Path], None]) -> Path:
    """Return the folder `kind/entry_key`, filled by `make` if this is the first call for that key.

    `make` fills a folder beside it, which then takes the final name: what is there is complete, whenever a run was
    killed.
    """
    target = root() / kind / entry_key
    target.parent.mkdir(exist_ok=True)
    (target.parent / f"{entry_key}{_USED}").touch()
    if target.is_dir():
        return target
    with lock(kind):
        if target.is_dir():
            return target
        for abandoned in target.parent.glob(f".{entry_key}.*"):
            shutil.rmtree(abandoned)
        work = Path(tempfile.mkdtemp(prefix=f".{entry_key}.", dir=target.parent))
        work.chmod(0o755)
        make(work)
        work.rename(target)
    return target
