"""The command lines of the control plane's programs, as data."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from e2e.cluster.pki import Certificate

AuditLevel = Literal["Metadata", "Request", "RequestResponse"]

SERVICE_NETWORK = "10.96.0.0/16"
KUBERNETES_SERVICE_IP = "10.96.0.1"
CLUSTER_DOMAIN = "cluster.local"


@dataclass(frozen=True)
class ApiServer:
    """What decides the API server's command line."""

    etcd_url: str
    bind_address: str
    advertise_address: str
    port: int
    serving: Certificate
    authority: Path
    kubelet_client: Certificate
    service_accounts: Certificate
    audit_policy: Path
    audit_log: Path
    has_nodes: bool
    """False: no endpoints for the Service `kubernetes`, no pod needs a service account to exist first."""

    def arguments(self) -> list[str]:
        """The arguments after the program's name."""
        arguments = [
            f"--etcd-servers={self.etcd_url}",
            f"--bind-address={self.bind_address}",
            f"--advertise-address={self.advertise_address}",
            f"--secure-port={self.port}",
            f"--service-cluster-ip-range={SERVICE_NETWORK}",
            f"--tls-cert-file={self.serving.certificate}",
            f"--tls-private-key-file={self.serving.key}",
            f"--client-ca-file={self.authority}",
            f"--service-account-key-file={self.service_accounts.certificate}",
            f"--service-account-signing-key-file={self.service_accounts.key}",
            f"--service-account-issuer=https://kubernetes.default.svc.{CLUSTER_DOMAIN}",
            f"--kubelet-client-certificate={self.kubelet_client.certificate}",
            f"--kubelet-client-key={self.kubelet_client.key}",
            "--kubelet-preferred-address-types=InternalIP",
            "--authorization-mode=Node,RBAC",
            "--enable-admission-plugins=NodeRestriction",
            "--allow-privileged=true",
            f"--audit-policy-file={self.audit_policy}",
            f"--audit-log-path={self.audit_log}",
            "--audit-log-mode=blocking",  # a test that reads the log after a request finds it there
            "--audit-log-maxsize=0",  # one file, never rotated: the clusters are short-lived
        ]
        if not self.has_nodes:
            arguments += ["--endpoint-reconciler-type=none", "--disable-admission-plugins=ServiceAccount"]
        return arguments


def etcd(*, data: Path, client_url: str, peer_url: str) -> list[str]:
    """Arguments of a single etcd that trades safety at a power cut for speed."""
    return [
        f"--data-dir={data}",
        f"--listen-client-urls={client_url}",
        f"--advertise-client-urls={client_url}",
        f"--listen-peer-urls={peer_url}",
        f"--initial-advertise-peer-urls={peer_url}",
        f"--initial-cluster=default={peer_url}",
        "--unsafe-no-fsync",
        "--log-level=warn",
    ]


def controller_manager(*, kubeconfig: Path, service_account_key: Path, authority: Path, port: int) -> list[str]:
    """Arguments of the one controller manager: no leader election, no cloud, no pod networks of nodes."""
    return [
        *_component(kubeconfig, port),
        f"--service-account-private-key-file={service_account_key}",
        f"--root-ca-file={authority}",
        "--use-service-account-credentials",
        "--kube-api-qps=200",  # at its start it makes dozens of service accounts, one after the other
        "--kube-api-burst=400",
        "--allocate-node-cidrs=false",
    ]


def scheduler(*, kubeconfig: Path, port: int) -> list[str]:
    """Arguments of the one scheduler."""
    return _component(kubeconfig, port)


def _component(kubeconfig: Path, port: int) -> list[str]:
    return [
        f"--kubeconfig={kubeconfig}",
        f"--authentication-kubeconfig={kubeconfig}",
        f"--authorization-kubeconfig={kubeconfig}",
        # Else it ends when it is faster than the API server's first role bindings.
        "--authentication-tolerate-lookup-failure=true",
        "--leader-elect=false",
        "--bind-address=127.0.0.1",
        f"--secure-port={port}",
    ]


def audit_policy(level: AuditLevel) -> str:
    """An audit policy: every request at `level`, once, when it is answered.

    Health checks are left out. Leases and events stay at Metadata, since their bodies tell a test nothing; Secrets
    too, since theirs tell too much.
    """
    return f"""\
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived, ResponseStarted]
rules:
- level: None
  nonResourceURLs: ["/readyz*", "/livez*", "/healthz*", "/version", "/openapi/*"]
- level: Metadata
  resources: [{{group: coordination.k8s.io}}, {{group: events.k8s.io}}, {{group: "", resources: [events, secrets]}}]
- level: {level}
"""
