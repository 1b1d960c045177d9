"""The headers by which a gateway shows replicas that it is one."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

from aixcoder_serving.protocol import read_key, replica_token

_DEPLOYMENTS = 4096


class ReplicaTokens:
    """Of all deployments, from the data key; without one no header is sent, as to a replica on loopback."""

    def __init__(self, key: bytes | None = None) -> None:
        self._key = key
        self.headers = lru_cache(_DEPLOYMENTS)(self._headers)
        """uid of a deployment → the headers of a request to its replicas."""

    @classmethod
    def read(cls, file: Path | None) -> ReplicaTokens:
        """With the key in a file, its bytes as they are.

        Raises:
            UnusableKey: it can not be read, or is too short.

        """
        return cls(None if file is None else read_key(file, "the data key"))

    def _headers(self, uid: str) -> Mapping[str, str]:
        return {} if self._key is None else {"Authorization": f"Bearer {replica_token(self._key, uid)}"}
