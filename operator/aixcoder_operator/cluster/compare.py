"""Whether an observed object already is what is desired. Pure.

The API server fills in defaults, so the question is whether the desired one is a part of the observed one.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from decimal import Decimal, InvalidOperation
from typing import Any

from aixcoder_operator.api import objects
from aixcoder_operator.api.names import APPLIED_ANNOTATION
from aixcoder_operator.api.objects import Object

# Lists in which others (admission, sidecar injectors, controllers) put entries of their own, and what names an entry in
# them. Every other list must be equal in length and order.
_SHARED_LISTS: Mapping[str, str] = {
    "containers": "name",
    "env": "name",
    "finalizers": "",
    "imagePullSecrets": "name",
    "initContainers": "name",
    "ownerReferences": "uid",
    "tolerations": "key",
    "volumeMounts": "mountPath",
    "volumes": "name",
}

# Maps whose values are quantities, which the API server writes in its own canonical way ("1000m" becomes "1").
_QUANTITY_MAPS = frozenset({"limits", "requests", "capacity"})
_QUANTITY_FIELDS = frozenset({"sizeLimit", "storage"})

_SUFFIXES: Mapping[str, Decimal] = {
    **{suffix: Decimal(1024) ** power for power, suffix in enumerate(("Ki", "Mi", "Gi", "Ti", "Pi", "Ei"), start=1)},
    **{suffix: Decimal(1000) ** power for power, suffix in enumerate(("k", "M", "G", "T", "P", "E"), start=1)},
    "m": Decimal("1e-3"),
    "u": Decimal("1e-6"),
    "n": Decimal("1e-9"),
}


def digest(desired: Object) -> str:
    """Digest of a desired object, for `APPLIED_ANNOTATION`: equal for equal content, whatever the order of keys."""
    text = json.dumps(desired, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def stamped(desired: Object) -> Object:
    """A copy of `desired` that carries its own digest."""
    metadata = dict(desired["metadata"])
    metadata["annotations"] = {**(metadata.get("annotations") or {}), APPLIED_ANNOTATION: digest(desired)}
    return {**desired, "metadata": metadata}


def first_difference(desired: Object, observed: Object) -> str | None:
    """The path of the first field by which `observed` is not what was applied as `desired`; None where it is.

    The digest on `observed` tells what a comparison of parts cannot: that something applied before is not desired now.
    """
    if objects.annotations_of(observed).get(APPLIED_ANNOTATION) != digest(desired):
        return f"metadata.annotations.{APPLIED_ANNOTATION}"
    return _difference(desired, observed, "", "")


def _difference(desired: Any, observed: Any, path: str, field: str) -> str | None:
    if _is_empty(desired) and _is_empty(observed):
        return None  # the API server leaves out most of what is empty
    if isinstance(desired, Mapping):
        if not isinstance(observed, Mapping):
            return path
        inner = "" if field not in _QUANTITY_MAPS else "storage"
        differences = (
            _difference(value, observed.get(name), f"{path}.{name}" if path else name, inner or name)
            for name, value in desired.items()
        )
        return next((difference for difference in differences if difference is not None), None)
    if isinstance(desired, Sequence) and not isinstance(desired, str):
        if not isinstance(observed, Sequence) or isinstance(observed, str):
            return path
        return _list_difference(desired, observed, path, field)
    if field in _QUANTITY_FIELDS:
        return None if _quantity(desired) == _quantity(observed) else path
    return None if desired == observed else path


def _list_difference(desired: Sequence[Any], observed: Sequence[Any], path: str, field: str) -> str | None:
    if field not in _SHARED_LISTS:
        if len(desired) != len(observed):
            return path
        pairs = zip(desired, observed, strict=True)
        differences = (_difference(want, have, f"{path}[{i}]", "") for i, (want, have) in enumerate(pairs))
        return next((difference for difference in differences if difference is not None), None)
    naming = _SHARED_LISTS[field]
    for index, want in enumerate(desired):
        if isinstance(want, Mapping):
            candidates = [have for have in observed if have.get(naming) == want.get(naming)]
        else:
            candidates = [have for have in observed if have == want]
        if not any(_difference(want, have, "", "") is None for have in candidates):
            inner = [_difference(want, have, f"{path}[{index}]", "") for have in candidates]
            return next((difference for difference in inner if difference is not None), f"{path}[{index}]")
    return None


def _is_empty(value: Any) -> bool:
    return value is None or (value in ("", 0, False) or (isinstance(value, (Mapping, Sequence)) and len(value) == 0))


def _quantity(value: Any) -> Decimal | str:
    """A Kubernetes quantity as a number; what is none stays text, and equals only itself."""
    text = str(value)
    for suffix, factor in _SUFFIXES.items():
        if text.endswith(suffix):
            try:
                return Decimal(text.removesuffix(suffix)) * factor
            except InvalidOperation:
                return text
    try:
        return Decimal(text)
    except InvalidOperation:
        return text
