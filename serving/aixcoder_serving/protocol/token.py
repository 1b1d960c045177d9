"""The token by which the replicas of one deployment know a gateway.

Operator and gateways share a key and derive it alike: the operator needs no right to read a Secret, and a gateway none
to read the deployment's. It is another key than that of the Ray tokens, with which a gateway could run code.
"""

from __future__ import annotations

import hashlib
import hmac

DATA_KEY_BYTES = 32
"""At least."""

_PURPOSE = b"replica-token/v1/"


def replica_token(key: bytes, uid: str) -> str:
    """The token of the deployment with that uid: 64 hexadecimal digits. ValueError without a key or a uid."""
    if not key or not uid:
        raise ValueError("a token needs the data key and the deployment's uid")
    return hmac.new(key, _PURPOSE + uid.encode(), hashlib.sha256).hexdigest()
