"""What the cluster program decides before it acts: names, versions, sources, configuration."""

import json
from pathlib import Path

import pytest

from e2e.cluster import cgroups, debian, flags, gpus, node, pki, programs
from e2e.cluster.errors import ClusterError
from e2e.cluster.layout import Layout, Node, layout, local_port

DEB822 = """\
Types: deb
# http://snapshot.example/archive/debian/2025
URIs: http://mirror.example/debian
Suites: bookworm bookworm-updates
Components: main
"""


@pytest.mark.parametrize(
    ("sources", "expected"),
    [
        ([DEB822], "http://mirror.example/debian"),
        (["deb http://mirror.example/debian bookworm main\n"], "http://mirror.example/debian"),
        (["deb [signed-by=/key.gpg] https://mirror.example/debian/ bookworm main"], "https://mirror.example/debian"),
        (["deb http://mirror.example/debian-security bookworm-security main"], None),
        (["# deb http://mirror.example/debian bookworm main"], None),
        (["deb https://other.example/apt stable main", DEB822], "http://mirror.example/debian"),
        ([], None),
    ],
)
def test_the_archive_is_the_machines_own(sources: list[str], expected: str | None) -> None:
    assert debian.mirror(sources) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("go version go1.26.8 linux/amd64", (1, 26, 8)),
        ("module example\n\ngo 1.26.0\n\nrequire example/go v1.2.3\n", (1, 26, 0)),
        ("go version devel", ()),
    ],
)
def test_go_versions(text: str, expected: tuple[int, ...]) -> None:
    assert programs.go_version(text) == expected


def test_the_kubernetes_programs_are_told_their_version() -> None:
    version = programs.kubernetes_version("require (\n\tk8s.io/kubernetes v1.36.3 // indirect\n)\n")
    assert "gitVersion=v1.36.3" in programs.link_flags(version)
    assert "gitMajor=1" in programs.link_flags(version)
    assert "gitMinor=36" in programs.link_flags(version)
    with pytest.raises(ClusterError, match=r"requires no k8s\.io/kubernetes"):
        programs.kubernetes_version("module empty\n")


@pytest.mark.parametrize("name", ["", "Upper", "a/b", "..", "-a", "a-", "a" * 21, "ü"])
def test_a_name_that_would_not_do_in_paths_is_refused(name: str) -> None:
    with pytest.raises(ClusterError, match="lower-case"):
        layout(name)


def test_a_folder_too_deep_for_sockets_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / ("d" * 90)))
    with pytest.raises(ClusterError, match="XDG_CACHE_HOME"):
        layout("aixcoder")


def test_local_ports_are_stable_and_apart() -> None:
    ports = {(c, f): local_port(c, f) for c in ("one", "two") for f in ("kubernetes", "gateway")}
    assert len(set(ports.values())) == 4
    assert all(20000 <= port < 30000 for port in ports.values())
    assert local_port("one", "gateway") == ports["one", "gateway"]


def test_nodes_share_no_name_address_or_pod_network() -> None:
    nodes = [Node(index) for index in range(5)]
    for attribute in ("name", "ip", "pod_network"):
        assert len({getattr(each, attribute) for each in nodes}) == 5
    networks = [json.loads(node.cni_config(each))["plugins"][0]["ipam"]["ranges"] for each in nodes]
    assert networks[1] == [[{"subnet": nodes[1].pod_network}]]


def test_nothing_of_two_clusters_is_at_the_same_place(tmp_path: Path) -> None:
    one, two = (Layout(name, tmp_path / name) for name in ("one", "two"))
    assert one.cgroup != two.cgroup
    assert one.marker != two.marker
    assert not set(one.mounts().values()) & set(two.mounts().values())
    serving = pki.Certificate(tmp_path / "crt", tmp_path / "key")
    assert str(two.folder) not in node.kubelet_config(one, serving)
    assert json.loads(node.kubelet_config(one, serving))["cgroupRoot"] == f"/{one.cgroup}"


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        ({}, "8"),
        ({"capacity": {"nvidia.com/gpu": "8"}, "allocatable": {"nvidia.com/gpu": "0"}}, "8"),
        ({"capacity": {"nvidia.com/gpu": "4"}, "allocatable": {"nvidia.com/gpu": "4"}}, "8"),
        ({"capacity": {"nvidia.com/gpu": "8"}, "allocatable": {"nvidia.com/gpu": "8"}}, None),
    ],
)
def test_gpus_are_written_only_where_they_lack(status: dict[str, object], expected: str | None) -> None:
    patch = gpus.lacking({"status": status}, 8)
    if expected is None:
        assert patch is None
    else:
        assert patch is not None
        assert {part: patch["status"][part]["nvidia.com/gpu"] for part in ("capacity", "allocatable")} == {
            "capacity": expected,
            "allocatable": expected,
        }


def test_cgroup_hierarchies_of_both_versions_are_found() -> None:
    mounts = (
        "tmpfs /sys/fs/cgroup tmpfs rw 0 0\n"
        "cgroup /sys/fs/cgroup/memory cgroup rw,memory 0 0\n"
        "cgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n"
    )
    assert cgroups.hierarchies(mounts) == [Path("/sys/fs/cgroup/memory"), Path("/sys/fs/cgroup/unified")]


def test_a_certificate_with_names_is_a_servers() -> None:
    assert "serverAuth" in pki.extensions(dns=["a"], ips=["10.0.0.1"])
    assert "DNS:a,IP:10.0.0.1" in pki.extensions(dns=["a"], ips=["10.0.0.1"])
    assert "clientAuth" in pki.extensions()


def test_only_a_cluster_with_nodes_waits_for_service_accounts(tmp_path: Path) -> None:
    pair = pki.Certificate(tmp_path / "crt", tmp_path / "key")
    arguments = {
        has_nodes: flags.ApiServer(
            etcd_url="http://127.0.0.1:2379", bind_address="127.0.0.1", advertise_address="127.0.0.1", port=1,
            serving=pair, authority=tmp_path, kubelet_client=pair, service_accounts=pair,
            audit_policy=tmp_path, audit_log=tmp_path, has_nodes=has_nodes,
        ).arguments()
        for has_nodes in (True, False)
    }  # fmt: skip
    assert "--disable-admission-plugins=ServiceAccount" in arguments[False]
    assert "--disable-admission-plugins=ServiceAccount" not in arguments[True]
