"""Who may complete and listen to the load: who knows the token."""

from __future__ import annotations

import hmac
from pathlib import Path

_SCHEME = b"Bearer "


class Authority:
    """Knows the token that a file holds; without a file everybody is allowed.

    Raises:
        OSError: the file can not be read.
        ValueError: it is empty.

    """

    def __init__(self, file: str | None) -> None:
        self._wanted: bytes | None = None
        if file is not None:
            token = Path(file).read_bytes().strip()
            if not token:
                raise ValueError(f"{file} is empty: it has to hold the token by which replicas know a gateway")
            self._wanted = _SCHEME + token

    def allows(self, authorization: bytes) -> bool:
        """Whether the value of an Authorization header, b"" where there was none, holds the token."""
        return self._wanted is None or hmac.compare_digest(authorization, self._wanted)
