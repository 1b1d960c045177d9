"""Which deployment a model name belongs to: of several that claim one, the oldest, as the gateways see it too.

Kept from the watch, since it concerns all deployments at once; a list for each look would cost the square of their
number. What is out of date here is told again with the next event.
"""

from __future__ import annotations

from dataclasses import dataclass

from aixcoder_operator.api import objects
from aixcoder_operator.api.objects import Object


@dataclass(frozen=True, slots=True, order=True)
class _Claim:
    created: str
    uid: str
    key: str
    name: str


class ServedNames:
    """The claims of all deployments by their keys, `namespace/name`."""

    def __init__(self) -> None:
        self._claims: dict[str, _Claim] = {}

    def changed(self, key: str, parent: Object | None) -> list[str]:
        """Take in that a deployment is so now, None: gone. Returns the other keys that claim a name it has or had."""
        before = self._claims.pop(key, None)
        after = None if parent is None else _claim(key, parent)
        if after is not None:
            self._claims[key] = after
        if before == after:
            return []
        names = {claim.name for claim in (before, after) if claim is not None}
        return [other for other, claim in self._claims.items() if other != key and claim.name in names]

    def taken_by(self, key: str) -> str | None:
        """The key of the deployment that the name belongs to which `key` claims; None where that is itself."""
        own = self._claims.get(key)
        if own is None:
            return None
        oldest = min(claim for claim in self._claims.values() if claim.name == own.name)
        return None if oldest.key == key else oldest.key


def _claim(key: str, parent: Object) -> _Claim:
    metadata = objects.metadata(parent)
    model = (parent.get("spec") or {}).get("model") or {}
    return _Claim(
        created=str(metadata.get("creationTimestamp", "")),
        uid=str(metadata.get("uid", "")),
        key=key,
        name=str(model.get("servedName") or objects.name(parent)),
    )
