"""Our own images, node-local: the base layer and, above it, the source folders as they are now and small launchers.

Made in well under a second, so that a changed line reaches pods at once. The Python packages they need come from the
mounted snapshot (`dependencies`).
"""

import compileall
import py_compile
import shutil
import sys
import tempfile
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from e2e.cluster import cache
from e2e.images import base, oci
from e2e.images.dependencies import CHECKOUT, site_packages

CONTROL = "aixcoder/control"
SERVING = "aixcoder/serving"
HOME = "/opt/aixcoder"
DEPENDENCIES_MOUNT = f"{HOME}/dependencies"
_SOURCES = ("operator", "serving")
_USER = "1000:1000"
# Programs of the dependencies that our pods start by name.
_FOREIGN_PROGRAMS = {"ray": "ray.scripts.scripts:main"}


@dataclass(frozen=True)
class Built:
    """Our two images of one state of the sources."""

    control: oci.Image
    serving: oci.Image


def build(*, tag: str = "dev", environment: Mapping[str, str] | None = None) -> Built:
    """Pack the checkout's sources as `aixcoder/control:TAG` and `aixcoder/serving:TAG`.

    Variables in `environment` are added to both; another value gives another digest, as a changed program would.
    """
    layers = [base.layer(), _code_layer()]
    variables = {
        "HOME": "/tmp",
        "LANG": "C.UTF-8",
        "PATH": f"{HOME}/bin:/usr/local/bin:/usr/bin:/usr/sbin",
        "PYTHONDONTWRITEBYTECODE": "1",  # the root file system is read-only
        "PYTHONPATH": ":".join(
            [*(f"{HOME}/code/{source}" for source in _SOURCES), f"{DEPENDENCIES_MOUNT}/{site_packages()}"]
        ),
        "PYTHONUNBUFFERED": "1",
        "SSL_CERT_FILE": "/etc/ssl/certs/ca-certificates.crt",
        **(environment or {}),
    }

    def image(name: str) -> oci.Image:
        return oci.Image(f"{name}:{tag}", layers, environment=variables, user=_USER)

    return Built(control=image(CONTROL), serving=image(SERVING))


def launcher(entry_point: str) -> str:
    """A program that calls `package.module:function`, as an installed script would."""
    module, _, function = entry_point.partition(":")
    return f"#!/usr/local/bin/python3\nimport sys\n\nfrom {module} import {function}\n\nsys.exit({function}())\n"


def _code_layer() -> oci.Blob:
    """The layer with our sources, packed once for each state of them.

    Bytecode of the same source is not always the same bytes: the first packing of a state is the one that counts.
    """
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        for source in _SOURCES:
            ignored = shutil.ignore_patterns("__pycache__", "*.egg-info", ".*")
            shutil.copytree(CHECKOUT / source, root / "code" / source, ignore=ignored)
        (root / "bin").mkdir()
        project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]
        for name, entry_point in {**project["scripts"], **_FOREIGN_PROGRAMS}.items():
            program = root / "bin" / name
            program.write_text(launcher(entry_point))
            program.chmod(0o755)

        def pack(folder: Path) -> None:
            _compile(root / "code")
            oci.write_layer(folder / "layer.tar", root, at=HOME)

        return oci.blob(cache.entry("code-layers", _content_key(root), pack) / "layer.tar")


def _content_key(folder: Path) -> str:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    parts = [part for file in files for part in (str(file.relative_to(folder)), file.read_bytes())]
    return cache.key(sys.version, *parts)


def _compile(code: Path) -> None:
    """Compile to bytecode that is never compared with its source: files in a layer have no times."""
    mode = py_compile.PycInvalidationMode.UNCHECKED_HASH
    compileall.compile_dir(code, quiet=2, stripdir=code, prependdir=f"{HOME}/code", invalidation_mode=mode)
