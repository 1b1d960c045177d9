"""Makes the cluster hold the desired objects, writing only what differs, and takes away what is no longer desired."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from aixcoder_operator.api import objects
from aixcoder_operator.api.children import Children
from aixcoder_operator.api.objects import Object, ObjectKey
from aixcoder_operator.cluster import compare, kinds
from aixcoder_operator.cluster.client import Client, ClusterError, Conflict, NotFound
from aixcoder_operator.cluster.kinds import resource_of


class Occupied(ClusterError):
    """An object that we need has a name that somebody else's object has."""


@dataclass(frozen=True)
class Applied:
    """What one `apply` did: `written` in that order; `waiting` for objects of that name to be gone."""

    written: tuple[ObjectKey, ...] = ()
    waiting: tuple[ObjectKey, ...] = ()


async def apply(client: Client, desired: Sequence[Object], children: Children, *, owner: Object) -> Applied:
    """Apply, in the order given, what `children` does not already hold.

    Each of `desired` carries its namespace and an owner reference to `owner`. A Secret, which cannot be read, is
    written each time: leave it out unless it is due. An object that is terminating, or still belongs to an earlier
    deployment of the same name, is waited for. Raises Occupied and whatever the client raises; what was written before
    stays.
    """
    observed = {objects.key(child): child for child in children}
    written: list[ObjectKey] = []
    waiting: list[ObjectKey] = []
    for obj in desired:
        key = objects.key(obj)
        if key.kind == kinds.SECRET.kind:
            await _apply_secret(client, obj)
            written.append(key)
            continue
        present = observed.get(key) or await _unlabelled(client, obj)
        if present is not None:
            if objects.is_terminating(present) or _is_leftover(present, owner):
                waiting.append(key)
                continue
            if objects.uid(owner) not in objects.owner_uids(present):
                raise Occupied(
                    f"{key} exists in namespace {objects.namespace(obj)} and belongs to somebody else:"
                    f" delete or rename it, or rename {objects.name(owner)}"
                )
            if compare.first_difference(obj, present) is None:
                continue
        await client.apply(compare.stamped(obj))
        written.append(key)
    return Applied(tuple(written), tuple(waiting))


async def prune(
    client: Client, desired: Iterable[Object], children: Children, *, owner: Object
) -> tuple[ObjectKey, ...]:
    """Delete the children that `owner` itself owns and that are not desired; what they own goes with them.

    Returns what was deleted now; what is already terminating is left to end.
    """
    wanted = {objects.key(obj) for obj in desired}
    surplus = [
        child
        for child in children
        if objects.uid(owner) in objects.owner_uids(child)
        and objects.key(child) not in wanted
        and not objects.is_terminating(child)
    ]
    for child in surplus:
        await client.delete(child)
    return tuple(objects.key(child) for child in surplus)


async def _apply_secret(client: Client, secret: Object) -> None:
    # Without force: a Secret of that name that somebody else has written is not taken over.
    try:
        await client.apply(secret, force=False)
    except Conflict as error:
        raise Occupied(f"{objects.key(secret)} has fields that somebody else has set: delete it ({error})") from error


async def _unlabelled(client: Client, obj: Object) -> Object | None:
    """The object that the list by labels did not show: somebody else's, or ours with its labels taken off."""
    try:
        return await client.get(resource_of(obj), objects.namespace(obj), objects.name(obj))
    except NotFound:
        return None


def _is_leftover(present: Object, owner: Object) -> bool:
    """Whether it belonged to an earlier deployment of that name, for the garbage collector to take away."""
    references = objects.metadata(present).get("ownerReferences") or ()
    return any(
        (reference["kind"], reference["name"]) == (owner["kind"], objects.name(owner))
        and reference["uid"] != objects.uid(owner)
        for reference in references
    )
