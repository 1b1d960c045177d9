"""The token that guards one deployment's Ray clusters.

It is derived, so the operator needs no right to read Secrets, and it is the same after a restart.
"""

from __future__ import annotations

from aixcoder_serving.protocol import derived_token


def ray_token(key: bytes, uid: str) -> str:
    """The token of the deployment with that uid: 64 hexadecimal digits. ValueError without a key or a uid."""
    return derived_token(key, uid, purpose="ray-token/v1/", what="the operator's key")
