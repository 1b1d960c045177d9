"""Builds the images that a registry would hold: `python -m images.build --help`.

With buildah and no daemon, from this machine's uv cache where it has one. Any builder makes the same from the
Dockerfiles (`docker build -f images/control.Dockerfile .`); this one also works where no registry is reachable: its
base image is then made of Debian's packages.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from e2e.cluster import cache, debian, progress
from e2e.cluster.errors import ClusterError

CHECKOUT = Path(__file__).resolve().parents[1]
IMAGES = ("control", "serving")
# The suite whose Python is 3.11, as in the Dockerfiles' default base image.
BASE_SUITE = "bookworm"
BASE_PACKAGES = ("ca-certificates", "python3", "python3-venv")
DEBIAN_BASE = "debian"
_LOCAL_BASE = "localhost/aixcoder/python:3.11"
_UNWANTED = ("/usr/share/doc/*", "/usr/share/man/*", "/usr/share/locale/*", "/usr/share/info/*")


@dataclass(frozen=True)
class Storage:
    """Where buildah keeps images while it builds. It is removed with all that is in it."""

    folder: Path

    def command(self, *arguments: str | Path) -> list[str]:
        """A buildah command line on this storage."""
        places = ["--root", str(self.folder / "root"), "--runroot", str(self.folder / "run")]
        return ["buildah", *places, "--storage-driver", "overlay", *map(str, arguments)]

    def run(self, *arguments: str | Path, what: str) -> str:
        """Run buildah to its end. Raises ClusterError with the last lines of what it said."""
        return progress.run(self.command(*arguments), what=what, cwd=CHECKOUT)


@contextmanager
def storage() -> Iterator[Storage]:
    """An empty storage that is gone afterwards. It needs about 20 GB while the serving image is built."""
    debian.install({"buildah": "buildah"})
    folder = cache.root() / "images"
    folder.mkdir(parents=True, exist_ok=True)
    with cache.lock("images"):
        for abandoned in folder.glob("storage.*"):
            _remove(Storage(abandoned))
        made = Storage(Path(tempfile.mkdtemp(prefix="storage.", dir=folder)))
        try:
            yield made
        finally:
            _remove(made)


def build(store: Storage, name: str, tag: str, base: str) -> str:
    """Build one of IMAGES and return its reference, `aixcoder/NAME:TAG`. `base`: an image's name, or DEBIAN_BASE."""
    reference = f"aixcoder/{name}:{tag}"
    base_image = _debian_base(store) if base == DEBIAN_BASE else base
    with tempfile.TemporaryDirectory(prefix="aixcoder-image-") as folder, progress.step(f"Building {reference}"):
        store.run(
            "bud", "--layers=false", "--format=docker", "--network=host", "--isolation=chroot",
            f"--file=images/{name}.Dockerfile", "--ignorefile=.dockerignore",
            f"--build-arg=PYTHON_IMAGE={base_image}",
            *(f"--volume={source}:{target}:{mode}" for source, target, mode in mounts(os.environ, Path(folder))),
            f"--tag={reference}", str(CHECKOUT),
            what=f"Building {reference}",
        )  # fmt: skip
    return reference


def save(store: Storage, reference: str, file: Path) -> None:
    """Write an image as an archive that `ctr images import` and `docker load` take."""
    file.unlink(missing_ok=True)
    with progress.step(f"Writing {file}"):
        store.run("push", "--disable-compression", reference, f"docker-archive:{file}:{reference}", what="Writing it")


def push(store: Storage, reference: str, registry: str) -> str:
    """Push an image to REGISTRY/aixcoder/NAME:TAG and return that. The credentials are those of `buildah login`."""
    remote = f"{registry.rstrip('/')}/{reference}"
    with progress.step(f"Pushing {remote}"):
        store.run("push", reference, f"docker://{remote}", what=f"Pushing {remote}")
    return remote


