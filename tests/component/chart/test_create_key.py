"""The hook's program with the hook's own account on a real API server."""

import base64
import json
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from aixcoder_operator.create_key import CannotCreateError, create, outcome, secret_object
from tests.component.chart.conftest import Release
from tests.unit.chart.render import objects


def account(release: Release, name: str, folder: Path) -> Path:
    """A folder as a pod of that service account has it."""
    token = release.plane.kubectl("create", "token", name, f"--namespace={release.namespace}")
    (folder / "token").write_text(token)
    (folder / "ca.crt").write_bytes(release.plane.authority.certificate.read_bytes())
    return folder


@pytest.fixture
def hook(release: Release, tmp_path: Path) -> Path:
    """The hook's account and rights are there, as Helm makes them before the Job."""
    rendered = objects(namespace=release.namespace)
    mine = [o for o in rendered if o["metadata"]["name"] == "aixcoder-create-key" and o["kind"] != "Job"]
    release.plane.kubectl("create", "-f", "-", stdin="\n---\n".join(map(json.dumps, mine)))
    return account(release, "aixcoder-create-key", tmp_path)


def run(release: Release, folder: Path, value: bytes, name: str = "aixcoder-operator-key") -> str:
    url = urlsplit(release.plane.url)
    assert url.hostname
    assert url.port
    secret = secret_object(release.namespace, name, "key", value)
    return outcome(*create(secret, url.hostname, url.port, folder), f"{release.namespace}/{name}")


def test_a_key_is_created_once_and_kept(release: Release, hook: Path) -> None:
    assert run(release, hook, b"a" * 32).startswith("Created the Secret")
    assert "kept as it is" in run(release, hook, b"b" * 32)
    secret = release.get("secret", "aixcoder-operator-key")
    assert base64.b64decode(secret["data"]["key"]) == b"a" * 32
    assert secret["immutable"] is True


def test_a_refusal_says_why_and_what_to_do(release: Release, tmp_path: Path) -> None:
    release.plane.kubectl("create", "serviceaccount", "nobody", f"--namespace={release.namespace}")
    nobody = account(release, "nobody", tmp_path)
    with pytest.raises(CannotCreateError) as refused:
        run(release, nobody, b"a" * 32)
    assert "with 403" in str(refused.value)
    assert 'cannot create resource "secrets"' in str(refused.value)
    assert "operatorKey.existingSecret" in str(refused.value)
    assert "dataKey.existingSecret" in str(refused.value)
