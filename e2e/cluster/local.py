"""The local cluster from outside: bring it up, reach it, load images into it, take it away.

    cluster = LocalCluster("aixcoder")
    cluster.up(gpus=8)
    cluster.kubectl("get", "nodes")

Every call may follow a run that was killed in its middle: it finds what that left by itself.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

from e2e.cluster import cache, cgroups, control, debian, processes, programs, progress
from e2e.cluster.control import Answer
from e2e.cluster.errors import ClusterError, NotAvailableError
from e2e.cluster.layout import DEFAULT_NAME, layout
from e2e.cluster.namespaces import unshare_command
from e2e.images import oci, pause
from e2e.images.oci import Image

DEFAULT_GPUS = 8
GATEWAY_FORWARD = "gateway"
_CHECKOUT = Path(__file__).resolve().parents[2]
_UP_SECONDS = 180.0
_GONE_SECONDS = 2.0
_PACKAGES = {
    "ip": "iproute2",
    "mount": "mount",
    "nft": "nftables",
    "openssl": "openssl",
    "runc": "runc",
    "unshare": "util-linux",
}


class LocalCluster:
    """One cluster of this machine, by name, whether it runs or not."""

    def __init__(self, name: str = DEFAULT_NAME) -> None:
        self.layout = layout(name)

    @property
    def kubeconfig(self) -> Path:
        """The administrator's kubeconfig, for programs on the host."""
        return self.layout.kubeconfig

    @property
    def audit_log(self) -> Path:
        """The API server's audit log: one JSON object a line, at level Metadata."""
        return self.layout.audit_log

    def up(self, *, gpus: int = DEFAULT_GPUS) -> None:
        """Return when the node is Ready with its GPUs and pods can be made. Quick where it runs already.

        Raises NotAvailableError where this machine cannot, ClusterError where it did not come up.
        """
        check_machine()
        debian.install(_PACKAGES)
        archive = pause.archive()
        debian.node_programs()
        with self._lock():
            status = control.ask(self.layout, "status")
            if status is None or status["phase"] == "failed":
                self._sweep()
                self._launch({"gpus": gpus, "pause_image": str(archive)})
            if status is None or status["phase"] != "ready":
                self._wait_until_ready()
            control.ask(self.layout, "gpus", count=gpus)

    def down(self) -> None:
        """Take everything away; nothing there is no error."""
        check_machine()
        with self._lock():
            self._sweep()

    def status(self) -> Answer:
        """What runs: `phase` (down, starting, ready, failed), paths, forwards, and the processes with their memory."""
        answer = control.ask(self.layout, "status") or {"phase": "down"}
        found = processes.marked(self.layout.marker)
        return {
            "name": self.layout.name,
            **answer,
            "kubeconfig": str(self.kubeconfig),
            "audit_log": str(self.audit_log),
            "logs": str(self.layout.logs),
            "processes": [{"program": p.program, "pid": p.pid, "resident_bytes": p.resident_bytes} for p in found],
        }

    def environment(self) -> dict[str, str]:
        """What programs on the host need: PATH, KUBECONFIG and, once the gateway is forwarded, AIXCODER_URL.

        Raises ClusterError where the cluster is not up.
        """
        answer = control.ask(self.layout, "status")
        if answer is None:
            raise ClusterError(f"The cluster {self.layout.name} is not up: python -m e2e.cluster up.")
        tools = str(programs.kubernetes_programs())
        path = [part for part in os.environ.get("PATH", "").split(":") if part != tools]
        variables = {"PATH": ":".join([tools, *path]), "KUBECONFIG": str(self.kubeconfig)}
        if GATEWAY_FORWARD in answer["forwards"]:
            variables["AIXCODER_URL"] = f"http://127.0.0.1:{answer['forwards'][GATEWAY_FORWARD]['port']}"
        return variables

    def forward(self, name: str, target: str, *, port: int | None = None) -> int:
        """Forward a port of the host's 127.0.0.1 to `target`, ADDRESS:PORT or SERVICE.NAMESPACE.svc:PORT; return it.

        Without `port` it is the same each time for a name, or the next free one where another program has that. Under
        the name `gateway` it also becomes AIXCODER_URL. A forward that was there under that name is replaced. Raises
        ClusterError where the cluster is not up or `port` is taken.
        """
        answer = control.ask(self.layout, "forward", name=name, target=target, port=port)
        if answer is None:
            raise ClusterError(f"The cluster {self.layout.name} is not up: python -m e2e.cluster up.")
        return int(answer["forwards"][name]["port"])

    def unforward(self, name: str) -> None:
        """Take a forward away; one that is not there is no error."""
        control.ask(self.layout, "unforward", name=name)

    def kubectl(self, *arguments: str, stdin: str = "", timeout: float = 120) -> str:
        """Run kubectl as the administrator and return its stdout. Raises ClusterError with its stderr."""
        return self._run("kubectl", arguments, stdin, timeout)

    def helm(self, *arguments: str, stdin: str = "", timeout: float = 600) -> str:
        """Run Helm as the administrator and return its stdout. Raises ClusterError with its stderr."""
        return self._run("helm", arguments, stdin, timeout)

    def ctr(self, *arguments: str, timeout: float = 600) -> str:
        """Run containerd's client in Kubernetes' namespace. Raises ClusterError with its stderr."""
        program = debian.node_programs() / "usr/bin/ctr"
        command = [str(program), "--address", str(self.layout.containerd_socket), "--namespace", "k8s.io", *arguments]
        return _checked(command, stdin="", timeout=timeout)

    def load(self, images: Sequence[Image]) -> None:
        """Put images on the node; those it has, and layers it has, cost nothing."""
        present = {tuple(line.split()[:3:2]) for line in self.ctr("images", "list").splitlines()[1:]}
        new = [image for image in images if (oci.full_reference(image.reference), image.digest) not in present]
        if not new:
            return
        stored = set(self.ctr("content", "list", "--quiet").split())
        with tempfile.TemporaryDirectory(dir=self.layout.folder) as scratch:
            archive = Path(scratch) / "images.tar"
            oci.write_archive(archive, new, without=lambda layer: layer.digest in stored)
            self.ctr("images", "import", str(archive))

    def _run(self, program: str, arguments: tuple[str, ...], stdin: str, timeout: float) -> str:
        path = programs.kubernetes_programs() / program
        return _checked([str(path), *arguments], stdin=stdin, timeout=timeout, environment=self.environment())

    def _launch(self, options: Mapping[str, object]) -> None:
        cluster = self.layout
        cluster.folder.mkdir(parents=True)
        cluster.logs.mkdir()
        # CoreDNS refuses what is not the cluster's, at once; a server out of reach would take a time-out.
        (cluster.folder / "resolv.conf").write_text("nameserver 10.87.0.1\n")
        (cluster.folder / "options.json").write_text(json.dumps(options))
        for target in cluster.mounts():
            target.mkdir(parents=True, exist_ok=True)
        name, _, value = cluster.marker.partition("=")
        # Not the virtual environment's Python: the cluster outlives it.
        interpreter = os.path.realpath(sys.executable)
        command = unshare_command([interpreter, "-m", "e2e.cluster.supervisor", cluster.name])
        # Little of the caller's environment: a proxy's address there would catch the cluster's own requests.
        environment = {key: os.environ[key] for key in ("HOME", "XDG_CACHE_HOME") if key in os.environ}
        environment["PATH"] = f"{os.environ['PATH']}:/usr/local/sbin:/usr/sbin:/sbin"
        environment |= {"PYTHONPATH": str(_CHECKOUT), name: value}
        with (cluster.logs / "supervisor.log").open("wb") as log:
            # --fork: an orphan at once, so that whoever called this has no child to wait for.
            subprocess.run(
                ["setsid", "--fork", *command],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd="/", env=environment, check=True,
            )  # fmt: skip

    def _wait_until_ready(self) -> None:
        told = 0
        start = alive = time.monotonic()
        while True:
            status = control.ask(self.layout, "status")
            for text, seconds in (status or {"steps": []})["steps"][told:]:
                progress.say(f"  {text}: {seconds:.1f} s")
                told += 1
            if status and status["phase"] == "failed":
                raise ClusterError(f"The cluster {self.layout.name} did not come up. {status['error']}")
            if status and status["phase"] == "ready":
                return
            if status is not None or processes.marked(self.layout.marker):
                alive = time.monotonic()
            # A process has no environment for a moment while it becomes another program.
            if time.monotonic() - alive > _GONE_SECONDS:
                log = self.layout.logs / "supervisor.log"
                raise ClusterError(f"The cluster's supervisor ended:\n{log.read_text().strip()}")
            if time.monotonic() - start > _UP_SECONDS:
                raise ClusterError(f"Not up after {_UP_SECONDS:.0f} s; logs: {self.layout.logs}.")
            time.sleep(0.1)

    def _sweep(self) -> None:
        processes.kill_marked(self.layout.marker)
        cgroups.remove(self.layout.cgroup)
        # Its mounts were in a namespace that went with the processes: nothing of others can lie below.
        if self.layout.folder.exists():
            shutil.rmtree(self.layout.folder)

    def _lock(self) -> AbstractContextManager[None]:
        return cache.lock(f"cluster-{self.layout.name}")


