"""Configuration of what runs on a node, as text and arguments: containerd, CNI, kubelet, kube-proxy; and of DNS."""

import json
from pathlib import Path

from e2e.cluster.flags import CLUSTER_DOMAIN
from e2e.cluster.layout import CONTROL_PLANE_IP, DNS_IP, PAUSE_IMAGE, POD_NETWORK, Layout, Node
from e2e.cluster.pki import Certificate

_UNUSED_PLUGINS = [
    "io.containerd.snapshotter.v1.blockfile",
    "io.containerd.snapshotter.v1.btrfs",
    "io.containerd.snapshotter.v1.devmapper",
    "io.containerd.snapshotter.v1.zfs",
    "io.containerd.internal.v1.opt",
    "io.containerd.nri.v1.nri",
    "io.containerd.tracing.processor.v1.otlp",
]


def containerd_config(layout: Layout, node_programs: Path, runc: Path) -> str:
    """Containerd's config.toml."""
    folder = layout.folder / "containerd"
    cri = "io.containerd.cri.v1"
    return f"""\
version = 3
root = "{folder}/root"
state = "{folder}/state"
disabled_plugins = {json.dumps(_UNUSED_PLUGINS)}

[grpc]
address = "{layout.containerd_socket}"

[plugins."{cri}.images"]
snapshotter = "overlayfs"
[plugins."{cri}.images".pinned_images]
sandbox = "{PAUSE_IMAGE}"

[plugins."{cri}.runtime"]
disable_apparmor = true
# Root in a virtual machine may lack CAP_SYS_RESOURCE, and then no sandbox may lower its OOM score.
restrict_oom_score_adj = true
[plugins."{cri}.runtime".cni]
bin_dirs = ["{node_programs}/usr/lib/cni"]
conf_dir = "{folder}/cni"
[plugins."{cri}.runtime".containerd]
default_runtime_name = "runc"
[plugins."{cri}.runtime".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
[plugins."{cri}.runtime".containerd.runtimes.runc.options]
SystemdCgroup = false
BinaryName = "{runc}"
Root = "{folder}/runc"

[plugins."io.containerd.grpc.v1.cri"]
stream_server_address = "127.0.0.1"
stream_server_port = "0"
"""


def cni_config(node: Node) -> str:
    """The pods' network of one node: a bridge, addresses of the node's own range, host ports."""
    address_management = {
        "type": "host-local",
        "dataDir": "/var/lib/cni/addresses",
        "ranges": [[{"subnet": node.pod_network}]],
        "routes": [{"dst": "0.0.0.0/0"}],
    }
    # No masquerading: nothing lies beyond the cluster's own network.
    bridge = {"type": "bridge", "bridge": "pods0", "isGateway": True, "hairpinMode": True, "ipam": address_management}
    ports = {"type": "portmap", "backend": "nftables", "capabilities": {"portMappings": True}}
    return json.dumps({"cniVersion": "1.0.0", "name": "pods", "plugins": [bridge, ports]}, indent=1)


def kubelet_config(layout: Layout, serving: Certificate) -> str:
    """KubeletConfiguration, as JSON."""
    config = {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "failCgroupV1": False,
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": f"/{layout.cgroup}",
        "oomScoreAdj": 0,
        "maxOpenFiles": 20000,
        "resolvConf": str(layout.folder / "resolv.conf"),
        "clusterDNS": [DNS_IP],
        "clusterDomain": CLUSTER_DOMAIN,
        "containerRuntimeEndpoint": f"unix://{layout.containerd_socket}",
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
            "x509": {"clientCAFile": str(layout.pki / "ca.crt")},
        },
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": str(serving.certificate),
        "tlsPrivateKeyFile": str(serving.key),
        "podLogsDir": str(layout.folder / "pod-logs"),
        "volumePluginDir": "/var/lib/kubelet/volume-plugins",
        "makeIPTablesUtilChains": False,
        # There is no registry to pull from again: an image goes only with the cluster.
        "imageGCHighThresholdPercent": 100,
        "evictionHard": {"memory.available": "100Mi", "nodefs.available": "1%", "imagefs.available": "1%"},
        "serializeImagePulls": False,
    }
    return json.dumps(config, indent=1)


def kubelet_arguments(node: Node, *, kubeconfig: Path, config: Path) -> list[str]:
    """Kubelet's command line; the rest is in its configuration file."""
    return [
        f"--kubeconfig={kubeconfig}",
        f"--config={config}",
        f"--hostname-override={node.name}",
        f"--node-ip={node.ip}",
    ]


def kube_proxy_arguments(node: Node, *, kubeconfig: Path) -> list[str]:
    """kube-proxy with nftables. Limits of connection tracking are the machine's, not a namespace's: 0 keeps them."""
    return [
        f"--kubeconfig={kubeconfig}",
        f"--hostname-override={node.name}",
        f"--cluster-cidr={POD_NETWORK}",
        "--proxy-mode=nftables",
        "--conntrack-max-per-core=0",
        "--conntrack-tcp-timeout-established=0s",
        "--conntrack-tcp-timeout-close-wait=0s",
    ]


def corefile(kubeconfig: Path) -> str:
    """CoreDNS for the cluster's own names; it forwards nothing, so any other name is refused at once."""
    return f"""\
.:53 {{
    bind {CONTROL_PLANE_IP}
    errors
    ready 127.0.0.1:8181
    kubernetes {CLUSTER_DOMAIN} in-addr.arpa {{
        kubeconfig {kubeconfig}
        ttl 5
    }}
    cache 5
}}
"""


def dns_objects() -> dict[str, dict[str, object]]:
    """API path → object: the Service `kube-dns` with the one endpoint, CoreDNS on the control plane's address."""
    ports = [{"name": "dns", "port": 53, "protocol": "UDP"}, {"name": "dns-tcp", "port": 53, "protocol": "TCP"}]
    service: dict[str, object] = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "kube-dns", "namespace": "kube-system"},
        "spec": {"clusterIP": DNS_IP, "ports": ports},
    }
    endpoints: dict[str, object] = {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": "kube-dns",
            "namespace": "kube-system",
            "labels": {"kubernetes.io/service-name": "kube-dns"},
        },
        "addressType": "IPv4",
        "ports": ports,
        "endpoints": [{"addresses": [CONTROL_PLANE_IP], "conditions": {"ready": True}}],
    }
    return {
        "/api/v1/namespaces/kube-system/services/kube-dns": service,
        "/apis/discovery.k8s.io/v1/namespaces/kube-system/endpointslices/kube-dns": endpoints,
    }