def mounts(environment: Mapping[str, str], folder: Path) -> list[tuple[Path, str, str]]:
    """(here, in the build, mode): the package cache, and what this machine needs to reach its package registry.

    None of it is left in an image. `folder` takes the files that are written for it.
    """
    found = []
    packages = cache.root() / "uv"
    packages.mkdir(exist_ok=True)
    found.append((packages, "/root/.cache/uv", "rw"))
    pip, uv = [], ["native-tls = true"]
    trusted = Path(environment.get("SSL_CERT_FILE", "/etc/ssl/certs/ca-certificates.crt"))
    if trusted.is_file():
        found.append((trusted, "/etc/ssl/certs/ca-certificates.crt", "ro"))
        pip.append("cert = /etc/ssl/certs/ca-certificates.crt")
    if index := environment.get("UV_DEFAULT_INDEX") or environment.get("PIP_INDEX_URL"):
        pip.append(f"index-url = {index}")
        uv.append(f'[[index]]\nurl = "{index}"\ndefault = true')
    for name, target, lines in (("pip.conf", "/etc/pip.conf", ["[global]", *pip]), ("uv.toml", "/etc/uv/uv.toml", uv)):
        file = folder / name
        file.write_text("\n".join(lines) + "\n")
        found.append((file, target, "ro"))
    return found


def default_base() -> str:
    """Debian's packages where this machine can unpack them, else the Dockerfiles' own base, which a registry has."""
    return DEBIAN_BASE if os.geteuid() == 0 and shutil.which("apt-get") else "python:3.11-slim"


def _debian_base(store: Storage) -> str:
    """A base image of Debian's packages in `store`; they are unpacked once into the cache."""
    root = cache.entry("base-image", f"{BASE_SUITE}-{cache.key(*BASE_PACKAGES, *_UNWANTED)}", _unpack_base)
    container = store.run("from", "scratch", what="Making the base image").strip()
    store.run("add", "--quiet", container, root / "root.tar", "/", what="Making the base image")
    store.run("config", "--cmd", "python3", container, what="Making the base image")
    store.run("commit", "--quiet", "--rm", container, _LOCAL_BASE, what="Making the base image")
    return _LOCAL_BASE


def _unpack_base(folder: Path) -> None:
    debian.install({"mmdebstrap": "mmdebstrap"})
    with progress.step(f"Unpacking Debian {BASE_SUITE} with {', '.join(BASE_PACKAGES)} (80 s, once)"):
        progress.run(
            ["mmdebstrap", "--quiet", "--variant=minbase", f"--include={','.join(BASE_PACKAGES)}",
             *(f"--dpkgopt=path-exclude={path}" for path in _UNWANTED),
             BASE_SUITE, folder / "root.tar", *filter(None, [debian.machine_mirror()])],
            what="mmdebstrap",
        )  # fmt: skip


def _remove(store: Storage) -> None:
    """Remove a storage with its mounts; an overlay mount left by a killed run would survive rmtree."""
    progress.run(store.command("rm", "--all"), what="Removing build containers")
    progress.run(store.command("rmi", "--all", "--force"), what="Removing build images")
    for mounted in sorted(_mounted_below(store.folder), reverse=True):
        progress.run(["umount", mounted], what=f"umount {mounted}")
    shutil.rmtree(store.folder)


def _mounted_below(folder: Path) -> Iterator[str]:
    with open("/proc/self/mounts", encoding="utf-8") as file:
        for line in file:
            if line.split()[1].startswith(f"{folder}/"):
                yield line.split()[1]


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point: 0, or 1 with a sentence on stderr."""
    parser = argparse.ArgumentParser(
        prog="python -m images.build", description="Build the images of operator, gateway and Ray pods."
    )
    parser.add_argument("--only", choices=IMAGES, help="one of the images; else all of them")
    parser.add_argument("--tag", default="dev")
    parser.add_argument(
        "--base",
        default=default_base(),
        help=f"the Python image to build on, or {DEBIAN_BASE}: made here of Debian's packages",
    )
    parser.add_argument("--archives", type=Path, metavar="FOLDER", help="write FOLDER/NAME.tar")
    parser.add_argument("--push", metavar="REGISTRY", help="push REGISTRY/aixcoder/NAME:TAG")
    chosen = parser.parse_args(arguments)
    if chosen.archives is None and chosen.push is None:
        parser.error("say where the images go: --archives FOLDER or --push REGISTRY")
    try:
        with storage() as store:
            for name in [chosen.only] if chosen.only else IMAGES:
                reference = build(store, name, chosen.tag, chosen.base)
                if chosen.archives is not None:
                    chosen.archives.mkdir(parents=True, exist_ok=True)
                    save(store, reference, chosen.archives / f"{name}.tar")
                if chosen.push is not None:
                    print(push(store, reference, chosen.push))
    except ClusterError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
