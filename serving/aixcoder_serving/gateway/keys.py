"""API keys from the files of a mounted Secret: who may ask.

File name = key id, content = `{"sha256": "<hex digest of the whole key>"}` and what `Key` has beside; other fields are
ignored. A key reads `axk_<id>_<secret>`; only its digest is stored, so the Secret gives no key away.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel

logger = logging.getLogger(__name__)

KEY_ID = re.compile(r"[a-z0-9](?:[-a-z0-9]{0,61}[a-z0-9])?")
_KEY = re.compile(rf"axk_(?P<id>{KEY_ID.pattern})_(?P<secret>[A-Za-z0-9_-]{{16,256}})")
_NOBODY = "0" * 64


class Key(BaseModel):
    """One key, as its file says. `team`: whose cached prompts it may meet; nobody's but its own where none is named.

    `shared`: several people use it, so it tells no editor. `weight` is its share where requests wait. `models`: the
    names that it may ask for; None: all. The limits are of each gateway pod, which know nothing of each other.
    """

    model_config = ConfigDict(
        extra="ignore", frozen=True, alias_generator=to_camel, populate_by_name=True, hide_input_in_errors=True
    )

    id: str = ""
    sha256: Annotated[str, Field(pattern=r"^[0-9A-Fa-f]{64}$")]
    team: Annotated[str, Field(max_length=240)] | None = None
    shared: bool = False
    weight: Annotated[float, Field(gt=0, le=1000, allow_inf_nan=False)] = 1.0
    models: tuple[Annotated[str, Field(max_length=256)], ...] | None = None
    concurrent_requests: Annotated[int, Field(ge=1)] | None = None
    requests_per_minute: Annotated[int, Field(ge=1)] | None = None
    tokens_per_minute: Annotated[int, Field(ge=1)] | None = None

    def may_ask(self, model: str) -> bool:
        """Whether it may use the deployment of that name."""
        return self.models is None or model in self.models


ANYBODY = Key(sha256=_NOBODY, team="", shared=True)
"""Where keys are off."""


def identify(authorization: str | None, keys: Mapping[str, Key]) -> Key | None:
    """The key in an Authorization header, or None where it is missing, malformed or not among `keys`.

    Takes as long for an unknown id as for a wrong secret.
    """
    scheme, _, text = (authorization or "").partition(" ")
    match = _KEY.fullmatch(text.strip())
    if scheme.lower() != "bearer" or match is None:
        return None
    digest = hashlib.sha256(match[0].encode()).hexdigest()
    key = keys.get(match["id"])
    known = hmac.compare_digest(digest, key.sha256.lower() if key is not None else _NOBODY)
    return key if known else None


def parse_record(key_id: str, content: str) -> Key:
    """The key in one file.

    Raises:
        ValueError: it is no such record; the message never holds the content.

    """
    if KEY_ID.fullmatch(key_id) is None:
        raise ValueError("its name must be of lower-case letters, digits and - as `aixcoder keys new` wants it")
    try:
        return Key.model_validate_json(content).model_copy(update={"id": key_id})
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        if not first["loc"]:
            raise ValueError('it must be JSON such as {"sha256": "<64 hex digits>"}') from None
        raise ValueError(f"{first['loc'][0]}: {first['msg']}") from None


class KeyRing:
    """The keys in a directory. Read at the start, and again by `refresh()` where the files have changed.

    Raises:
        OSError: the directory cannot be read at the start.

    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._seen = self._look()
        self._keys = self._read()

    def identify(self, authorization: str | None) -> Key | None:
        """See the function of this name."""
        return identify(authorization, self._keys)

    def refresh(self) -> None:
        """Read the files again if one of them has changed. Keys stay as they are while the directory cannot be read."""
        try:
            seen = self._look()
            if seen != self._seen:
                self._keys, self._seen = self._read(), seen
        except OSError as error:
            logger.warning("API keys cannot be read, the last ones stay valid: %s", error)

    def _files(self) -> list[Path]:
        # A mounted Secret has its files twice: behind the links ..data and ..<time>, and by their names.
        return sorted(path for path in self._directory.iterdir() if not path.name.startswith(".") and path.is_file())

    def _look(self) -> tuple[tuple[str, int, int, int], ...]:
        return tuple((p.name, s.st_ino, s.st_mtime_ns, s.st_size) for p in self._files() for s in [p.stat()])

    def _read(self) -> dict[str, Key]:
        keys = {}
        for path in self._files():
            try:
                keys[path.name] = parse_record(path.name, path.read_text(encoding="utf-8"))
            except ValueError as error:
                logger.error("API key %r is left out: %s", path.name, error)
        logger.info("%d API keys are known", len(keys))
        return keys
