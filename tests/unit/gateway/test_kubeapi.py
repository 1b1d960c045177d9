"""Where the API server is, and as whom the gateway speaks to it."""

import base64
from pathlib import Path
from typing import Any

import pytest
import yaml

from aixcoder_serving.gateway import kubeapi
from aixcoder_serving.gateway.kubeapi import NoAccess


def kubeconfig(path: Path, user: dict[str, Any], server: str = "http://127.0.0.1:1", **cluster: Any) -> Path:
    path.write_text(
        yaml.safe_dump(
            {
                "current-context": "c",
                "contexts": [{"name": "other"}, {"name": "c", "context": {"cluster": "k", "user": "u"}}],
                "clusters": [{"name": "k", "cluster": {"server": server, **cluster}}],
                "users": [{"name": "u", "user": user}],
            }
        )
    )
    return path


def test_token_of_a_kubeconfig(tmp_path: Path) -> None:
    access = kubeapi.find({"KUBECONFIG": str(kubeconfig(tmp_path / "config", {"token": "t"}))})
    assert (access.server, access.authorization()) == ("http://127.0.0.1:1", {"Authorization": "Bearer t"})


def test_no_token_no_header(tmp_path: Path) -> None:
    assert kubeapi.from_kubeconfig(kubeconfig(tmp_path / "config", {})).authorization() == {}


def test_token_file_is_read_at_each_request(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("one\n")
    access = kubeapi.from_kubeconfig(kubeconfig(tmp_path / "config", {"tokenFile": "token"}))
    assert access.authorization() == {"Authorization": "Bearer one"}
    (tmp_path / "token").write_text("two\n")
    assert access.authorization() == {"Authorization": "Bearer two"}


@pytest.mark.parametrize(
    ("user", "cluster", "sentence"),
    [
        pytest.param({"exec": {"command": "x"}}, {}, "exec plug-ins are not supported", id="exec"),
        pytest.param(
            {},
            {"certificate-authority-data": base64.b64encode(b"nonsense").decode()},
            "certificates",
            id="bad authority",
        ),
        pytest.param({}, {"certificate-authority": "missing.crt"}, "certificates", id="missing authority"),
    ],
)
def test_what_cannot_be_used_is_said(
    tmp_path: Path, user: dict[str, Any], cluster: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(NoAccess, match=sentence):
        kubeapi.from_kubeconfig(kubeconfig(tmp_path / "config", user, "https://127.0.0.1:1", **cluster))


@pytest.mark.parametrize("content", ["", "a: [", "current-context: x", "[]"])
def test_no_kubeconfig(tmp_path: Path, content: str) -> None:
    (tmp_path / "config").write_text(content)
    with pytest.raises(NoAccess, match="no kubeconfig"):
        kubeapi.find({"KUBECONFIG": str(tmp_path / "config")})


def test_pod_without_a_token_is_said(tmp_path: Path) -> None:
    with pytest.raises(NoAccess, match="automountServiceAccountToken"):
        kubeapi.in_cluster({"KUBERNETES_SERVICE_HOST": "10.0.0.1"}, tmp_path)
