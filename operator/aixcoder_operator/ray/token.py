"""The token that guards one deployment's Ray clusters.

It is derived, so the operator needs no right to read Secrets, and it is the same after a restart.
"""

from __future__ import annotations

import hashlib
import hmac

_PURPOSE = b"ray-token/v1/"


def ray_token(key: bytes, uid: str) -> str:
    """The token of the deployment with that uid: 64 hexadecimal digits. ValueError without a key or a uid."""
    if not key or not uid:
        raise ValueError("a token needs the operator's key and the deployment's uid")
    return hmac.new(key, _PURPOSE + uid.encode(), hashlib.sha256).hexdigest()
