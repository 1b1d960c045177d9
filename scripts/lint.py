"""The steps of `make lint`, which share nothing and run side by side."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

from scripts.steps import REPOSITORY, Step

GUARD_SECONDS = 600.0
NOT_OURS = frozenset({".hypothesis", ".git", ".venv", "__pycache__", "node_modules"})


def files(root: Path = REPOSITORY) -> Iterator[Path]:
    """Every file of the checkout but those of git, the environment and the tools' caches, sorted within a folder."""
    for folder, folders, names in os.walk(root):
        folders[:] = sorted(name for name in folders if name not in NOT_OURS and not name.endswith("_cache"))
        yield from (Path(folder, name) for name in sorted(names))


def is_shell(path: Path) -> bool:
    """Whether a file is a shell script: by its suffix, else by its first line."""
    if path.suffix:
        return path.suffix == ".sh"
    with path.open("rb") as file:
        first = file.readline(80)
    return first.startswith(b"#!") and first.split(b"/")[-1].split()[-1] in {b"sh", b"bash", b"dash"}


def lint_steps(helm: Path) -> list[Step]:
    """All lint steps; `helm` is the helm program. The longest is first, so that the others fit beside it."""
    shell = sorted(str(path.relative_to(REPOSITORY)) for path in files() if is_shell(path))
    dockerfiles = sorted(str(path.relative_to(REPOSITORY)) for path in files() if path.suffix == ".Dockerfile")
    commands: dict[str, tuple[str, ...]] = {
        "mypy": ("mypy",),
        "import layers": ("lint-imports", "--no-cache", "--no-logo"),
        "ruff check": ("ruff", "check"),
        "ruff format": ("ruff", "format", "--check"),
        "shellcheck": ("shellcheck", *shell),
        "yamllint": ("yamllint", "--strict", "."),
        "hadolint": ("hadolint", *dockerfiles),
        "helm lint": (str(helm), "lint", "--strict", "helm/aixcoder"),
        "generated files": (sys.executable, "-m", "aixcoder_operator.api.crd", "--check"),
        "uv.lock": ("uv", "lock", "--check", "--quiet"),
    }
    return [Step(name, command, GUARD_SECONDS) for name, command in commands.items()]
