"""The local cluster itself: it comes up however the last run ended, and leaves nothing behind."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from e2e.cluster import cgroups, processes
from e2e.cluster.local import LocalCluster

CHECKOUT = Path(__file__).resolve().parents[1]
PATIENCE_SECONDS = 120.0
LONG = pytest.mark.long


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalCluster]:
    """One cluster for the whole file, in whatever state the last test left it: `up` copes."""
    made = LocalCluster("selftest")
    yield made
    made.down()


@pytest.fixture
def other_cluster() -> Iterator[LocalCluster]:
    made = LocalCluster("selftest-other")
    yield made
    made.down()


def test_up_is_quick_and_changes_nothing_the_second_time(cluster: LocalCluster) -> None:
    cluster.down()
    start = time.monotonic()
    cluster.up(gpus=3)
    first = time.monotonic() - start
    before = started(cluster)
    start = time.monotonic()
    cluster.up(gpus=3)
    print(f"\nup: {first:.1f} s, up again: {time.monotonic() - start:.2f} s")
    assert started(cluster) == before
    assert gpus(cluster) == "3"
    cluster.kubectl("get", "serviceaccount", "default")

    cluster.up(gpus=5)
    assert started(cluster) == before
    assert gpus(cluster) == "5"


def test_a_pod_runs_and_reaches_services_by_name(cluster: LocalCluster) -> None:
    cluster.up()
    address = cluster.kubectl("get", "service", "kubernetes", "-o", "jsonpath={.spec.clusterIP}")
    container = {
        "name": "resolver",
        "image": base_image(cluster),
        "command": ["nslookup", "kubernetes.default.svc.cluster.local"],
    }
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "resolver"},
        "spec": {"restartPolicy": "Never", "containers": [container]},
    }
    cluster.kubectl("apply", "-f", "-", stdin=json.dumps(pod))
    cluster.kubectl("wait", "--for=jsonpath={.status.phase}=Succeeded", "pod/resolver", "--timeout=60s")
    assert address in cluster.kubectl("logs", "resolver")


def test_a_forward_reaches_a_service_from_the_host(cluster: LocalCluster) -> None:
    cluster.up()
    port = cluster.forward("metrics", "kubernetes.default.svc:443")
    assert cluster.forward("metrics", "kubernetes.default.svc:443") == port
    with socket.create_connection(("127.0.0.1", port), timeout=10) as plain:
        plain.sendall(b"GET / HTTP/1.0\r\n\r\n")
        assert b"HTTP request to an HTTPS server" in plain.recv(4096)
    cluster.unforward("metrics")
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), timeout=10)


def test_what_has_no_server_behind_it_is_reset_not_held(cluster: LocalCluster) -> None:
    cluster.up()
    port = cluster.forward("nowhere", "absent.default.svc:80")
    with pytest.raises(ConnectionResetError), socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connection.recv(1)
    cluster.unforward("nowhere")


def test_gpus_stay_when_the_node_registers_anew(cluster: LocalCluster) -> None:
    cluster.up(gpus=8)
    restarts = cluster.status()["restarts"]["kubelet"]
    cluster.kubectl("delete", "node", "node-0")
    [kubelet] = [p for p in processes.marked(cluster.layout.marker) if p.program == "kubelet"]
    os.kill(kubelet.pid, signal.SIGKILL)
    start = time.monotonic()
    until(lambda: cluster.kubectl("get", "node", "-o", "name") == "node/node-0\n")
    until(lambda: gpus(cluster) == "8")
    print(f"\nGPUs are back {time.monotonic() - start:.1f} s after kubelet was killed")
    cluster.kubectl("wait", "--for=condition=Ready", "node/node-0", "--timeout=60s")
    assert gpus(cluster) == "8"
    assert cluster.status()["restarts"]["kubelet"] == restarts + 1


def test_down_leaves_nothing(cluster: LocalCluster) -> None:
    cluster.up()
    container = {"name": "sleeper", "image": base_image(cluster), "command": ["sleep", "600"]}
    template = {"metadata": {"labels": {"app": "sleeper"}}, "spec": {"containers": [container]}}
    deployment = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "sleeper"},
        "spec": {"replicas": 2, "selector": {"matchLabels": {"app": "sleeper"}}, "template": template},
    }
    cluster.kubectl("apply", "-f", "-", stdin=json.dumps(deployment))
    cluster.kubectl("rollout", "status", "deployment/sleeper", "--timeout=60s")
    inside = processes_below(cluster)
    assert len([program for _, _, program in inside if program == "sleep"]) == 2
    assert cgroup_folders(cluster)
    assert len([line for line in mounts_of(cluster) if "overlay" in line]) >= 2

    start = time.monotonic()
    cluster.down()
    print(f"\ndown: {time.monotonic() - start:.2f} s")

    # A namespace lives by its processes or by a mount of it; neither is left.
    assert not inside & set(running())
    assert_nothing_left(cluster)
    cluster.down()


def test_two_clusters_at_once(cluster: LocalCluster, other_cluster: LocalCluster) -> None:
    ups = [command("up", each, "--gpus", count) for each, count in ((cluster, "2"), (other_cluster, "4"))]
    assert [up.wait(PATIENCE_SECONDS) for up in ups] == [0, 0]
    cluster.kubectl("create", "namespace", "only-here")
    assert "only-here" not in other_cluster.kubectl("get", "namespaces")
    assert (gpus(cluster), gpus(other_cluster)) == ("2", "4")
    assert cluster.environment()["KUBECONFIG"] != other_cluster.environment()["KUBECONFIG"]

    cluster.down()
    assert_nothing_left(cluster)
    other_cluster.kubectl("wait", "--for=condition=Ready", "node/node-0", "--timeout=60s")


@pytest.mark.parametrize("seconds", [pytest.param(0.5, marks=LONG), 2.0, pytest.param(5.0, marks=LONG)])
def test_up_killed_in_its_middle_is_repaired_by_up(cluster: LocalCluster, seconds: float) -> None:
    cluster.down()
    killed = command("up", cluster)
    time.sleep(seconds)
    killed.kill()
    killed.wait()
    cluster.up(gpus=1)
    assert gpus(cluster) == "1"


@pytest.mark.parametrize("seconds", [pytest.param(0.0, marks=LONG), 2.0])
def test_a_supervisor_killed_in_its_middle_is_repaired(cluster: LocalCluster, seconds: float) -> None:
    cluster.down()
    up = command("up", cluster)
    until(lambda: bool(supervisor(cluster)))
    time.sleep(seconds)
    os.kill(supervisor(cluster)[0], signal.SIGKILL)
    # Either that `up` says so, or the kill came too late for it to notice.
    up.wait(PATIENCE_SECONDS)
    cluster.down()
    assert_nothing_left(cluster)


@pytest.mark.parametrize("repair", ["up", pytest.param("down", marks=LONG)])
def test_down_killed_in_its_middle_is_repaired(cluster: LocalCluster, repair: str) -> None:
    cluster.up()
    killed = command("down", cluster)
    # Its first act is to kill the processes: from then on the cgroup and the folder are left over.
    until(lambda: len(processes.marked(cluster.layout.marker)) < 5)
    killed.kill()
    killed.wait()
    if repair == "up":
        cluster.up(gpus=1)
        assert gpus(cluster) == "1"
    else:
        cluster.down()
        assert_nothing_left(cluster)


def command(what: str, cluster: LocalCluster, *options: str) -> subprocess.Popen[bytes]:
    arguments = [sys.executable, "-m", "e2e.cluster", what, "--name", cluster.layout.name, *options]
    return subprocess.Popen(arguments, cwd=CHECKOUT)


def until(happened: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def gpus(cluster: LocalCluster) -> str:
    return cluster.kubectl("get", "nodes", "-o", r"jsonpath={.items[*].status.allocatable.nvidia\.com/gpu}")


def base_image(cluster: LocalCluster) -> str:
    from e2e.images import base, oci

    image = oci.Image("aixcoder/selftest:1", [base.layer()], environment={"PATH": "/usr/bin"})
    cluster.load([image])
    return image.reference


def started(cluster: LocalCluster) -> set[tuple[int, int]]:
    return {(p.pid, p.started) for p in processes.marked(cluster.layout.marker) if p.program != "containerd-shim"}


def supervisor(cluster: LocalCluster) -> list[int]:
    return [p.pid for p in processes.marked(cluster.layout.marker) if p.program.startswith("python")]


def running() -> Iterator[tuple[int, str, str]]:
    """All processes of the machine but the ended ones that nobody has waited for: id, start time, program."""
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                program, _, rest = Path(f"/proc/{name}/stat").read_text().partition("(")[2].rpartition(")")
            except OSError:
                continue
            if not rest.startswith(" Z"):
                yield int(name), rest.split()[19], program


def processes_below(cluster: LocalCluster) -> set[tuple[int, str, str]]:
    """The processes in the cluster's process namespace and in those of its pods."""
    [kubelet] = [p for p in processes.marked(cluster.layout.marker) if p.program == "kubelet"]
    root = os.readlink(f"/proc/{kubelet.pid}/ns/pid")
    return {process for process in running() if is_below(process[0], root)}


