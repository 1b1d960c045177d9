"""Debian packages: installed into the machine where it is root's to do, or unpacked beside it from a newer suite."""

import os
import re
import shutil
import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path

from e2e.cluster import cache, progress
from e2e.cluster.errors import ClusterError, NotAvailableError

# The first suite with containerd 2.1 (image volumes) and etcd >= 3.5.13; its programs are static enough for older ones.
NODE_SUITE = "forky"
NODE_PACKAGES = ("containerd", "containernetworking-plugins", "etcd-server")
NODE_PROGRAMS = ("containerd", "containerd-shim-runc-v2", "ctr", "etcd")
_KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
_SOURCES = Path("/etc/apt")


def mirror(sources: Iterable[str]) -> str | None:
    """The first Debian archive that the texts of sources files name, in either of their formats."""
    for text in sources:
        for line in text.splitlines():
            if line.lstrip().startswith("#"):
                continue
            found = re.search(r"(?:^URIs:|^deb\s)\s*.*?(\S+://\S+/debian)/?(?=\s|$)", line)
            if found:
                return found.group(1)
    return None


def machine_mirror() -> str | None:
    """The Debian archive that this machine's apt reads."""
    files = [_SOURCES / "sources.list", *sorted((_SOURCES / "sources.list.d").glob("*"))]
    return mirror(file.read_text() for file in files if file.suffix in {".list", ".sources"} and file.is_file())


def install(programs: dict[str, str]) -> None:
    """Have `programs` (program → Debian package) on the machine; silent when they are there.

    Raises NotAvailableError where one is missing and apt or root is too.
    """
    missing = sorted({package for program, package in programs.items() if which(program) is None})
    if not missing:
        return
    names = " ".join(missing)
    if shutil.which("apt-get") is None or os.geteuid() != 0:
        raise NotAvailableError(f"Missing on this machine: {names}. As root on Debian: apt-get install {names}.")
    with progress.step(f"Installing {names}"), cache.lock("apt"):
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        get = ["apt-get", "-qq", "-o", "DPkg::Lock::Timeout=300"]
        arguments = ["install", "--yes", "--no-install-recommends", *missing]
        try:
            progress.run([*get, *arguments], what=f"apt-get install {names}", env=environment)
        except ClusterError:  # no package lists on this machine yet, or old ones
            progress.run([*get, "update"], what="apt-get update", env=environment)
            progress.run([*get, *arguments], what=f"apt-get install {names}", env=environment)


def which(program: str) -> Path | None:
    """Where a program is, sbin folders included: they are not on every user's PATH."""
    found = shutil.which(program, path=f"{os.environ.get('PATH', '')}:/usr/local/sbin:/usr/sbin:/sbin")
    return Path(found) if found else None


def node_programs() -> Path:
    """The folder with containerd, etcd and the CNI plugins unpacked: `usr/bin`, `usr/lib/cni`.

    The versions are those of that day, listed in `versions.txt`; the machine's own packages stay untouched.
    """
    return cache.entry("debian", f"{NODE_SUITE}-{cache.key(*NODE_PACKAGES)}", _unpack_node_packages)


def _unpack_node_packages(folder: Path) -> None:
    with progress.step(f"Unpacking {', '.join(NODE_PACKAGES)} of Debian {NODE_SUITE}"):
        download(NODE_SUITE, NODE_PACKAGES, folder)
        for program in NODE_PROGRAMS:
            libraries = subprocess.run(
                ["ldd", folder / "usr/bin" / program], capture_output=True, text=True, check=False
            )
            if "not found" in libraries.stdout + libraries.stderr:
                raise NotAvailableError(f"{program} of Debian {NODE_SUITE} does not run on this machine's C library.")


def download(suite: str, packages: Sequence[str], folder: Path) -> None:
    """Unpack `packages` of `suite` into `folder`, without their dependencies, through a private apt root."""
    if shutil.which("apt-get") is None or shutil.which("dpkg") is None or not _KEYRING.exists():
        raise NotAvailableError(f"{', '.join(packages)} come from Debian's packages, and this machine is no Debian.")
    archive = machine_mirror()
    if archive is None:
        raise NotAvailableError(f"No Debian archive in {_SOURCES}/sources.list or sources.list.d.")
    apt = folder / ".apt"
    for part in ("lists/partial", "cache/archives/partial", "debs"):
        (apt / part).mkdir(parents=True)
    (apt / "status").touch()
    (apt / "sources.list").write_text(f"deb [signed-by={_KEYRING}] {archive} {suite} main\n")
    (apt / "apt.conf").write_text(
        f'Dir::State::lists "{apt}/lists"; Dir::State::status "{apt}/status"; Dir::Cache "{apt}/cache";\n'
        f'Dir::Etc::sourcelist "{apt}/sources.list"; Dir::Etc::sourceparts "-";\n'
        'Acquire::Languages "none"; APT::Sandbox::User "root";\n'
    )
    environment = {**os.environ, "APT_CONFIG": str(apt / "apt.conf")}
    progress.run(["apt-get", "-qq", "update"], what=f"apt-get update ({suite})", env=environment)
    progress.run(["apt-get", "-qq", "download", *packages], what="apt-get download", env=environment, cwd=apt / "debs")
    versions = []
    for deb in sorted((apt / "debs").glob("*.deb")):
        progress.run(["dpkg", "-x", deb, folder], what=f"Unpacking {deb.name}")
        versions.append(progress.run(["dpkg-deb", "-W", deb], what="dpkg-deb").strip())
    (folder / "versions.txt").write_text("\n".join(versions) + "\n")
    shutil.rmtree(apt)
