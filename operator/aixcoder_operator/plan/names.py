"""Names, labels and annotations of everything the operator makes. Running objects carry them: a rename is a new API."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from aixcoder_operator.api.base import GROUP
from aixcoder_operator.api.names import DEPLOYMENT_LABEL, MANAGED_BY_LABEL, MANAGER

REVISION_LABEL = f"{GROUP}/revision"
UNIT_LABEL = f"{GROUP}/unit"
COMPONENT_LABEL = "app.kubernetes.io/component"
HEAD = "head"
WORKER = "worker"


VICTIM_SINCE_ANNOTATION = f"{GROUP}/victim-since"
"""On a worker pod: when it was chosen to go, RFC 3339; beside the deletion cost that the controller manager reads."""
SERVE_REPLICAS_ANNOTATION = f"{GROUP}/serve-replicas"
"""On a ReplicaSet: the replica count that Ray Serve was last told, so that a steady unit need not be asked."""
DELETION_COST_ANNOTATION = "controller.kubernetes.io/pod-deletion-cost"

APPLICATION = "completion"
"""The Ray Serve application of every unit, and its one deployment."""
SERVE_DEPLOYMENT = "Replica"

# No vowels and no look-alikes: a hash never spells a word, and reads well over the telephone.
_ALPHABET = "bcdfghjklmnpqrstvwxz2456789"
_HASH_LENGTH = 6


def deployment_labels(deployment: str) -> dict[str, str]:
    """Labels on every child of a deployment."""
    return {
        "app.kubernetes.io/name": "aixcoder",
        "app.kubernetes.io/instance": deployment,
        MANAGED_BY_LABEL: MANAGER,
        DEPLOYMENT_LABEL: deployment,
    }


def unit_labels(deployment: str, revision: str, unit: str, component: str) -> dict[str, str]:
    """Labels on a child of one unit; `component` is HEAD or WORKER."""
    return deployment_labels(deployment) | {
        COMPONENT_LABEL: component,
        REVISION_LABEL: revision,
        UNIT_LABEL: unit,
    }


def head_name(unit: str) -> str:
    """Name of a unit's head Pod or StatefulSet, and of the Service in front of it."""
    return f"{unit}-head"


def secret_name(deployment: str) -> str:
    """Name of the Secret that holds a deployment's tokens."""
    return f"{deployment}-tokens"


def unit_name(revision: str, incarnation: int) -> str:
    """Name of the n-th Ray cluster of a revision; the first one has the revision's own name."""
    return revision if incarnation == 0 else f"{revision}-{incarnation}"


def incarnation_of(unit: str, revision: str) -> int:
    """Inverse of `unit_name`."""
    return 0 if unit == revision else int(unit.removeprefix(f"{revision}-"))


def is_unit_of(unit: str, revision: str) -> bool:
    """Whether `unit` is an incarnation of `revision`."""
    return unit == revision or unit.removeprefix(f"{revision}-").isdecimal()


def digest(content: Any, salt: int = 0) -> str:
    """A short name part for JSON-able `content`: 27^6 values, equal for equal content whatever the order of keys."""
    text = json.dumps([salt, content], sort_keys=True, separators=(",", ":"))
    number = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")
    letters = []
    for _ in range(_HASH_LENGTH):
        number, index = divmod(number, len(_ALPHABET))
        letters.append(_ALPHABET[index])
    return "".join(letters)
