"""The snapshot of the locked Python environment that the local cluster's pods share.

The dependencies (6 GB, most of it torch) are in no image day to day. They lie in the cache, one folder for each state
of uv.lock and each Python, and reach pods through a read-only PersistentVolume. A folder never changes once it has its
name, so that running pods keep what they started with while a checkout moves on.
"""

import hashlib
import os
import platform
import shutil
from pathlib import Path

from e2e.cluster import cache, progress
from e2e.cluster.errors import NotAvailableError

CHECKOUT = Path(__file__).resolve().parents[2]
VOLUME = "aixcoder-dependencies"
_SIZE = "10Gi"  # no file system holds a hostPath volume to it; claim and volume must only agree


def snapshot() -> Path:
    """The folder of the environment that uv.lock describes now: `lib/pythonX.Y/site-packages`, bytecode compiled.

    The first call for a lock file takes a minute with uv's cache filled, several without.
    """
    version = platform.python_version()
    lock = hashlib.sha256((CHECKOUT / "uv.lock").read_bytes()).hexdigest()[:12]
    return cache.entry("dependencies", f"{lock}-py{version}", _sync)


def site_packages() -> str:
    """Where an environment keeps its packages, relative to its root."""
    major, minor, _ = platform.python_version_tuple()
    return f"lib/python{major}.{minor}/site-packages"


def claim_name(folder: Path) -> str:
    """The claim on `folder`: a volume is never another one under the same name, and pods that run keep theirs."""
    return f"{VOLUME}-{folder.name.partition('-')[0]}"


def manifests(namespace: str, *, folder: Path) -> list[dict[str, object]]:
    """A PersistentVolume over `folder` and the claim on it for one namespace."""
    labels = {"app.kubernetes.io/part-of": "aixcoder-local-cluster"}
    claim = claim_name(folder)
    volume = f"{claim}-{namespace}"
    common = {"accessModes": ["ReadOnlyMany"], "storageClassName": ""}
    return [
        {
            "apiVersion": "v1",
            "kind": "PersistentVolume",
            "metadata": {"name": volume, "labels": labels},
            "spec": {
                **common,
                "capacity": {"storage": _SIZE},
                "persistentVolumeReclaimPolicy": "Retain",
                "hostPath": {"path": str(folder), "type": "Directory"},
                "claimRef": {"namespace": namespace, "name": claim},
            },
        },
        {
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "metadata": {"name": claim, "namespace": namespace, "labels": labels},
            "spec": {**common, "volumeName": volume, "resources": {"requests": {"storage": _SIZE}}},
        },
    ]


def _sync(folder: Path) -> None:
    uv = shutil.which("uv")
    if uv is None:
        raise NotAvailableError("uv is missing: pip install uv.")
    environment = {
        **os.environ,
        "UV_PROJECT_ENVIRONMENT": str(folder),
        "UV_CACHE_DIR": os.environ.get("UV_CACHE_DIR", str(cache.root() / "uv")),
        "UV_PYTHON_DOWNLOADS": "never",
    }
    environment.pop("VIRTUAL_ENV", None)
    options = ["--frozen", "--no-install-project", "--all-extras", "--no-dev", "--compile-bytecode", "--no-progress"]
    with progress.step("Laying out the pods' Python environment (a minute the first time)"):
        python = ["--python", platform.python_version()]
        progress.run([uv, "sync", "--quiet", *options, *python], what="uv sync", env=environment, cwd=CHECKOUT)
