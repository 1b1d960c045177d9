"""The demo's way onto a cluster that is there: images pushed to a registry that its nodes can pull from."""

from __future__ import annotations

import os
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from e2e.cluster import debian, progress
from e2e.cluster.errors import ClusterError, NotAvailableError
from e2e.demo import local
from e2e.demo.kubernetes import Kubernetes
from e2e.demo.release import GATEWAY_SERVICE, SYSTEM_NAMESPACE, Installation
from e2e.images import model, oci
from images import build

GPU_RESOURCE = "nvidia.com/gpu"
FORWARD_SECONDS = 30.0


def kubeconfig() -> Path:
    """The file that KUBECONFIG names. Raises ClusterError where it names none, or a list."""
    named = os.environ.get("KUBECONFIG", "")
    if not Path(named).is_file():
        raise ClusterError(f"CLUSTER=existing needs KUBECONFIG to name one file, and it is {named!r}.")
    return Path(named)


def registry() -> str:
    """Where to push to. Raises ClusterError where IMAGE_REGISTRY says nothing."""
    named = os.environ.get("IMAGE_REGISTRY", "").rstrip("/")
    if not named:
        raise ClusterError(
            "CLUSTER=existing needs IMAGE_REGISTRY: a registry and path such as registry.example.com/team, which this "
            "machine may push to and the cluster's nodes may pull from."
        )
    return named


def prepare(kubernetes: Kubernetes) -> Installation:
    """Have the images in the registry, and fit the chart's values and the example to registry and nodes.

    IMAGE_TAG names images that `make images` pushed from another machine; without it they are built and pushed here.
    """
    target = registry()
    tag = os.environ.get("IMAGE_TAG") or push(target)
    values = {"image": {"registry": target, "control": {"tag": tag}, "serving": {"tag": tag}}}
    return Installation(values, model_image=f"{target}/{model.TINY}", gpus=has_gpus(kubernetes))


def push(target: str) -> str:
    """Build the images of `images/`, push them and the tiny model to `target`; the tag, which only these sources have.

    Raises ClusterError with the way out where buildah is missing and cannot be installed.
    """
    try:
        debian.install({"buildah": "buildah"})
    except NotAvailableError as error:
        raise ClusterError(
            "The images are built by buildah, which is neither here nor to be had: on a machine with it run "
            f"`make images CLUSTER=existing IMAGE_REGISTRY={target}`, then here the command that it prints."
        ) from error
    tag = local.sources_tag()
    with build.storage() as store, tempfile.TemporaryDirectory(prefix="aixcoder-demo-") as folder:
        for name in build.IMAGES:
            build.push(store, build.build(store, name, tag, build.default_base()), target)
        archive = Path(folder) / "model.tar"
        oci.write_archive(archive, [local.tiny_model()])
        store.run("pull", f"oci-archive:{archive}", what="Reading the tiny model")
        build.push(store, model.TINY, target)
    return tag


def has_gpus(kubernetes: Kubernetes) -> bool:
    """Whether a node offers GPUs; where none does, the example asks for none."""
    nodes = kubernetes.get("nodes").get("items", [])
    return any(int(node["status"].get("allocatable", {}).get(GPU_RESOURCE, 0)) > 0 for node in nodes)


def forward_command(port: int) -> list[str]:
    """The command that makes the gateway reachable on this machine."""
    return ["port-forward", f"--namespace={SYSTEM_NAMESPACE}", GATEWAY_SERVICE, f"{port}:80"]


@contextmanager
def forwarded(kubernetes: Kubernetes) -> Iterator[str]:
    """The gateway's URL on this machine, while the context lasts."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    environment = {**os.environ, "KUBECONFIG": str(kubernetes.kubeconfig)}
    command = [str(kubernetes.kubectl_program), *forward_command(port)]
    with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL) as process:
        try:
            deadline = time.monotonic() + FORWARD_SECONDS
            while not _listens(port):
                if process.poll() is not None or time.monotonic() > deadline:
                    raise ClusterError(f"kubectl {' '.join(forward_command(port))} does not listen.")
                time.sleep(0.1)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()
    progress.say("  the port is closed again")


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
