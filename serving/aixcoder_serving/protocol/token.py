"""Tokens that are derived from a key: who has the key needs no right to read the Secret that holds the token.

Operator and gateways share the data key and derive the token of a deployment's replicas alike. It is another key than
that of the Ray tokens, with which a gateway could run code.
"""

from __future__ import annotations

import hashlib
import hmac
from pathlib import Path

KEY_BYTES = 32
"""At least."""


class UnusableKey(OSError):
    """A key can not be used; the message says why and what to do."""


def read_key(file: Path, what: str) -> bytes:
    """The key in a file, its bytes as they are. `what` it is goes into the message.

    Raises:
        UnusableKey: it can not be read, or is too short.

    """
    try:
        key = file.read_bytes()
    except OSError as error:
        raise UnusableKey(f"{file}: {what} is unreadable ({error.strerror}): mount its Secret") from error
    if len(key) < KEY_BYTES:
        raise UnusableKey(f"{file}: {what} has {len(key)} bytes, not {KEY_BYTES} or more: make a longer one")
    return key


def derived_token(key: bytes, uid: str, *, purpose: str, what: str) -> str:
    """The token of the deployment with that uid, for one purpose: 64 hexadecimal digits.

    Raises:
        ValueError: there is no key or no uid; `what` the key is goes into the message.

    """
    if not key or not uid:
        raise ValueError(f"a token needs {what} and the deployment's uid")
    return hmac.new(key, purpose.encode() + uid.encode(), hashlib.sha256).hexdigest()


def replica_token(data_key: bytes, uid: str) -> str:
    """The token by which the replicas of a deployment know a gateway. Raises ValueError as `derived_token`."""
    return derived_token(data_key, uid, purpose="replica-token/v1/", what="the data key")
