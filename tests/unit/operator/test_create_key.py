"""What the hook that creates the key makes, and what it says."""

import base64
import json

import pytest

from aixcoder_operator.create_key import CannotCreateError, outcome, secret_object


def test_the_secret_holds_the_bytes_as_they_are_and_cannot_be_changed() -> None:
    secret = secret_object("platform", "operator-key", "key", b"\x00\xff\n")
    assert base64.b64decode(secret["data"]["key"]) == b"\x00\xff\n"
    assert secret["immutable"] is True
    assert (secret["metadata"]["namespace"], secret["metadata"]["name"]) == ("platform", "operator-key")


@pytest.mark.parametrize(
    ("status", "said"),
    [(201, "Created the Secret platform/key with a new key."), (409, "is there already: kept as it is")],
)
def test_there_is_a_key_afterwards(status: int, said: str) -> None:
    assert said in outcome(status, "", "platform/key")


@pytest.mark.parametrize(
    ("status", "body", "said"),
    [
        (403, json.dumps({"message": "secrets is forbidden"}), "with 403: secrets is forbidden"),
        (500, "no JSON at all", "with 500: no JSON at all"),
        (503, json.dumps(["unexpected"]), 'with 503: ["unexpected"]'),
    ],
)
def test_a_refusal_names_the_secret_and_the_way_out(status: int, body: str, said: str) -> None:
    with pytest.raises(CannotCreateError) as refused:
        outcome(status, body, "platform/key")
    assert "platform/key" in str(refused.value)
    assert said in str(refused.value)
    assert "operatorKey.existingSecret" in str(refused.value)
    assert "dataKey.existingSecret" in str(refused.value)
