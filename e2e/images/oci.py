"""Images written as OCI-layout tars with nothing but the standard library, the same bytes from the same content.

Layers are uncompressed: they never leave the machine. Such a tar is what `ctr images import` reads.
"""

import hashlib
import io
import json
import os
import platform
import tarfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

_CONFIG = "application/vnd.oci.image.config.v1+json"
_INDEX = "application/vnd.oci.image.index.v1+json"
_LAYER = "application/vnd.oci.image.layer.v1.tar"
_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
_EPOCH = "1970-01-01T00:00:00Z"
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


@dataclass(frozen=True)
class Blob:
    """A file with its digest (`sha256:…`) and size in bytes."""

    path: Path
    digest: str
    size: int


@dataclass(frozen=True)
class Image:
    """What an image is: its reference, its layers from the bottom up, and how its program starts."""

    reference: str
    layers: Sequence[Blob]
    entrypoint: Sequence[str] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    user: str = ""
    workdir: str = "/"

    def config(self) -> bytes:
        """The image's configuration, JSON."""
        program = {
            "Entrypoint": list(self.entrypoint) or None,
            "Env": [f"{name}={value}" for name, value in sorted(self.environment.items())],
            "User": self.user,
            "WorkingDir": self.workdir,
        }
        return _json(
            {
                "created": _EPOCH,
                "architecture": _ARCHITECTURES[platform.machine()],
                "os": "linux",
                "config": program,
                "rootfs": {"type": "layers", "diff_ids": [layer.digest for layer in self.layers]},
                "history": [{"created": _EPOCH, "created_by": "e2e.images"} for _ in self.layers],
            }
        )

    def manifest(self) -> bytes:
        """The image's manifest, JSON; its digest is the image's."""
        config = self.config()
        return _json(
            {
                "schemaVersion": 2,
                "mediaType": _MANIFEST,
                "config": {"mediaType": _CONFIG, "digest": digest(config), "size": len(config)},
                "layers": [{"mediaType": _LAYER, "digest": b.digest, "size": b.size} for b in self.layers],
            }
        )

    @property
    def digest(self) -> str:
        """`sha256:…` of the manifest: what a pod's status shows as the image's id."""
        return digest(self.manifest())


def digest(data: bytes) -> str:
    """`sha256:…` of some bytes."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def full_reference(name: str) -> str:
    """The reference that container runtimes make of a short name: `a/b` is `docker.io/a/b:latest`."""
    if ":" not in name.rpartition("/")[2]:
        name += ":latest"
    first, slash, _ = name.partition("/")
    if slash and (first == "localhost" or "." in first or ":" in first):
        return name
    return f"docker.io/{name}" if slash else f"docker.io/library/{name}"


def blob(path: Path) -> Blob:
    """A file as a blob."""
    with path.open("rb") as file:
        return Blob(path, f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}", path.stat().st_size)


def write_layer(path: Path, folder: Path, *, at: str = "") -> Blob:
    """Write a folder's content, laid under `at` in the image, as a layer: owned by root, no times, names in order.

    Modes and symbolic links are kept.
    """

    def plain(entry: tarfile.TarInfo) -> tarfile.TarInfo:
        entry.mtime = entry.uid = entry.gid = 0
        entry.uname = entry.gname = ""
        return entry

    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT, dereference=False) as layer:
        _add_parents(layer, at)
        for name in sorted(os.listdir(folder)):
            layer.add(folder / name, arcname=f"{at}/{name}".lstrip("/"), filter=plain)
    return blob(path)


def write_archive(path: Path, images: Sequence[Image], *, without: Callable[[Blob], bool] = lambda _: False) -> None:
    """Write images as one archive. `without` says of a layer that whoever reads the archive has it already."""
    small: dict[str, bytes] = {}
    large: dict[str, Blob] = {}
    index = []
    for image in images:
        config, manifest = image.config(), image.manifest()
        small[digest(config)], small[digest(manifest)] = config, manifest
        large |= {layer.digest: layer for layer in image.layers if not without(layer)}
        index.append(
            {
                "mediaType": _MANIFEST,
                "digest": digest(manifest),
                "size": len(manifest),
                "platform": {"architecture": _ARCHITECTURES[platform.machine()], "os": "linux"},
                "annotations": {"io.containerd.image.name": full_reference(image.reference)},
            }
        )
    with tarfile.open(path, "w") as archive:
        _add_bytes(archive, "oci-layout", _json({"imageLayoutVersion": "1.0.0"}))
        _add_bytes(archive, "index.json", _json({"schemaVersion": 2, "mediaType": _INDEX, "manifests": index}))
        for name, data in small.items():
            _add_bytes(archive, _blob_name(name), data)
        for name, layer in large.items():
            entry = tarfile.TarInfo(_blob_name(name))
            entry.size = layer.size
            with layer.path.open("rb") as file:
                archive.addfile(entry, file)


def _add_parents(layer: tarfile.TarFile, at: str) -> None:
    parts = [part for part in at.split("/") if part]
    for depth in range(1, len(parts) + 1):
        entry = tarfile.TarInfo("/".join(parts[:depth]))
        entry.type, entry.mode = tarfile.DIRTYPE, 0o755
        layer.addfile(entry)


def _add_bytes(archive: tarfile.TarFile, name: str, data: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size = len(data)
    archive.addfile(entry, io.BytesIO(data))


def _blob_name(name: str) -> str:
    return "blobs/" + name.replace(":", "/")


def _json(value: object) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()
