"""Revisions: what needs new replicas, stored as ControllerRevisions.

A revision stores the user's fields, the pod templates and the Serve application as they were rendered on its first day.
Its objects are rendered only from that, so that an operator with other templates or another image restarts nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from aixcoder_operator.api.deployment import AixcoderDeployment, DeploymentSpec
from aixcoder_operator.api.objects import Object, name
from aixcoder_operator.api.serve import Application
from aixcoder_operator.plan import names

RENDER_VERSION = 1
"""Version of the layout of a stored revision; a reader keeps reading the older ones."""

_HASHED_SECTIONS = ("model", "engine", "resources", "scheduling", "worker", "head")

_PASSED_ON = frozenset({"labelSelector", "nodeAffinity", "podAffinity", "podAntiAffinity", "valueFrom", "volumes"})
"""Fields in the words of Kubernetes, where an empty part says something: a selector that selects everything."""


@dataclass(frozen=True, slots=True)
class Templates:
    """What is rendered once for a revision."""

    image: str
    head: Object
    """Pod template of the head, without the labels that name the unit."""
    worker: Object
    """Pod template of a worker, likewise."""
    application: Application
    """The Ray Serve application, without its replica count."""
    storage_class: str | None
    """Storage class of the head's claim; None where the head is a bare Pod."""


@dataclass(frozen=True, slots=True)
class Revision:
    """One stored revision. `number` orders them: the one wished for last has the highest."""

    name: str
    number: int
    spec: Object
    """The canonical user fields."""
    restart: str
    templates: Templates


def canonical(spec: DeploymentSpec) -> Object:
    """The user's fields that need new replicas, as written: no defaults, nothing empty, so that equal wishes are equal.

    `model.servedName` is left out: gateways read it from the resource, and a new name needs no new replica.
    """
    document = spec.model_dump(mode="json", by_alias=True, exclude_none=True, include=set(_HASHED_SECTIONS))
    document.get("model", {}).pop("servedName", None)
    pruned: Object = _without_empty(document)
    if spec.resources.gpu is not None:
        pruned.setdefault("resources", {}).setdefault("gpu", {})
    return pruned


def _without_empty(value: Any) -> Any:
    if isinstance(value, dict):
        found = {key: item if key in _PASSED_ON else _without_empty(item) for key, item in value.items()}
        return {key: item for key, item in found.items() if item != [] and (item != {} or key in _PASSED_ON)}
    if isinstance(value, list):
        return [_without_empty(item) for item in value]
    return value


def stored(controller_revisions: Iterable[Object]) -> tuple[Revision, ...]:
    """The stored revisions, oldest first."""
    return tuple(sorted((_read(obj) for obj in controller_revisions), key=lambda revision: revision.number))


def choose(
    deployment: AixcoderDeployment,
    revisions: tuple[Revision, ...],
    current: str | None,
    render: Callable[[], Templates],
) -> Revision:
    """The revision that the resource asks for: a stored one with equal fields, else a new one made by `render`.

    A restart annotation asks for a revision of that restart; without one (never set, or taken away) any revision with
    equal fields will do, first the one named `current`. The chosen one has the highest number of all.
    """
    spec, restart = canonical(deployment.spec), deployment.metadata.restart
    equal = [found for found in revisions if found.spec == spec and restart in ("", found.restart)]
    highest = max((found.number for found in revisions), default=0)
    if equal:
        chosen = next((found for found in equal if found.name == current), equal[-1])
        number = chosen.number if chosen.number == highest else highest + 1
        return Revision(chosen.name, number, chosen.spec, chosen.restart, chosen.templates)
    return Revision(_free_name(deployment, spec, restart, revisions), highest + 1, spec, restart, render())


def history(revisions: tuple[Revision, ...], needed: frozenset[str], limit: int) -> tuple[Revision, ...]:
    """The revisions to keep: those `needed` and the `limit` newest of the others."""
    others = [found for found in revisions if found.name not in needed]
    kept = {found.name for found in others[len(others) - min(limit, len(others)) :]}
    return tuple(found for found in revisions if found.name in needed or found.name in kept)


def controller_revision(revision: Revision, metadata: Object) -> Object:
    """The ControllerRevision that stores `revision`; `metadata` has namespace, owner and labels."""
    templates = revision.templates
    return {
        "apiVersion": "apps/v1",
        "kind": "ControllerRevision",
        "metadata": metadata | {"name": revision.name},
        "revision": revision.number,
        "data": {
            "renderVersion": RENDER_VERSION,
            "spec": revision.spec,
            "restart": revision.restart,
            "image": templates.image,
            "head": templates.head,
            "worker": templates.worker,
            "application": templates.application.model_dump(mode="json", exclude_none=True),
            **({"storageClass": templates.storage_class} if templates.storage_class is not None else {}),
        },
    }


def _read(obj: Object) -> Revision:
    data = obj["data"]
    return Revision(
        name=name(obj),
        number=int(obj["revision"]),
        spec=data["spec"],
        restart=data["restart"],
        templates=Templates(
            image=data["image"],
            head=data["head"],
            worker=data["worker"],
            application=Application.model_validate(data["application"]),
            storage_class=data.get("storageClass"),
        ),
    )


def _free_name(deployment: AixcoderDeployment, spec: Object, restart: str, revisions: tuple[Revision, ...]) -> str:
    taken = {found.name for found in revisions}
    salt = 0
    while (candidate := f"{deployment.metadata.name}-{names.digest([spec, restart], salt)}") in taken:
        salt += 1
    return candidate
