"""Kubernetes objects as the API server's JSON, and small readers of what every object has."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, NamedTuple, TypeAlias

Object: TypeAlias = dict[str, Any]
"""An object as parsed JSON: `{"apiVersion": …, "kind": …, "metadata": {…}, …}`."""


class ObjectKey(NamedTuple):
    """What names one object within a namespace."""

    kind: str
    name: str

    def __str__(self) -> str:
        return f"{self.kind}/{self.name}"


def metadata(obj: Object) -> Mapping[str, Any]:
    """`metadata`; empty where there is none."""
    found: Mapping[str, Any] = obj.get("metadata") or {}
    return found


def name(obj: Object) -> str:
    """`metadata.name`. KeyError where there is none."""
    found: str = metadata(obj)["name"]
    return found


def namespace(obj: Object) -> str:
    """`metadata.namespace`; empty for what is cluster-wide."""
    return str(metadata(obj).get("namespace") or "")


def uid(obj: Object) -> str:
    """`metadata.uid`; empty for what is not stored yet."""
    return str(metadata(obj).get("uid") or "")


def key(obj: Object) -> ObjectKey:
    """Kind and name. KeyError where either is missing; items of a list need their kind filled in first."""
    return ObjectKey(obj["kind"], name(obj))


def resource_version(obj: Object) -> str:
    """`metadata.resourceVersion`; empty for what is not stored yet."""
    return str(metadata(obj).get("resourceVersion") or "")


def generation(obj: Object) -> int:
    """`metadata.generation`; 0 where the API server keeps none."""
    return int(metadata(obj).get("generation") or 0)


def labels(obj: Object) -> Mapping[str, str]:
    """`metadata.labels`."""
    found: Mapping[str, str] = metadata(obj).get("labels") or {}
    return found


def annotations_of(obj: Object) -> Mapping[str, str]:
    """`metadata.annotations`."""
    found: Mapping[str, str] = metadata(obj).get("annotations") or {}
    return found


def is_terminating(obj: Object) -> bool:
    """Whether the object is on its way out (`metadata.deletionTimestamp` is set)."""
    return bool(metadata(obj).get("deletionTimestamp"))


def owner_uids(obj: Object) -> frozenset[str]:
    """The uids of all owner references."""
    return frozenset(reference["uid"] for reference in metadata(obj).get("ownerReferences") or ())


def controller(obj: Object) -> Mapping[str, Any] | None:
    """The owner reference that is the object's controller, as a mapping with kind, name and uid."""
    references: Iterable[Mapping[str, Any]] = metadata(obj).get("ownerReferences") or ()
    return next((reference for reference in references if reference.get("controller")), None)


def condition(obj: Object, type_: str) -> Mapping[str, Any] | None:
    """The entry of `status.conditions` of that type."""
    entries: Iterable[Mapping[str, Any]] = (obj.get("status") or {}).get("conditions") or ()
    return next((entry for entry in entries if entry.get("type") == type_), None)


def is_true(obj: Object, type_: str) -> bool:
    """Whether the condition of that type is there and True."""
    found = condition(obj, type_)
    return found is not None and found.get("status") == "True"


def timestamp(text: str) -> datetime:
    """A time as Kubernetes writes it (RFC 3339) with its zone. ValueError where it is none."""
    return datetime.fromisoformat(text)
