"""The cache: complete or not there, one maker at a time."""

import multiprocessing
import os
import signal
import time
from pathlib import Path

import pytest

from e2e.cluster import cache


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


def test_it_lies_where_xdg_says_or_in_the_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert cache.root() == tmp_path / "aixcoder"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert cache.root() == tmp_path / "home/.cache/aixcoder"


def test_a_key_tells_contents_and_their_division_apart() -> None:
    keys = [cache.key("a", "b"), cache.key("ab"), cache.key("a", "c"), cache.key("b", "a"), cache.key(b"a", "b")]
    assert len(set(keys)) == 4
    assert keys[0] == keys[-1]


def test_an_entry_is_made_once() -> None:
    made: list[Path] = []

    def make(folder: Path) -> None:
        made.append(folder)
        (folder / "file").write_text("content")

    first = cache.entry("kind", "key", make)
    assert cache.entry("kind", "key", make) == first
    assert len(made) == 1
    assert (first / "file").read_text() == "content"


def test_a_failed_entry_is_not_there_and_its_remains_go_with_the_next() -> None:
    def fail(folder: Path) -> None:
        (folder / "half").write_text("")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        cache.entry("kind", "key", fail)
    assert not (cache.root() / "kind/key").exists()
    made = cache.entry("kind", "key", lambda folder: (folder / "whole").touch())
    assert [path.name for path in (cache.root() / "kind").iterdir() if path.is_dir()] == ["key"]
    assert [path.name for path in made.iterdir()] == ["whole"]


def test_what_nobody_asks_for_is_pruned() -> None:
    def touch(folder: Path) -> None:
        (folder / "file").touch()

    used, unused = (cache.entry("kind", key, touch) for key in ("used", "unused"))
    two_days_ago = time.time() - 2 * 86400
    for each in (used, unused):
        os.utime(each.with_name(f"{each.name}.used"), (two_days_ago, two_days_ago))
    assert cache.entry("kind", "used", touch) == used
    assert cache.prune(unused_days=1) == ["kind/unused"]
    assert (used / "file").exists()
    assert not unused.exists()
    assert cache.prune(unused_days=1) == []


def test_a_lock_ends_with_its_holder_even_by_kill() -> None:
    context = multiprocessing.get_context("fork")
    held = context.Event()

    def hold() -> None:
        with cache.lock("name"):
            held.set()
            time.sleep(60)

    holder = context.Process(target=hold)
    holder.start()
    assert held.wait(10)
    assert holder.pid is not None
    os.kill(holder.pid, signal.SIGKILL)
    with cache.lock("name"):
        holder.join(10)
    assert holder.exitcode == -signal.SIGKILL
