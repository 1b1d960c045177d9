"""The build hook: compiles the engine's native operations into the package, at `uv sync` and into wheels.

Where they cannot be compiled the package is made without them: the engine then computes by torch, and its log says so.
"""

from __future__ import annotations

import importlib.util
import sysconfig
from pathlib import Path
from types import ModuleType
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

NATIVE = Path("serving/aixcoder_serving/engine/cpu")


class NativeOperations(BuildHookInterface[Any]):
    """Hatchling calls `initialize` before it collects a wheel's files."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """`version`: "standard", or "editable" where the package stays in the checkout."""
        native = _load(Path(self.root, NATIVE, "build.py"))
        try:
            libraries = native.build()
        except native.BuildFailed as failed:
            self.app.display_warning(f"The native operations are left out, generation is slower: {failed}")
            return
        build_data["artifacts"] += [f"/{NATIVE / library.name}" for library in libraries]
        if version == "standard":
            platform = sysconfig.get_platform().replace("-", "_").replace(".", "_")
            build_data["pure_python"] = False
            build_data["tag"] = f"py3-none-{platform}"


def _load(file: Path) -> ModuleType:
    """A module by its path: the package is not importable while it is built."""
    spec = importlib.util.spec_from_file_location("native_build", file)
    if spec is None or spec.loader is None:
        raise ImportError(f"{file} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
