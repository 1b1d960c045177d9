"""The layer below our code: this machine's own CPython with the C libraries it needs, bash, busybox, CA certificates.

What a distribution's slim image would be, made in seconds and without a registry. Python lies in /usr/local whatever
prefix it has here (it finds its library from where its program is), the libraries at their own paths.
"""

import os
import platform
import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterable
from pathlib import Path

from e2e.cluster import cache, debian, progress
from e2e.cluster.errors import NotAvailableError
from e2e.images import oci

# Raised when this file lays out the layer in another way.
_VERSION = "1"
# Parts of the standard library that no server needs.
_LEFT_OUT = shutil.ignore_patterns(
    "test", "tests", "idlelib", "tkinter", "turtledemo", "ensurepip", "lib2to3", "site-packages", "dist-packages",
    "config-*", "*.a", "*.opt-1.pyc", "*.opt-2.pyc",
)  # fmt: skip
# Loaded by name at run time, or wanted by Python packages with compiled parts: ldd of our programs names not all.
_LIBRARIES = (
    "libc.so.6", "libm.so.6", "libdl.so.2", "libpthread.so.0", "librt.so.1", "libutil.so.1", "libresolv.so.2",
    "libanl.so.1", "libnss_dns.so.2", "libnss_files.so.2", "libgcc_s.so.1", "libstdc++.so.6", "libz.so.1",
)  # fmt: skip
_CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
_PASSWD = "root:x:0:0:root:/root:/bin/sh\naixcoder:x:1000:1000:aiXcoder:/tmp:/bin/sh\nnobody:x:65534:65534:::\n"
_GROUP = "root:x:0:\naixcoder:x:1000:\nnogroup:x:65534:\n"


def layer() -> oci.Blob:
    """The base layer, made once for each Python of this machine (about 100 MB, seconds)."""
    debian.install({"busybox": "busybox-static", "bash": "bash"})
    busybox = debian.which("busybox")
    if busybox is None:
        raise NotAvailableError("The program busybox is missing.")
    interpreter = Path(os.path.realpath(sys.executable))
    key = cache.key(_VERSION, str(interpreter), sys.version, str(interpreter.stat().st_mtime_ns), platform.machine())

    def make(folder: Path) -> None:
        with progress.step("Packing this machine's Python into a base image"):
            root = folder / "root"
            _lay_out(root, interpreter, busybox)
            oci.write_layer(folder / "layer.tar", root)
            shutil.rmtree(root)

    return oci.blob(cache.entry("base-layer", key, make) / "layer.tar")


def needed_libraries(ldd: str) -> list[Path]:
    """The paths in ldd's output: `libm.so.6 => /lib/…/libm.so.6 (0x…)` and the loader's `/lib64/ld-linux… (0x…)`."""
    return [Path(found) for found in re.findall(r"(?:=> |^\s*)(/\S+) \(0x", ldd, re.MULTILINE)]


def _lay_out(root: Path, interpreter: Path, busybox: Path) -> None:
    for folder in (
        "usr/bin",
        "usr/sbin",
        "usr/lib",
        "usr/lib64",
        "usr/local/bin",
        "usr/local/lib",
        "etc",
        "root",
        "proc",
        "sys",
        "dev",
        "run",
        "var/tmp",
        "opt",
        "models",
    ):
        (root / folder).mkdir(parents=True, exist_ok=True)
    for name in ("bin", "sbin", "lib", "lib64"):
        (root / name).symlink_to(f"usr/{name}")
    for folder in ("tmp", "var/tmp"):
        (root / folder).mkdir(exist_ok=True)
        (root / folder).chmod(0o1777)
    programs = [_lay_python(root, interpreter), *_compiled_modules(root)]
    for program, at in ((busybox, "usr/bin/busybox"), (Path("/bin/bash"), "usr/bin/bash")):
        shutil.copy2(program, root / at)
        programs.append(root / at)
    applets = subprocess.run([busybox, "--list"], capture_output=True, text=True, check=True).stdout.split()
    for applet in applets:
        link = root / "usr/bin" / applet
        if not link.exists():
            link.symlink_to("busybox")
    _copy_libraries(root, programs)
    (root / "etc/passwd").write_text(_PASSWD)
    (root / "etc/group").write_text(_GROUP)
    (root / "etc/nsswitch.conf").write_text("passwd: files\ngroup: files\nhosts: files dns\n")
    if _CERTIFICATES.exists():
        target = root / _CERTIFICATES.relative_to("/")
        target.parent.mkdir(parents=True)
        shutil.copyfile(_CERTIFICATES, target)
    subprocess.run(["/sbin/ldconfig", "-r", root], check=True, capture_output=True)


def _lay_python(root: Path, interpreter: Path) -> Path:
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    library = Path(sysconfig.get_path("stdlib", vars={"installed_base": sys.base_prefix, "base": sys.base_prefix}))
    shutil.copytree(library, root / "usr/local" / sys.platlibdir / version, symlinks=True, ignore=_LEFT_OUT)
    (root / "usr/local" / sys.platlibdir / version / "site-packages").mkdir()
    for shared in (Path(sys.base_prefix) / sys.platlibdir).glob("libpython*.so*"):
        shutil.copy2(shared, root / "usr/local/lib" / shared.name, follow_symlinks=False)
    program = root / "usr/local/bin" / version
    shutil.copy2(interpreter, program)
    for name in ("python", "python3"):
        (program.parent / name).symlink_to(version)
    return program


def _compiled_modules(root: Path) -> Iterable[Path]:
    return (root / "usr/local").rglob("lib-dynload/*.so")


def _copy_libraries(root: Path, programs: Iterable[Path]) -> None:
    known = subprocess.run(["/sbin/ldconfig", "-p"], capture_output=True, text=True, check=True).stdout
    by_name = dict(reversed(re.findall(r"^\s+(\S+) \(.*?\) => (\S+)$", known, re.MULTILINE)))
    wanted = {Path(by_name[name]) for name in _LIBRARIES if name in by_name}
    wanted.update(Path(path) for name, path in by_name.items() if name.startswith("ld-linux"))
    for program in [*programs, *wanted]:
        listed = subprocess.run(["ldd", program], capture_output=True, text=True, check=False).stdout
        wanted.update(needed_libraries(listed))
    for library in sorted(wanted):
        # The folder's real path, since the image's /lib is a link as well; the name as the loader asks for it.
        target = root / Path(os.path.realpath(library.parent)).relative_to("/") / library.name
        if not target.is_relative_to(root / "usr/local") and not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(library, target)
            target.chmod(0o755)
