"""API keys: who may ask."""

import hashlib
import json
import os
from pathlib import Path

import pytest

from aixcoder_serving.gateway.keys import Key, KeyRing, identify, parse_record

SECRET = "s" * 43
KEY = f"axk_team-a_{SECRET}"
DIGEST = hashlib.sha256(KEY.encode()).hexdigest()
KEYS = {"team-a": Key(id="team-a", sha256=DIGEST)}


def id_of(key: Key | None) -> str | None:
    return key.id if key is not None else None


@pytest.mark.parametrize(
    ("authorization", "known"),
    [
        pytest.param(f"Bearer {KEY}", "team-a", id="known"),
        pytest.param(f"bearer  {KEY} ", "team-a", id="scheme in any case, spaces"),
        pytest.param(None, None, id="no header"),
        pytest.param("", None, id="empty header"),
        pytest.param(KEY, None, id="no scheme"),
        pytest.param(f"Basic {KEY}", None, id="another scheme"),
        pytest.param(f"Bearer axk_team-a_{'t' * 43}", None, id="wrong secret"),
        pytest.param(f"Bearer axk_team-b_{SECRET}", None, id="unknown id"),
        pytest.param(f"Bearer axk_team-a_{SECRET}x", None, id="longer"),
        pytest.param("Bearer axk_team-a_", None, id="no secret"),
        pytest.param("Bearer axk_../x_" + SECRET, None, id="an id is no path"),
        pytest.param("Bearer sk-" + SECRET, None, id="someone else's key"),
        pytest.param("Bearer axk_é_" + SECRET, None, id="not ASCII"),
    ],
)
def test_who_it_is(authorization: str | None, known: str | None) -> None:
    assert id_of(identify(authorization, KEYS)) == known


def test_secret_may_hold_what_base64url_holds() -> None:
    key = "axk_a_" + "_-" * 20 + "Z"
    keys = {"a": Key(id="a", sha256=hashlib.sha256(key.encode()).hexdigest())}
    assert id_of(identify(f"Bearer {key}", keys)) == "a"


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        pytest.param("", "must be JSON", id="empty"),
        pytest.param("[" * 100_000, "must be JSON", id="deep"),
        pytest.param("[]", "64 hex digits", id="list"),
        pytest.param("{}", "sha256", id="no digest"),
        pytest.param('{"sha256": 5}', "sha256", id="number"),
        pytest.param(json.dumps({"sha256": KEY}), "sha256", id="the key itself"),
        pytest.param(json.dumps({"sha256": DIGEST, "weight": 0}), "weight", id="no weight"),
        pytest.param(
            json.dumps({"sha256": DIGEST, "concurrentRequests": 0}), "concurrentRequests", id="nothing at once"
        ),
    ],
)
def test_bad_record(content: str, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence) as caught:
        parse_record("team-a", content)
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize("name", ["Alice", "a_b", "-a", "a" * 64])
def test_a_name_that_no_key_can_have_is_told(name: str) -> None:
    with pytest.raises(ValueError, match="lower-case"):
        parse_record(name, json.dumps({"sha256": DIGEST}))


def test_record_may_say_more() -> None:
    record = {
        "sha256": DIGEST.upper(),
        "weight": 2,
        "team": "t",
        "shared": True,
        "models": ["m"],
        "concurrentRequests": 3,
        "requestsPerMinute": 9,
        "tokensPerMinute": 1000,
        "x": 1,
    }
    key = parse_record("team-a", json.dumps(record))
    assert (key.id, key.weight, key.team, key.shared) == ("team-a", 2, "t", True)
    assert (key.concurrent_requests, key.requests_per_minute, key.tokens_per_minute) == (3, 9, 1000)
    assert (key.may_ask("m"), key.may_ask("n")) == (True, False)
    assert identify(f"Bearer {KEY}", {"team-a": key}) == key


def mount(directory: Path, version: str, keys: dict[str, str]) -> None:
    """Write a Secret as the kubelet does: a new folder, and one link that is swapped to it."""
    files = directory / f"..{version}"
    files.mkdir()
    for key_id, key in keys.items():
        (files / key_id).write_text(json.dumps({"sha256": hashlib.sha256(key.encode()).hexdigest()}))
        name = directory / key_id
        if not name.is_symlink():
            name.symlink_to(f"..data/{key_id}")
    swap = directory / "..data_tmp"
    swap.symlink_to(files.name)
    os.replace(swap, directory / "..data")
    for name in directory.iterdir():
        if not name.name.startswith("..") and name.name not in keys:
            name.unlink()


def test_keys_of_a_mounted_secret_follow_it(tmp_path: Path) -> None:
    first, second = f"axk_a_{SECRET}", f"axk_b_{SECRET}"
    mount(tmp_path, "1", {"a": first})
    ring = KeyRing(tmp_path)
    assert (id_of(ring.identify(f"Bearer {first}")), id_of(ring.identify(f"Bearer {second}"))) == ("a", None)
    mount(tmp_path, "2", {"b": second})
    ring.refresh()
    assert (id_of(ring.identify(f"Bearer {first}")), id_of(ring.identify(f"Bearer {second}"))) == (None, "b")


def test_one_bad_file_leaves_the_others(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    mount(tmp_path, "1", {"a": f"axk_a_{SECRET}"})
    (tmp_path / "broken").write_text("axk_b_secret")
    assert id_of(KeyRing(tmp_path).identify(f"Bearer axk_a_{SECRET}")) == "a"
    assert "'broken' is left out" in caplog.text


def test_keys_stay_while_the_directory_is_away(tmp_path: Path) -> None:
    directory = tmp_path / "keys"
    directory.mkdir()
    mount(directory, "1", {"a": f"axk_a_{SECRET}"})
    ring = KeyRing(directory)
    directory.rename(tmp_path / "away")
    ring.refresh()
    assert id_of(ring.identify(f"Bearer axk_a_{SECRET}")) == "a"


def test_no_directory_at_the_start_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        KeyRing(tmp_path / "none")
