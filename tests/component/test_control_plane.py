"""The control plane that the other component tests stand on."""

import json
import os
import subprocess

import pytest

from e2e.cluster import programs
from e2e.cluster.api import ApiError
from e2e.cluster.controlplane import ControlPlane


def test_what_is_applied_is_stored_and_audited(control_plane: ControlPlane, namespace: str) -> None:
    path = f"/api/v1/namespaces/{namespace}/configmaps/one"
    config_map = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "one"}, "data": {"key": "value"}}
    control_plane.api.apply(path, config_map)
    assert control_plane.api.get(path)["data"] == {"key": "value"}
    entries = [json.loads(line) for line in control_plane.audit_log.read_text().splitlines()]
    mine = [e for e in entries if e["requestURI"].startswith(path) and e["verb"] == "patch"]
    assert [e["requestObject"]["data"] for e in mine] == [{"key": "value"}]
    control_plane.api.delete(path)
    with pytest.raises(ApiError, match="not found"):
        control_plane.api.get(path)


def test_another_user_may_do_nothing_unasked(control_plane: ControlPlane, namespace: str) -> None:
    kubectl = str(programs.kubernetes_programs() / "kubectl")
    config = f"--kubeconfig={control_plane.kubeconfig_for('nobody')}"
    refused = subprocess.run(
        [kubectl, config, "get", "pods", "-n", namespace], capture_output=True, text=True, check=False
    )
    assert 'User "nobody" cannot list resource "pods"' in refused.stderr


def test_stop_leaves_nothing() -> None:
    with ControlPlane() as plane:
        folder = plane.folder
        marker = str(folder).encode()
        assert _processes_that_name(marker)
    assert not folder.exists()
    assert not _processes_that_name(marker)


def _processes_that_name(marker: bytes) -> list[str]:
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/cmdline", "rb") as file:
                if marker in file.read():
                    found.append(pid)
        except OSError:
            continue
    return found
