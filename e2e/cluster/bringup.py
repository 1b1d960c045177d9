"""From empty folders to a ready node, inside the cluster's namespaces."""

import os
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from e2e.cluster import cgroups, flags, node
from e2e.cluster.api import Api, ApiError
from e2e.cluster.daemons import Daemons
from e2e.cluster.errors import ClusterError
from e2e.cluster.layout import API_PORT, CONTROL_PLANE_IP, DNS_IP, Layout, Node
from e2e.cluster.pki import Authority

_PATIENCE_SECONDS = 120.0


@dataclass(frozen=True)
class Tools:
    """Where the programs are."""

    kubernetes: Path
    node: Path
    runc: Path
    pause_image: Path


class BringUp:
    """The order in which things start, and how far it is."""

    def __init__(self, layout: Layout, tools: Tools, daemons: Daemons, *, local_api_port: int) -> None:
        self._layout = layout
        self._tools = tools
        self._daemons = daemons
        self._local_server = f"https://127.0.0.1:{local_api_port}"
        self._server = f"https://{CONTROL_PLANE_IP}:{API_PORT}"
        self.steps: list[tuple[str, float]] = []
        """What is done, with the seconds it took."""
        self._authority = Authority(layout.pki)
        admin = self._authority.issue("admin", user="admin", group="system:masters")
        self.api = Api(self._server, authority=self._authority.certificate, user=admin)

    def run(self, first: Node) -> None:
        """Start everything. Raises ClusterError with the log's end of what did not start."""
        with self._step("etcd, API server"):
            self._start_containerd(first)
            self._start_api_server()
            self._wait("the API server", self.api.ready)
        with self._step("node Ready"):
            self._start_controllers()
            self._wait("containerd", self._containerd_answers)
            self._load_pause_image()
            self._start_node(first)
            self._start_dns()
            self._wait(f"{first.name} to be Ready", lambda: self._is_ready(first))
        with self._step("Service network, DNS, default service account"):
            self._wait("the Service kubernetes", lambda: _connects(flags.KUBERNETES_SERVICE_IP, 443))
            self._wait("the Service kube-dns", lambda: _connects(DNS_IP, 53))
            account = "/api/v1/namespaces/default/serviceaccounts/default"
            self._wait("the default service account", lambda: self._exists(account))

    def _start_api_server(self) -> None:
        layout, authority = self._layout, self._authority
        client_url, peer_url = "http://127.0.0.1:2379", "http://127.0.0.1:2380"
        arguments = flags.etcd(data=layout.folder / "etcd", client_url=client_url, peer_url=peer_url)
        self._daemons.start("etcd", self._tools.node / "usr/bin/etcd", arguments)
        policy = layout.folder / "audit-policy.yaml"
        policy.write_text(flags.audit_policy("Metadata"))
        names = ["localhost", *_service_names("kubernetes", "default")]
        addresses = ["127.0.0.1", CONTROL_PLANE_IP, flags.KUBERNETES_SERVICE_IP]
        server = flags.ApiServer(
            etcd_url=client_url,
            bind_address="0.0.0.0",
            advertise_address=CONTROL_PLANE_IP,
            port=API_PORT,
            serving=authority.issue("apiserver", user="kube-apiserver", dns=names, ips=addresses),
            authority=authority.certificate,
            kubelet_client=authority.issue("kubelet-client", user="apiserver-kubelet-client", group="system:masters"),
            service_accounts=authority.service_account_keys(),
            audit_policy=policy,
            audit_log=layout.audit_log,
            has_nodes=True,
        )
        self._start("kube-apiserver", server.arguments())
        admin = authority.issue("admin", user="admin", group="system:masters")
        authority.kubeconfig(layout.kubeconfig, server=self._local_server, user=admin)

    def _start_controllers(self) -> None:
        manager = flags.controller_manager(
            kubeconfig=self._kubeconfig("kube-controller-manager", "system:kube-controller-manager"),
            service_account_key=self._authority.service_account_keys().key,
            authority=self._authority.certificate,
            port=10257,
        )
        self._start("kube-controller-manager", manager)
        config = self._kubeconfig("kube-scheduler", "system:kube-scheduler")
        self._start("kube-scheduler", flags.scheduler(kubeconfig=config, port=10259))

    def _start_containerd(self, at: Node) -> None:
        folder = self._layout.folder / "containerd"
        (folder / "cni").mkdir(parents=True, exist_ok=True)
        (folder / "cni/10-pods.conflist").write_text(node.cni_config(at))
        config = folder / "config.toml"
        config.write_text(node.containerd_config(self._layout, self._tools.node, self._tools.runc))
        programs = self._tools.node / "usr/bin"
        environment = {**os.environ, "PATH": f"{programs}:{os.environ['PATH']}"}  # it looks for its shim there
        self._daemons.start("containerd", programs / "containerd", [f"--config={config}"], environment)

    def _containerd_answers(self) -> bool:
        return self._ctr("version").returncode == 0

    def _load_pause_image(self) -> None:
        loaded = self._ctr("images", "import", str(self._tools.pause_image))
        if loaded.returncode != 0:
            raise ClusterError(f"The sandbox image cannot be loaded: {loaded.stderr.strip()}")

    def _ctr(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        command: list[str | Path] = [self._tools.node / "usr/bin/ctr", "--address", self._layout.containerd_socket]
        command += ["--namespace", "k8s.io", *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)

    def _start_node(self, at: Node) -> None:
        cgroups.create(self._layout.cgroup)
        config = self._layout.folder / "kubelet.json"
        serving = self._authority.issue(f"{at.name}-serving", user=at.name, dns=[at.name], ips=[at.ip])
        config.write_text(node.kubelet_config(self._layout, serving))
        identity = self._kubeconfig(at.name, f"system:node:{at.name}", "system:nodes")
        self._start("kubelet", node.kubelet_arguments(at, kubeconfig=identity, config=config))
        identity = self._kubeconfig("kube-proxy", "system:kube-proxy")
        self._start("kube-proxy", node.kube_proxy_arguments(at, kubeconfig=identity))

    def _start_dns(self) -> None:
        corefile = self._layout.folder / "Corefile"
        corefile.write_text(node.corefile(self._kubeconfig("coredns", "coredns", "system:masters")))
        self._start("coredns", ["-conf", str(corefile)])
        for path, item in node.dns_objects().items():
            self.api.apply(path, item)

    def _is_ready(self, at: Node) -> bool:
        try:
            conditions = self.api.get(f"/api/v1/nodes/{at.name}").get("status", {}).get("conditions", [])
        except ApiError:
            return False
        return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)

    def _exists(self, path: str) -> bool:
        try:
            self.api.get(path)
        except ApiError:
            return False
        return True

    def _kubeconfig(self, name: str, user: str, group: str = "") -> Path:
        certificate = self._authority.issue(name, user=user, group=group)
        path = self._layout.pki / f"{name}.kubeconfig"
        return self._authority.kubeconfig(path, server=self._server, user=certificate)

    def _start(self, name: str, arguments: list[str]) -> None:
        self._daemons.start(name, self._tools.kubernetes / name, arguments)

    def _wait(self, what: str, happened: Callable[[], bool]) -> None:
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while not happened():
            self._daemons.check()
            if time.monotonic() > deadline:
                raise ClusterError(f"Waited {_PATIENCE_SECONDS:.0f} s for {what}; logs: {self._layout.logs}.")
            time.sleep(0.05)

    @contextmanager
    def _step(self, text: str) -> Iterator[None]:
        start = time.monotonic()
        yield
        self.steps.append((text, time.monotonic() - start))


def _connects(address: str, port: int) -> bool:
    try:
        socket.create_connection((address, port), timeout=0.5).close()
    except OSError:
        return False
    return True


def _service_names(service: str, namespace: str) -> list[str]:
    return [service, f"{service}.{namespace}", f"{service}.{namespace}.svc",
            f"{service}.{namespace}.svc.{flags.CLUSTER_DOMAIN}"]  # fmt: skip
