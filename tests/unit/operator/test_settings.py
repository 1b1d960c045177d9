from pathlib import Path

import pytest

from aixcoder_operator.settings import SettingsError, read_key, read_settings

SMALLEST = """
servingImage: registry.example/serving@sha256:0
gateway: {namespace: aixcoder-system}
lease: {namespace: aixcoder-system}
"""


def test_the_smallest_file_gives_the_defaults(tmp_path: Path) -> None:
    path = tmp_path / "operator.yaml"
    path.write_text(SMALLEST)
    settings = read_settings(path)
    assert settings.namespaces == ()
    assert (settings.gateway.service, settings.gateway.port) == ("aixcoder-gateway-internal", 9090)
    assert (settings.port, settings.workers, settings.resync_seconds) == (8081, 4, 420)
    assert settings.key_file == Path("/var/run/aixcoder/key/key")


def test_what_the_platform_adds_is_passed_through(tmp_path: Path) -> None:
    path = tmp_path / "operator.yaml"
    path.write_text(
        SMALLEST
        + """
namespaces: [team-a, team-b]
serving:
  env: [{name: HTTPS_PROXY, value: proxy}]
  volumes: [{name: dependencies, persistentVolumeClaim: {claimName: aixcoder-dependencies}}]
  volumeMounts: [{name: dependencies, mountPath: /opt/aixcoder/dependencies}]
"""
    )
    settings = read_settings(path)
    assert settings.namespaces == ("team-a", "team-b")
    assert settings.serving.volumes[0]["persistentVolumeClaim"] == {"claimName": "aixcoder-dependencies"}


BAD = [
    ("a field missing", "gateway: {namespace: a}\nlease: {namespace: a}", "servingImage is missing: set it"),
    ("a part missing", "servingImage: x\nlease: {namespace: a}", "gateway is missing: set it"),
    (
        "a field within missing",
        SMALLEST.replace("{namespace: aixcoder-system}", "{}", 1),
        "gateway.namespace is missing",
    ),
    ("a mistyped field", SMALLEST + "worker: 3", "worker is not a setting: remove it or mend its spelling"),
    ("a mistyped field within", SMALLEST + "serving: {envs: []}", "serving.envs is not a setting"),
    ("a number out of range", SMALLEST + "workers: 0", "workers: input should be greater than or equal to 1"),
    ("a wrong type", SMALLEST + "port: https", "port: input should be a valid integer"),
    ("no choice", SMALLEST + "logLevel: loud", "logLevel: input should be 'debug', 'info'"),
    ("no namespace's name", SMALLEST + "namespaces: [Team_A]", "namespaces.0: string should match pattern"),
    ("not a mapping", "- a\n- b", "must hold a mapping of settings"),
    ("empty", "", "must hold a mapping of settings"),
    ("not YAML", "a: [", "is not YAML"),
]


@pytest.mark.parametrize(("name", "text", "sentence"), BAD, ids=[case[0] for case in BAD])
def test_a_bad_file_is_refused_with_its_name_the_field_and_what_to_do(
    tmp_path: Path, name: str, text: str, sentence: str
) -> None:
    path = tmp_path / "operator.yaml"
    path.write_text(text)
    with pytest.raises(SettingsError) as error:
        read_settings(path)
    assert str(error.value).startswith(f"{path}: ")
    assert sentence in str(error.value)


def test_all_that_is_wrong_is_told_at_once(tmp_path: Path) -> None:
    path = tmp_path / "operator.yaml"
    path.write_text("workers: 0")
    with pytest.raises(SettingsError, match=r"servingImage is missing.*gateway is missing.*workers: "):
        read_settings(path)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"none\.yaml: cannot be read \(No such file or directory\)"):
        read_settings(tmp_path / "none.yaml")


def test_the_key_is_the_files_bytes_and_long_enough(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_bytes(bytes(range(31)) + b"\n")
    assert read_key(path) == bytes(range(31)) + b"\n"
    path.write_bytes(bytes(31))
    with pytest.raises(SettingsError, match=r"key has 31 bytes, not 32 or more: make a longer one"):
        read_key(path)
    with pytest.raises(SettingsError, match=r"is unreadable \(No such file or directory\): mount its Secret"):
        read_key(tmp_path / "none")
