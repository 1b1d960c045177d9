"""A control plane without nodes for component tests: etcd, the API server and, where asked for, controllers.

    with ControlPlane() as plane:
        subprocess.run(["kubectl", "--kubeconfig", plane.kubeconfig, "get", "namespaces"])

Everything listens on 127.0.0.1, lies in one temporary folder and ends with the process that started it.
"""

import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

from e2e.cluster import debian, flags, programs
from e2e.cluster.api import Api
from e2e.cluster.errors import ClusterError
from e2e.cluster.pki import Authority

_START_SECONDS = 60.0
_STOP_SECONDS = 10.0
_LOG_LINES = 15


class ControlPlane:
    """etcd and kube-apiserver, as plain processes.

    With `controllers` the controller manager runs too (garbage collection, ReplicaSets, EndpointSlices, namespaces
    that end, service accounts); with `scheduler` the scheduler, for tests that bring nodes of their own. `audit` is the
    level of the log at `audit_log`: one JSON object a line, written before the request is answered.
    """

    def __init__(
        self, *, controllers: bool = False, scheduler: bool = False, audit: flags.AuditLevel = "Metadata"
    ) -> None:
        self._controllers = controllers
        self._scheduler = scheduler
        self._audit = audit
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._folder: Path | None = None

    @property
    def folder(self) -> Path:
        """The temporary folder with data, keys and logs. Raises ClusterError before `start`."""
        if self._folder is None:
            raise ClusterError("The control plane is not started.")
        return self._folder

    @property
    def kubeconfig(self) -> Path:
        """The administrator's kubeconfig."""
        return self.folder / "admin.kubeconfig"

    @property
    def audit_log(self) -> Path:
        """The API server's audit log, one JSON object a line."""
        return self.folder / "audit.log"

    @property
    def url(self) -> str:
        """`https://127.0.0.1:PORT`."""
        return self._url

    @property
    def authority(self) -> Authority:
        """The certificate authority that the API server trusts for clients and is itself known by."""
        return self._authority

    def start(self) -> Self:
        """Start everything, until the API server is ready: about 3 s. Raises ClusterError with its log's end."""
        debian.install({"openssl": "openssl", "setpriv": "util-linux"})
        kubernetes, node = programs.kubernetes_programs(), debian.node_programs()
        self._folder = Path(tempfile.mkdtemp(prefix="aixcoder-control-plane-"))
        try:
            self._start(kubernetes, node / "usr/bin/etcd")
        except BaseException:
            self.stop()
            raise
        return self

    def _start(self, kubernetes: Path, etcd: Path) -> None:
        etcd_port, peer_port, api_port, manager_port, scheduler_port = free_ports(5)
        self._url = f"https://127.0.0.1:{api_port}"
        etcd_url = f"http://127.0.0.1:{etcd_port}"
        peer_url = f"http://127.0.0.1:{peer_port}"
        self._spawn("etcd", etcd, flags.etcd(data=self.folder / "etcd", client_url=etcd_url, peer_url=peer_url))
        self._authority = authority = Authority(self.folder / "pki")
        keys = authority.service_account_keys()
        (self.folder / "audit-policy.yaml").write_text(flags.audit_policy(self._audit))
        api_server = flags.ApiServer(
            etcd_url=etcd_url,
            bind_address="127.0.0.1",
            advertise_address="127.0.0.1",
            port=api_port,
            serving=authority.issue("apiserver", user="kube-apiserver", dns=["localhost"], ips=["127.0.0.1"]),
            authority=authority.certificate,
            kubelet_client=authority.issue("kubelet-client", user="apiserver-kubelet-client", group="system:masters"),
            service_accounts=keys,
            audit_policy=self.folder / "audit-policy.yaml",
            audit_log=self.audit_log,
            has_nodes=False,
        )
        self._spawn("kube-apiserver", kubernetes / "kube-apiserver", api_server.arguments())
        admin = authority.issue("admin", user="admin", group="system:masters")
        authority.kubeconfig(self.kubeconfig, server=self.url, user=admin)
        self.api = Api(self.url, authority=authority.certificate, user=admin)
        self._wait_until_ready()
        if self._controllers:
            config = self.kubeconfig_for("system:kube-controller-manager")
            arguments = flags.controller_manager(
                kubeconfig=config, service_account_key=keys.key, authority=authority.certificate, port=manager_port
            )
            self._spawn("kube-controller-manager", kubernetes / "kube-controller-manager", arguments)
        if self._scheduler:
            config = self.kubeconfig_for("system:kube-scheduler")
            arguments = flags.scheduler(kubeconfig=config, port=scheduler_port)
            self._spawn("kube-scheduler", kubernetes / "kube-scheduler", arguments)

    def stop(self) -> None:
        """End every process and remove the folder. Does nothing the second time."""
        for process in reversed(self._processes.values()):
            process.kill()
        for process in self._processes.values():
            process.wait(_STOP_SECONDS)
        self._processes.clear()
        if self._folder is not None:
            shutil.rmtree(self._folder)
            self._folder = None

    def kubeconfig_for(self, user: str, *, group: str = "") -> Path:
        """A kubeconfig for any user name, for tests of what RBAC grants."""
        name = user.replace(":", "-").replace("/", "-")
        certificate = self.authority.issue(name, user=user, group=group)
        return self.authority.kubeconfig(self.folder / f"{name}.kubeconfig", server=self.url, user=certificate)

    def kubectl(self, *arguments: str, stdin: str = "") -> str:
        """Run kubectl as the administrator and return its stdout. Raises ClusterError with its stderr."""
        command = [str(programs.kubernetes_programs() / "kubectl"), f"--kubeconfig={self.kubeconfig}", *arguments]
        done = subprocess.run(command, input=stdin, capture_output=True, text=True, check=False, timeout=120)
        if done.returncode != 0:
            raise ClusterError(f"kubectl {' '.join(arguments)}: {done.stderr.strip()}")
        return done.stdout

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _spawn(self, name: str, program: Path, arguments: Sequence[str]) -> None:
        # setpriv: the program dies with this one, even where this one is killed and `stop` never runs.
        command = ["setpriv", "--pdeathsig", "KILL", str(program), *arguments]
        with (self.folder / f"{name}.log").open("wb") as log:
            self._processes[name] = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self.folder, start_new_session=True
            )

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + _START_SECONDS
        while not self.api.ready():
            for name, process in self._processes.items():
                if process.poll() is not None:
                    raise ClusterError(f"{name} ended with {process.returncode}:\n{self._log_end(name)}")
            if time.monotonic() > deadline:
                raise ClusterError(f"No ready API server in {_START_SECONDS:.0f} s:\n{self._log_end('kube-apiserver')}")
            time.sleep(0.05)

    def _log_end(self, name: str) -> str:
        lines = (self.folder / f"{name}.log").read_text(errors="replace").splitlines()
        return "\n".join(lines[-_LOG_LINES:])


def free_ports(count: int) -> list[int]:
    """Ports of 127.0.0.1 that nobody listens on now, all different."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for held in sockets:
            held.bind(("127.0.0.1", 0))
        return [held.getsockname()[1] for held in sockets]