def check_machine() -> None:
    """Raise NotAvailableError where a cluster cannot run: not Linux, or not root."""
    if sys.platform != "linux":
        raise NotAvailableError(f"The local cluster needs Linux, and this is {sys.platform}.")
    if os.geteuid() != 0:
        raise NotAvailableError("The local cluster needs root, for namespaces, mounts and cgroups.")


def clean(*, unused_days: float) -> None:
    """Take every cluster of this cache away, and what the cache holds that nobody asked for since so many days."""
    for name in clusters():
        LocalCluster(name).down()
        progress.say(f"Cluster {name} is gone.")
    for removed in cache.prune(unused_days=unused_days):
        progress.say(f"Removed from the cache: {removed}")


def clusters() -> list[str]:
    """Names of the clusters that have a folder in the cache, running or left over."""
    folder = cache.root() / "clusters"
    return sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []


def _checked(command: list[str], *, stdin: str, timeout: float, environment: Mapping[str, str] | None = None) -> str:
    variables = {**os.environ, **(environment or {})}
    done = subprocess.run(
        command, input=stdin, capture_output=True, text=True, check=False, timeout=timeout, env=variables
    )
    if done.returncode != 0:
        shown = " ".join([Path(command[0]).name, *command[1:]])
        raise ClusterError(f"{shown}: {done.stderr.strip()}")
    return done.stdout
