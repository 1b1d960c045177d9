"""A cluster as kubectl and helm see it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from e2e.cluster import programs
from e2e.cluster.errors import ClusterError

Json = dict[str, Any]

GUARD_SECONDS = 600.0
"""When one call of kubectl or helm counts as hung."""


@dataclass(frozen=True)
class Kubernetes:
    """kubectl and helm against the cluster that one kubeconfig names."""

    kubectl_program: Path
    helm_program: Path
    kubeconfig: Path

    def kubectl(self, *arguments: str, stdin: str = "") -> str:
        """Run kubectl and return its stdout. Raises ClusterError with what it said."""
        return self._run(self.kubectl_program, arguments, stdin)

    def helm(self, *arguments: str, stdin: str = "") -> str:
        """Run helm and return its stdout. Raises ClusterError with what it said."""
        return self._run(self.helm_program, arguments, stdin)

    def get(self, *arguments: str) -> Json:
        """`kubectl get … -o json`; {} where there is nothing of that name or kind."""
        out = self.kubectl("get", "--ignore-not-found", "--output=json", *arguments)
        found: Json = json.loads(out) if out.strip() else {}
        return found

    def apply(self, *objects: Mapping[str, Any]) -> None:
        """Server-side apply of objects; what is as it should be stays untouched."""
        listed = {"apiVersion": "v1", "kind": "List", "items": list(objects)}
        self.kubectl("apply", "--server-side", "--force-conflicts", "--filename=-", stdin=json.dumps(listed))

    def _run(self, program: Path, arguments: tuple[str, ...], stdin: str) -> str:
        environment = {**os.environ, "KUBECONFIG": str(self.kubeconfig)}
        done = subprocess.run(
            [program, *arguments],
            input=stdin,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=GUARD_SECONDS,
        )
        if done.returncode != 0:
            raise ClusterError(f"{program.name} {' '.join(arguments)}: {(done.stderr or done.stdout).strip()}")
        return done.stdout


def built(kubeconfig: Path) -> Kubernetes:
    """With the programs built from source, the first time in minutes."""
    folder = programs.kubernetes_programs()
    return Kubernetes(folder / "kubectl", folder / "helm", kubeconfig)


def installed(kubeconfig: Path) -> Kubernetes:
    """With the programs on PATH, else built ones. Raises NotAvailableError where neither is to be had."""
    kubectl, helm = shutil.which("kubectl"), shutil.which("helm")
    if kubectl and helm:
        return Kubernetes(Path(kubectl), Path(helm), kubeconfig)
    return built(kubeconfig)
