"""The engine runs on a machine that has torch, safetensors and numpy, and nothing else that this project needs."""

import os
import subprocess
import sys
from pathlib import Path

SERVING = Path(__file__).parents[3] / "serving"

PROGRAM = """
import importlib, pkgutil, sys

REFUSED = {
    "accelerate", "aiohttp", "kopf", "kubernetes", "prometheus_client", "pydantic", "pydantic_core", "ray", "starlette",
    "tokenizers", "transformers", "uvicorn", "yaml",
}

class Refusal:
    def find_spec(self, name, path=None, target=None):
        top, _, rest = name.partition(".")
        ours = top == "aixcoder_serving" and rest and rest.split(".")[0] != "engine"
        if top in REFUSED or ours:
            raise ImportError(f"{name} is not there")

sys.meta_path.insert(0, Refusal())
try:
    import pydantic
except ImportError:
    pass
else:
    sys.exit("the refusal does not work")
import aixcoder_serving.engine as engine

names = [f"aixcoder_serving.engine.{name}" for name in sys.argv[1:]]
found = pkgutil.walk_packages(engine.__path__, "aixcoder_serving.engine.")
# The native libraries are no modules, and __main__ would begin to serve.
names = names or [each.name for each in found if not each.name.rpartition(".")[2].startswith(("lib", "__main__"))]
for name in names:
    importlib.import_module(name)
print(*names)
print("torch" in sys.modules)
"""


def imported(*names: str) -> tuple[set[str], bool]:
    """Import these modules of the engine, or all: their names, and whether torch came with them."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *names],
        env={**os.environ, "PYTHONPATH": str(SERVING)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found, torch = done.stdout.splitlines()
    return {name.removeprefix("aixcoder_serving.engine.") for name in found.split()}, torch == "True"


def test_the_client_needs_no_torch() -> None:
    assert imported("client") == ({"client"}, False)


def test_every_module() -> None:
    """Those too that are only imported on a GPU, or with several ranks."""
    found, torch = imported()
    assert {"process", "client", "nccl", "cpu.ops", "cuda.ops", "cuda.graphs"} <= found
    assert torch
