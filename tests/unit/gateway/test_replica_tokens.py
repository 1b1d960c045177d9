"""The token by which replicas know a gateway: operator and gateway derive it alike."""

from __future__ import annotations

from pathlib import Path

import pytest

from aixcoder_serving.gateway.replica_tokens import ReplicaTokens
from aixcoder_serving.protocol import UnusableKey, replica_token

KEY = bytes(range(32))
UID = "1498187c-5125-4c37-b60c-2c08b14ad66c"


def test_a_token_never_changes_for_one_key_and_uid() -> None:
    # Replicas that run hold it: another value would lock the gateways out.
    assert replica_token(KEY, UID) == "3ce5789a751cf97ed872f7e13c9ac2f268e0718f38ea7286dcd43032401acd0c"


def test_another_key_or_uid_gives_another_token_of_64_digits() -> None:
    tokens = {replica_token(KEY, UID), replica_token(KEY[::-1], UID), replica_token(KEY, UID[::-1])}
    assert len(tokens) == 3
    assert {len(token) for token in tokens} == {64}


@pytest.mark.parametrize(("key", "uid"), [(b"", UID), (KEY, "")])
def test_nothing_is_derived_from_nothing(key: bytes, uid: str) -> None:
    with pytest.raises(ValueError, match="needs the data key and the deployment's uid"):
        replica_token(key, uid)


def test_each_deployment_gets_its_own_header(tmp_path: Path) -> None:
    (tmp_path / "key").write_bytes(KEY)
    tokens = ReplicaTokens.read(tmp_path / "key")
    assert tokens.headers(UID) == {"Authorization": f"Bearer {replica_token(KEY, UID)}"}
    assert tokens.headers("another") != tokens.headers(UID)


def test_without_a_key_no_header_is_sent() -> None:
    assert ReplicaTokens.read(None).headers(UID) == {}


def test_a_key_that_can_not_be_used_is_refused_with_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "short").write_bytes(KEY[:31])
    with pytest.raises(UnusableKey, match="has 31 bytes, not 32 or more: make a longer one"):
        ReplicaTokens.read(tmp_path / "short")
    with pytest.raises(UnusableKey, match=r"is unreadable .*: mount its Secret"):
        ReplicaTokens.read(tmp_path / "none")
