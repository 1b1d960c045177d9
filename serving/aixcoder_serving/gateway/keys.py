"""API keys from the files of a mounted Secret: who may ask.

File name = key id, content = `{"sha256": "<hex digest of the whole key>"}`; more fields may come and are ignored. A key
reads `axk_<id>_<secret>`; only its digest is stored, so the Secret gives no key away.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import logging
import re
from collections.abc import Mapping
from pathlib import Path

logger = logging.getLogger(__name__)

_KEY = re.compile(r"axk_(?P<id>[a-z0-9](?:[-a-z0-9]{0,61}[a-z0-9])?)_(?P<secret>[A-Za-z0-9_-]{16,256})")
_DIGEST = re.compile(r"[0-9a-f]{64}")
_NOBODY = "0" * 64


def identify(authorization: str | None, digests: Mapping[str, str]) -> str | None:
    """The id of the key in an Authorization header, or None where it is missing, malformed or not in `digests`.

    Takes as long for an unknown id as for a wrong secret.
    """
    scheme, _, key = (authorization or "").partition(" ")
    match = _KEY.fullmatch(key.strip())
    if scheme.lower() != "bearer" or match is None:
        return None
    digest = hashlib.sha256(match[0].encode()).hexdigest()
    known = hmac.compare_digest(digest, digests.get(match["id"], _NOBODY))
    return match["id"] if known else None


def parse_record(content: str) -> str:
    """The digest in one key's file.

    Raises:
        ValueError: it is no such record; the message never holds the content.

    """
    try:
        record = json.loads(content)
    except (ValueError, RecursionError):
        raise ValueError("it is not valid JSON") from None
    digest = record.get("sha256") if isinstance(record, dict) else None
    if not isinstance(digest, str) or not _DIGEST.fullmatch(digest.lower()):
        raise ValueError('it must be {"sha256": "<64 hex digits>"}')
    return digest.lower()


class KeyRing:
    """The keys in a directory. Read at the start, and again by `refresh()` where the files have changed.

    Raises:
        OSError: the directory cannot be read at the start.

    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._seen = self._look()
        self._digests = self._read()

    def identify(self, authorization: str | None) -> str | None:
        """See the function of this name."""
        return identify(authorization, self._digests)

    def refresh(self) -> None:
        """Read the files again if one of them has changed. Keys stay as they are while the directory cannot be read."""
        try:
            seen = self._look()
            if seen != self._seen:
                self._digests, self._seen = self._read(), seen
        except OSError as error:
            logger.warning("API keys cannot be read, the last ones stay valid: %s", error)

    def _files(self) -> list[Path]:
        # A mounted Secret has its files twice: behind the links ..data and ..<time>, and by their names.
        return sorted(path for path in self._directory.iterdir() if not path.name.startswith(".") and path.is_file())

    def _look(self) -> tuple[tuple[str, int, int, int], ...]:
        return tuple((p.name, s.st_ino, s.st_mtime_ns, s.st_size) for p in self._files() for s in [p.stat()])

    def _read(self) -> dict[str, str]:
        digests = {}
        for path in self._files():
            try:
                digests[path.name] = parse_record(path.read_text(encoding="utf-8"))
            except ValueError as error:
                logger.error("API key %r is left out: %s", path.name, error)
        logger.info("%d API keys are known", len(digests))
        return digests
