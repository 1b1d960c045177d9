"""The demo's way onto the local cluster: images and dependencies made while the cluster comes up, then loaded."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from e2e.cluster import cache, progress
from e2e.cluster.local import GATEWAY_FORWARD, LocalCluster, check_machine
from e2e.demo.kubernetes import Json
from e2e.demo.release import NAMESPACE, RELEASE, REPOSITORY, SYSTEM_NAMESPACE, Installation
from e2e.images import aixcoder, dependencies, model, oci
from images import build

T = TypeVar("T")

GATEWAY_TARGET = f"{RELEASE}-gateway.{SYSTEM_NAMESPACE}.svc:80"
IMPORT_SECONDS = 1800.0
"""When the import of a 6 GB archive counts as hung."""


@dataclass(frozen=True)
class NodeLocal:
    """What node-local mode runs on: small images of the present sources, and the folder of the Python packages."""

    control: oci.Image
    serving: oci.Image
    packages: Path


def prepare_node_local(cluster: LocalCluster) -> Installation:
    """Bring the cluster up and load the node-local images and the tiny model: seconds."""
    made = beside_cluster(cluster, build_node_local)
    with progress.step("Loading images onto the node"):
        cluster.load([made.control, made.serving, tiny_model()])
    return node_local(made)


def prepare_full(cluster: LocalCluster) -> Installation:
    """Bring the cluster up and load what a registry would hold, built from `images/`: minutes, 25 GB of disk."""
    archives = beside_cluster(cluster, build_full)
    with progress.step("Loading images onto the node"):
        cluster.load([tiny_model()])
        for archive in archives:
            cluster.ctr("images", "import", str(archive), timeout=IMPORT_SECONDS)
            archive.unlink()
    return Installation({"image": {"control": {"tag": sources_tag()}, "serving": {"tag": sources_tag()}}})


def beside_cluster(cluster: LocalCluster, make: Callable[[], T]) -> T:
    """What `make` returns; the cluster comes up meanwhile."""
    check_machine()  # before anything is made for a cluster that cannot be
    with ThreadPoolExecutor(max_workers=1) as beside:
        coming = beside.submit(make)
        with progress.step("Kubernetes on this machine"):
            cluster.up()
        return coming.result()


def tiny_model() -> oci.Image:
    """The demo's model as an image of its own."""
    return model.image(REPOSITORY / "models" / "tiny", model.TINY)


def build_node_local() -> NodeLocal:
    """The small images, their tag named by their content so that a changed one is rolled out."""
    packages = dependencies.snapshot()
    with progress.step("Packing operator, gateway and replica"):
        built = aixcoder.build()
    return NodeLocal(by_content(built.control), by_content(built.serving), packages)


def by_content(image: oci.Image) -> oci.Image:
    """The image under a tag that only its content has."""
    name = image.reference.partition(":")[0]
    return replace(image, reference=f"{name}:{image.digest.removeprefix('sha256:')[:12]}")


def build_full() -> list[Path]:
    """Archives in the cache of the images of `images/`: 6 GB, built anew each time."""
    folder = cache.root() / "archives"
    folder.mkdir(exist_ok=True)
    archives = []
    with build.storage() as store:
        for name in build.IMAGES:
            archives.append(folder / f"{name}.tar")
            build.save(store, build.build(store, name, sources_tag(), build.default_base()), archives[-1])
    return archives


def sources_tag() -> str:
    """Twelve hex digits of all that goes into the images."""
    files = [REPOSITORY / name for name in ("uv.lock", "pyproject.toml", "hatch_build.py")]
    kinds = {".py", ".cpp", ".h", ".Dockerfile"}
    for folder in ("operator", "serving", "images"):
        files += sorted(path for path in (REPOSITORY / folder).rglob("*") if path.suffix in kinds)
    return cache.key(*(part for file in files for part in (str(file.relative_to(REPOSITORY)), file.read_bytes())))


def node_local(made: NodeLocal) -> Installation:
    """Values and volumes with which every program finds its Python packages on the node."""
    claim = {"claimName": dependencies.claim_name(made.packages), "readOnly": True}
    mounted: dict[str, Any] = {
        "volumes": [{"name": dependencies.VOLUME, "persistentVolumeClaim": claim}],
        "volumeMounts": [
            {"name": dependencies.VOLUME, "mountPath": aixcoder.DEPENDENCIES_MOUNT, "readOnly": True},
        ],
    }
    values = {
        "image": {"control": {"tag": tag(made.control)}, "serving": {"tag": tag(made.serving)}},
        "operator": mounted,
        "gateway": mounted,
        "serving": mounted,
    }
    objects: list[Json] = [
        found
        for namespace in (SYSTEM_NAMESPACE, NAMESPACE)
        for found in dependencies.manifests(namespace, folder=made.packages)
    ]
    return Installation(values, tuple(objects))


def tag(image: oci.Image) -> str:
    """The tag of an image's reference."""
    return image.reference.rpartition(":")[2]


def forward(cluster: LocalCluster) -> str:
    """The gateway's URL on this machine."""
    return f"http://127.0.0.1:{cluster.forward(GATEWAY_FORWARD, GATEWAY_TARGET)}"