def is_below(pid: int, root: str) -> bool:
    try:
        own = os.readlink(f"/proc/{pid}/ns/pid")
        parent = int(Path(f"/proc/{pid}/status").read_text().partition("PPid:")[2].split()[0])
    except OSError:
        return False
    return own == root or (parent > 0 and is_below(parent, root))


def mounts_of(cluster: LocalCluster) -> list[str]:
    """Mounts below the cluster's folder, as any process of the machine sees them."""
    found: set[str] = set()
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            lines = Path(f"/proc/{pid}/mountinfo").read_text().splitlines()
        except OSError:
            continue
        found |= {line for line in lines if f"{cluster.layout.folder}/" in line}
    return sorted(found)


def cgroup_folders(cluster: LocalCluster) -> list[Path]:
    mounted = cgroups.hierarchies(Path("/proc/self/mounts").read_text())
    return [hierarchy / cluster.layout.cgroup for hierarchy in mounted if (hierarchy / cluster.layout.cgroup).exists()]


def assert_nothing_left(cluster: LocalCluster) -> None:
    assert processes.marked(cluster.layout.marker) == []
    assert mounts_of(cluster) == []
    assert cgroup_folders(cluster) == []
    assert not cluster.layout.folder.exists()
    assert cluster.status()["phase"] == "down"
