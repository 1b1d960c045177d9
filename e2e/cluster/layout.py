"""Names, addresses and paths of one local cluster: everything that follows from its name alone."""

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

from e2e.cluster import cache
from e2e.cluster.errors import ClusterError

DEFAULT_NAME = "aixcoder"
NODE_NETWORK = "10.87.0.0/24"
CONTROL_PLANE_IP = "10.87.0.1"
API_PORT = 6443
DNS_IP = "10.96.0.10"
POD_NETWORK = "10.86.0.0/16"
# Kubernetes names the sandbox's image; any name does that nothing else uses.
PAUSE_IMAGE = "docker.io/aixcoder/pause:1"
# Local ports of the host: below Linux's ephemeral range, so that no outgoing connection holds one by chance.
_FIRST_LOCAL_PORT = 20000
_LOCAL_PORTS = 10000
# The kernel's limit is 107; containerd adds `.ttrpc`.
_SOCKET_PATH = 100


@dataclass(frozen=True)
class Node:
    """One node. Node 0 shares the control plane's network namespace; others get one of their own."""

    index: int

    @property
    def name(self) -> str:
        """The Node object's name."""
        return f"node-{self.index}"

    @property
    def ip(self) -> str:
        """Its address in NODE_NETWORK."""
        return CONTROL_PLANE_IP if self.index == 0 else f"10.87.0.{10 + self.index}"

    @property
    def pod_network(self) -> str:
        """What its pods' addresses are taken from."""
        return f"10.86.{self.index}.0/24"


@dataclass(frozen=True)
class Layout:
    """Where a cluster keeps what. The folder is the cluster's alone and goes with it."""

    name: str
    folder: Path

    @property
    def pki(self) -> Path:
        """Keys and certificates."""
        return self.folder / "pki"

    @property
    def logs(self) -> Path:
        """One file a program."""
        return self.folder / "logs"

    @property
    def kubeconfig(self) -> Path:
        """The administrator's, for programs on the host."""
        return self.folder / "kubeconfig"

    @property
    def audit_log(self) -> Path:
        """The API server's: one JSON object a line."""
        return self.logs / "audit.log"

    @property
    def control_socket(self) -> Path:
        """Where the supervisor takes commands."""
        return self.folder / "control.sock"

    @property
    def containerd_socket(self) -> Path:
        """Containerd's."""
        return self.folder / "containerd.sock"

    @property
    def cgroup(self) -> str:
        """The cgroup that holds all pods, from the hierarchy's root."""
        return f"aixcoder-{self.name}"

    @property
    def marker(self) -> str:
        """The entry in the environment of each of the cluster's processes by which they are found and ended."""
        return f"AIXCODER_CLUSTER_PROCESS={self.folder}"

    def mounts(self) -> dict[Path, Path]:
        """Fixed paths that kubelet, containerd and CNI use → the cluster's own folder there, in its mount namespace."""
        return {
            Path("/run"): self.folder / "run",
            Path("/var/lib/kubelet"): self.folder / "kubelet",
            Path("/var/lib/cni"): self.folder / "cni",
            Path("/var/log/containers"): self.folder / "container-logs",
        }


def layout(name: str) -> Layout:
    """The layout of cluster `name`. Raises ClusterError for a name that would not do in paths and cgroups."""
    if not re.fullmatch(r"[a-z0-9]([a-z0-9-]{0,18}[a-z0-9])?", name):
        raise ClusterError(f"A cluster's name is up to 20 lower-case letters, digits and hyphens, not {name!r}.")
    made = Layout(name, cache.root() / "clusters" / name)
    if len(str(made.containerd_socket)) > _SOCKET_PATH:
        raise ClusterError(f"{made.folder} is too long a path for sockets; set XDG_CACHE_HOME to a shorter one.")
    return made


def local_port(cluster: str, forward: str) -> int:
    """The host's port that this forward of this cluster tries first: the same each time, others for other clusters."""
    digest = hashlib.sha256(f"{cluster}/{forward}".encode()).digest()
    return _FIRST_LOCAL_PORT + int.from_bytes(digest[:4], "big") % _LOCAL_PORTS
