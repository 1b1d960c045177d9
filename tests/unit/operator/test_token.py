import pytest

from aixcoder_operator.ray.token import ray_token

KEY = bytes(range(32))
UID = "1498187c-5125-4c37-b60c-2c08b14ad66c"


def test_a_token_never_changes_for_one_key_and_uid() -> None:
    # Running clusters were started with it: another value would lock the operator out of them.
    assert ray_token(KEY, UID) == "bba0d739f31f31bb3c9013f1c2ab51e15558a3723e169fb3ad180546c9e6e917"


def test_another_key_or_uid_gives_another_token_of_64_digits() -> None:
    tokens = {ray_token(KEY, UID), ray_token(KEY[::-1], UID), ray_token(KEY, UID[::-1])}
    assert len(tokens) == 3
    assert {len(token) for token in tokens} == {64}
    assert all(set(token) <= set("0123456789abcdef") for token in tokens)


@pytest.mark.parametrize(("key", "uid"), [(b"", UID), (KEY, "")])
def test_nothing_is_derived_from_nothing(key: bytes, uid: str) -> None:
    with pytest.raises(ValueError, match="needs the operator's key and the deployment's uid"):
        ray_token(key, uid)
