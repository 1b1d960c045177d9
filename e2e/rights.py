"""What an account may do, by its roles, beside what the API server's audit log says it did."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

Json = dict[str, Any]


class Right(NamedTuple):
    """One verb on one resource, `name/subresource` where it is one."""

    group: str
    resource: str
    verb: str


@dataclass(frozen=True)
class Use:
    """What an account asked for: the rights that it needed, and the requests that were refused for want of one."""

    rights: frozenset[Right]
    refused: tuple[str, ...]


def granted(roles: Iterable[Json]) -> frozenset[Right]:
    """Every right in the rules of Roles and ClusterRoles; those bound to names of objects count as the others."""
    return frozenset(
        Right(group, resource, verb)
        for role in roles
        for rule in role["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    )


def used(entries: Iterable[Json], user: str) -> Use:
    """What `user` asked for in audit entries of the stage ResponseComplete.

    A patch that creates its object (status 201, server-side apply) needs `create` beside `patch`. What was refused once
    and granted at another time, in the same namespace, is no refusal: an API server that has just started knows no
    roles yet.
    """
    rights: set[Right] = set()
    allowed: set[tuple[Right, str]] = set()
    refused: list[tuple[tuple[Right, str], str]] = []
    for entry in entries:
        reference = entry.get("objectRef")
        if entry["user"]["username"] != user or not reference or "resource" not in reference:
            continue
        group = reference.get("apiGroup", "")
        resource = "/".join(filter(None, (reference["resource"], reference.get("subresource"))))
        code = entry.get("responseStatus", {}).get("code", 0)
        right = Right(group, resource, entry["verb"])
        where = right, reference.get("namespace", "")
        if code == 403:
            told = f"{entry['verb']} {entry['requestURI']}: {entry['responseStatus'].get('message', '')}"
            refused.append((where, told))
        elif code:
            allowed.add(where)
        rights.add(right)
        if entry["verb"] == "patch" and code == 201:
            rights.add(Right(group, resource, "create"))
    return Use(frozenset(rights), tuple(told for where, told in refused if where not in allowed))
