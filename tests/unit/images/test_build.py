"""What the image builder takes from the machine into a build."""

from pathlib import Path

import pytest

from images.build import CHECKOUT, IMAGES, mounts


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def mounted(environment: dict[str, str], folder: Path) -> dict[str, tuple[Path, str]]:
    folder.mkdir(exist_ok=True)
    return {target: (source, mode) for source, target, mode in mounts(environment, folder)}


def test_only_the_package_cache_can_be_written(tmp_path: Path) -> None:
    found = mounted({}, tmp_path / "files")
    assert found["/root/.cache/uv"] == (tmp_path / "cache/aixcoder/uv", "rw")
    assert {mode for target, (_, mode) in found.items() if target != "/root/.cache/uv"} == {"ro"}


def test_the_machines_certificates_and_index_are_used_in_the_build(tmp_path: Path) -> None:
    trusted = tmp_path / "trusted.crt"
    trusted.touch()
    found = mounted(
        {"SSL_CERT_FILE": str(trusted), "PIP_INDEX_URL": "https://mirror.example/simple"}, tmp_path / "files"
    )
    assert found["/etc/ssl/certs/ca-certificates.crt"] == (trusted, "ro")
    pip = found["/etc/pip.conf"][0].read_text().splitlines()
    assert pip == ["[global]", "cert = /etc/ssl/certs/ca-certificates.crt", "index-url = https://mirror.example/simple"]
    assert 'url = "https://mirror.example/simple"' in found["/etc/uv/uv.toml"][0].read_text()


def test_without_certificates_of_its_own_the_build_uses_the_images(tmp_path: Path) -> None:
    found = mounted({"SSL_CERT_FILE": str(tmp_path / "none")}, tmp_path / "files")
    assert "/etc/ssl/certs/ca-certificates.crt" not in found
    assert found["/etc/pip.conf"][0].read_text() == "[global]\n"


@pytest.mark.parametrize("name", IMAGES)
def test_an_image_ends_as_the_user_that_the_chart_demands(name: str) -> None:
    last = (CHECKOUT / "images" / f"{name}.Dockerfile").read_text().split("\nFROM ")[-1]
    assert "USER 1000:1000\n" in last
    assert "HOME=/tmp" in last
    # The last stage takes files only: a RUN would leave what the build mounts.
    assert "RUN " not in last
