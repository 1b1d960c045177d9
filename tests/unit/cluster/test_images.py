"""Images: the same content gives the same bytes, and what is written can be read as OCI says."""

import hashlib
import json
import tarfile
from pathlib import Path

import pytest

from e2e.images import aixcoder, base, dependencies, model, oci


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "content"
    (made / "bin").mkdir(parents=True)
    (made / "bin/run").write_text("#!/bin/sh\n")
    (made / "bin/run").chmod(0o755)
    (made / "bin/link").symlink_to("run")
    return made


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("aixcoder/control:dev", "docker.io/aixcoder/control:dev"),
        ("busybox", "docker.io/library/busybox:latest"),
        ("localhost/a:1", "localhost/a:1"),
        ("registry.example:5000/a/b", "registry.example:5000/a/b:latest"),
    ],
)
def test_references_are_completed_as_container_runtimes_do(name: str, expected: str) -> None:
    assert oci.full_reference(name) == expected


def test_a_layer_depends_on_content_and_place_alone(folder: Path, tmp_path: Path) -> None:
    first = oci.write_layer(tmp_path / "one.tar", folder, at="opt/x")
    (folder / "bin/run").touch()
    again = oci.write_layer(tmp_path / "two.tar", folder, at="opt/x")
    assert again.digest == first.digest
    assert oci.write_layer(tmp_path / "three.tar", folder).digest != first.digest
    with tarfile.open(first.path) as layer:
        entries = {entry.name: entry for entry in layer}
    assert list(entries) == ["opt", "opt/x", "opt/x/bin", "opt/x/bin/link", "opt/x/bin/run"]
    assert entries["opt/x/bin/run"].mode == 0o755
    assert entries["opt/x/bin/link"].linkname == "run"
    assert {(entry.uid, entry.gid, entry.mtime) for entry in entries.values()} == {(0, 0, 0)}


def test_an_archive_holds_what_its_index_names(folder: Path, tmp_path: Path) -> None:
    layer = oci.write_layer(tmp_path / "layer.tar", folder)
    images = [oci.Image(f"a/{n}:1", [layer], entrypoint=["/bin/run"], environment={"N": n}) for n in ("one", "two")]
    oci.write_archive(tmp_path / "images.tar", images)
    with tarfile.open(tmp_path / "images.tar") as archive:
        contents = {entry.name: (file.read() if (file := archive.extractfile(entry)) else b"") for entry in archive}
    blobs = {name.removeprefix("blobs/sha256/"): data for name, data in contents.items() if name.startswith("blobs/")}
    assert all(hashlib.sha256(data).hexdigest() == name for name, data in blobs.items())
    listed = json.loads(contents["index.json"])["manifests"]
    assert [entry["annotations"]["io.containerd.image.name"] for entry in listed] == [
        "docker.io/a/one:1",
        "docker.io/a/two:1",
    ]
    assert [entry["digest"] for entry in listed] == [image.digest for image in images]
    for entry, image in zip(listed, images, strict=True):
        manifest = json.loads(blobs[entry["digest"].removeprefix("sha256:")])
        config = json.loads(blobs[manifest["config"]["digest"].removeprefix("sha256:")])
        assert config["rootfs"]["diff_ids"] == [layer.digest]
        assert config["config"]["Env"] == [f"N={image.environment['N']}"]
        assert manifest["layers"][0]["digest"].removeprefix("sha256:") in blobs
    assert len(blobs) == 5, "the layer that both images have is there once"


def test_an_archive_leaves_out_the_layers_that_its_reader_has(folder: Path, tmp_path: Path) -> None:
    layer = oci.write_layer(tmp_path / "layer.tar", folder)
    image = oci.Image("a/b:1", [layer])
    oci.write_archive(tmp_path / "image.tar", [image], without=lambda blob: blob.digest == layer.digest)
    with tarfile.open(tmp_path / "image.tar") as archive:
        assert not any(layer.digest.removeprefix("sha256:") in name for name in archive.getnames())


def test_another_environment_is_another_image(folder: Path, tmp_path: Path) -> None:
    layer = oci.write_layer(tmp_path / "layer.tar", folder)
    digests = {oci.Image("a/b:1", [layer], environment=variables).digest for variables in ({}, {"A": "1"}, {"A": "2"})}
    assert len(digests) == 3


def test_ldd_names_libraries_and_the_loader() -> None:
    listed = (
        "\tlinux-vdso.so.1 (0x00007ffd)\n"
        "\tlibm.so.6 => /lib/x86_64-linux-gnu/libm.so.6 (0x00007f1c)\n"
        "\tlibgone.so => not found\n"
        "\t/lib64/ld-linux-x86-64.so.2 (0x00007f1d)\n"
    )
    assert base.needed_libraries(listed) == [
        Path("/lib/x86_64-linux-gnu/libm.so.6"),
        Path("/lib64/ld-linux-x86-64.so.2"),
    ]


def test_a_launcher_calls_its_entry_point() -> None:
    calls: list[str] = []
    source = aixcoder.launcher("shutil:get_terminal_size").replace("sys.exit(", "report(")
    exec(compile(source, "launcher", "exec"), {"report": lambda size: calls.append(type(size).__name__)})
    assert calls == ["terminal_size"]


def test_a_models_image_is_named_by_its_files(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    files = folder / "bin"
    (files / "link").unlink()
    first = model.image(files, "a/model:1")
    assert model.image(files, "a/model:1").digest == first.digest
    (files / "run").write_text("other")
    assert model.image(files, "a/model:1").digest != first.digest


def test_other_packages_are_another_volume(tmp_path: Path) -> None:
    names = [
        {found["metadata"]["name"] for found in json.loads(json.dumps(dependencies.manifests("demo", folder=folder)))}
        for folder in (tmp_path / "0123-py3.12", tmp_path / "4567-py3.12")
    ]
    assert not names[0] & names[1]


def test_claim_and_volume_of_a_namespace_name_each_other(tmp_path: Path) -> None:
    volume, claim = json.loads(json.dumps(dependencies.manifests("demo", folder=tmp_path)))
    assert claim["spec"]["volumeName"] == volume["metadata"]["name"]
    assert volume["spec"]["claimRef"] == {"namespace": "demo", "name": claim["metadata"]["name"]}
    assert volume["spec"]["accessModes"] == claim["spec"]["accessModes"] == ["ReadOnlyMany"]
    assert volume["spec"]["hostPath"]["path"] == str(tmp_path)
