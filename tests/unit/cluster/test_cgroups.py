"""The cgroup of one pod: found below the cluster's, and frozen, in either version."""

from pathlib import Path

import pytest

from e2e.cluster import cgroups
from e2e.cluster.errors import ClusterError


@pytest.fixture
def pod(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A hierarchy with two pods, of which `one` has two containers."""
    monkeypatch.setattr(cgroups, "_mounted", lambda: [tmp_path])
    folder = tmp_path / "cluster/kubepods/burstable/one"
    for group, pids in (
        (folder, ""),
        (folder / "a", "11\n12\n"),
        (folder / "b", "13\n"),
        (folder.parent / "two", "14"),
    ):
        group.mkdir(parents=True)
        (group / "cgroup.procs").write_text(pids)
    return folder


def test_the_processes_are_those_of_all_its_containers(pod: Path) -> None:
    assert cgroups.processes("cluster", "one") == {11, 12, 13}
    assert cgroups.processes("cluster", "three") == set()


@pytest.mark.parametrize(
    ("setting", "frozen", "thawed"),
    [pytest.param("freezer.state", "FROZEN", "THAWED", id="v1"), pytest.param("cgroup.freeze", "1", "0", id="v2")],
)
def test_it_is_thawed_whatever_happens(pod: Path, setting: str, frozen: str, thawed: str) -> None:
    (pod / setting).write_text(thawed)

    def fail() -> None:
        with cgroups.frozen("cluster", "one"):
            assert (pod / setting).read_text() == frozen
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert (pod / setting).read_text() == thawed


def test_what_can_not_be_frozen_is_told(pod: Path) -> None:
    with pytest.raises(ClusterError, match="no cgroup one that can be frozen"):
        cgroups.frozen("cluster", "one").__enter__()
