"""The headers by which a gateway shows replicas that it is one."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

from aixcoder_serving.protocol import DATA_KEY_BYTES, replica_token

_DEPLOYMENTS = 4096


class UnusableKey(OSError):
    """The data key can not be used; the message says why and what to do."""


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
        if file is None:
            return cls()
        try:
            key = file.read_bytes()
        except OSError as error:
            raise UnusableKey(f"{file}: the data key is unreadable ({error.strerror}): mount its Secret") from error
        if len(key) < DATA_KEY_BYTES:
            raise UnusableKey(
                f"{file}: the data key has {len(key)} bytes, not {DATA_KEY_BYTES} or more: make a longer one"
            )
        return cls(key)

    def _headers(self, uid: str) -> Mapping[str, str]:
        return {} if self._key is None else {"Authorization": f"Bearer {replica_token(self._key, uid)}"}
