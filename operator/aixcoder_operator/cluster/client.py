"""A thin typed client of the API server: the verbs that the operator uses, raw objects, typed errors, bounded times.

Nothing is retried here: the work queue backs off per key. Writes pass a guard first, so that a process that no longer
leads writes nothing, and no write outlives the time for which leadership is sure.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Mapping
from typing import Any, Literal, Protocol
from urllib.parse import urlencode

import aiohttp
from kubernetes.aio.client.configuration import Configuration
from kubernetes.aio.client.rest import RESTClientObject

from aixcoder_operator.api import names, objects
from aixcoder_operator.api.objects import Object
from aixcoder_operator.cluster.kinds import Resource, resource_of

REQUEST_SECONDS = 10.0
"""No request takes longer: a slow API server costs a worker this much, not for ever."""
_PAGE = 500
_JSON = "application/json"
_METADATA_ONLY = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"

Guard = Callable[[], float]
"""Seconds for which a write is still allowed to run. Raises NotLeading where it is not."""


class NotLeading(Exception):
    """This process does not hold the Lease, so it must write nothing."""


class ClusterError(Exception):
    """A request to the API server failed; the message says which and why."""


class NotFound(ClusterError):
    """404."""


class Conflict(ClusterError):
    """409: the object is no longer the one that was read, exists already, or a field has another owner."""


class Forbidden(ClusterError):
    """401 or 403: the operator's rights do not suffice, or a quota or Pod Security refuses the object."""


class Invalid(ClusterError):
    """400 or 422: the API server does not accept the object; the message is its own."""


class Unavailable(ClusterError):
    """No answer in time, no connection, or 5xx."""


class Throttled(ClusterError):
    """429: come again after `retry_after` seconds."""

    def __init__(self, message: str, retry_after: float) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class RequestObserver(Protocol):
    """Told of each request when it has ended; `code` 0 where there was no answer."""

    def __call__(self, verb: str, kind: str, code: int, seconds: float) -> None:
        """Record one request."""


def unobserved(verb: str, kind: str, code: int, seconds: float) -> None:
    """Record nothing."""


def unguarded() -> float:
    """Let every write pass: a guard for what needs no leadership, such as the Lease itself."""
    return REQUEST_SECONDS


class Client:
    """Requests over one connection pool. Close the `Connection` that it was made from, not the client."""

    def __init__(
        self,
        rest: RESTClientObject,
        configuration: Configuration,
        *,
        guard: Guard = unguarded,
        observer: RequestObserver = unobserved,
        request_seconds: float = REQUEST_SECONDS,
    ) -> None:
        self._rest = rest
        self._configuration = configuration
        self._guard = guard
        self._observer = observer
        self._request_seconds = request_seconds

    def guarded(self, guard: Guard) -> Client:
        """The same client, its writes behind `guard`."""
        return Client(
            self._rest,
            self._configuration,
            guard=guard,
            observer=self._observer,
            request_seconds=self._request_seconds,
        )

    async def get(self, resource: Resource, namespace: str | None, name: str) -> Object:
        """One object. Raises NotFound."""
        return await self._request("get", resource, resource.path(namespace, name))

    async def list(
        self,
        resource: Resource,
        namespace: str | None,
        *,
        labels: Mapping[str, str] | None = None,
        metadata_only: bool = False,
    ) -> list[Object]:
        """All objects, as they are now (never from a cache that lags), sorted by namespace and name.

        `namespace` None: of all namespaces. `metadata_only`: nothing but metadata comes back.
        """
        found: list[Object] = []
        query = {"limit": str(_PAGE)}
        if labels:
            query["labelSelector"] = ",".join(f"{key}={value}" for key, value in sorted(labels.items()))
        while True:
            page = await self._request(
                "list", resource, resource.path(namespace), query, accept=_METADATA_ONLY if metadata_only else _JSON
            )
            # Items of a list come without what all of them share.
            found += ({**item, "apiVersion": resource.api_version, "kind": resource.kind} for item in page["items"])
            continuation = page["metadata"].get("continue")
            if not continuation:
                return sorted(found, key=lambda obj: (objects.namespace(obj), objects.name(obj)))
            query["continue"] = continuation

    async def create(self, obj: Object) -> Object:
        """Store a new object. Raises Conflict where the name is taken."""
        resource = resource_of(obj)
        path = resource.path(objects.namespace(obj) or None)
        return await self._write("create", resource, path, {"fieldManager": names.MANAGER}, obj)

    async def replace(self, obj: Object) -> Object:
        """Store the object in place of the one with its resourceVersion. Raises Conflict where that is not current."""
        resource = resource_of(obj)
        path = resource.path(objects.namespace(obj) or None, objects.name(obj))
        return await self._write("update", resource, path, {"fieldManager": names.MANAGER}, obj)

    async def apply(self, obj: Object, *, force: bool = True) -> Object:
        """Server-side apply. Without `force`: raises Conflict where another manager owns a field with another value."""
        resource = resource_of(obj)
        path = resource.path(objects.namespace(obj) or None, objects.name(obj))
        query = {"fieldManager": names.MANAGER, "force": "true" if force else "false"}
        return await self._write("apply", resource, path, query, obj, "application/apply-patch+yaml")

    async def apply_status(self, parent: Object, status: Mapping[str, Any]) -> Object:
        """Make `status` the whole status of `parent`, as it was read; return it as it then is.

        Raises Conflict where the object has changed since it was read, or its name is another one's now; NotFound.
        """
        # Not by server-side apply: it turns a map that loses its last key into null, which the schema refuses.
        resource = resource_of(parent)
        path = resource.path(objects.namespace(parent), objects.name(parent), "status")
        return await self._write(
            "update", resource, path, {"fieldManager": names.MANAGER}, {**parent, "status": status}
        )

    async def annotate(self, obj: Object, annotations: Mapping[str, str | None]) -> Object:
        """Set annotations, or remove those that are None. Raises Conflict where the name is another object's now."""
        resource = resource_of(obj)
        path = resource.path(objects.namespace(obj), objects.name(obj))
        body = {"metadata": {"uid": objects.uid(obj), "annotations": dict(annotations)}}
        query = {"fieldManager": names.MANAGER}
        try:
            return await self._write("patch", resource, path, query, body, "application/merge-patch+json")
        except Invalid as error:
            # Some kinds answer to another uid with 409, some with "metadata.uid: field is immutable".
            if "metadata.uid" in str(error):
                raise Conflict(str(error)) from error
            raise

    async def delete(
        self,
        obj: Object,
        *,
        propagation: Literal["Background", "Foreground", "Orphan"] = "Background",
        grace_seconds: int | None = None,
    ) -> None:
        """Delete this very object. One that is gone, or whose name another object has taken, counts as deleted."""
        resource = resource_of(obj)
        body: Object = {
            "apiVersion": "v1",
            "kind": "DeleteOptions",
            "preconditions": {"uid": objects.uid(obj)},
            "propagationPolicy": propagation,
        }
        if grace_seconds is not None:
            body["gracePeriodSeconds"] = grace_seconds
        path = resource.path(objects.namespace(obj) or None, objects.name(obj))
        try:
            await self._write("delete", resource, path, {}, body)
        except (NotFound, Conflict):
            return

    async def _write(
        self, verb: str, resource: Resource, path: str, query: Mapping[str, str], body: Object, content: str = _JSON
    ) -> Object:
        return await self._request(verb, resource, path, query, body, content=content, seconds=self._guard())

    async def _request(
        self,
        verb: str,
        resource: Resource,
        path: str,
        query: Mapping[str, str] | None = None,
        body: Object | None = None,
        *,
        accept: str = _JSON,
        content: str = _JSON,
        seconds: float | None = None,
    ) -> Object:
        budget = self._request_seconds if seconds is None else min(seconds, self._request_seconds)
        url = self._configuration.host + path + (f"?{urlencode(query)}" if query else "")
        what = f"{verb} {path}"
        started = time.monotonic()
        code = 0
        try:
            async with asyncio.timeout(budget):
                headers = {"Accept": accept, "Content-Type": content, "User-Agent": names.MANAGER}
                headers |= await self._authorization()
                response = await self._rest.request(
                    _METHODS[verb], url, headers, body, _request_timeout=aiohttp.ClientTimeout(total=None)
                )
                data = await response.read()
                code = response.status
                retry_after = response.getheader("Retry-After")
        except TimeoutError as error:
            raise Unavailable(f"{what}: the API server did not answer within {budget:.0f} s") from error
        except (aiohttp.ClientError, OSError) as error:
            raise Unavailable(f"{what}: no connection to the API server: {error}") from error
        finally:
            self._observer(verb, resource.kind, code, time.monotonic() - started)
        if code >= 400:
            raise _error(what, code, data, retry_after)
        parsed: Object = json.loads(data)
        return parsed

    async def _authorization(self) -> dict[str, str]:
        token = await self._configuration.get_api_key_with_prefix("BearerToken", alias="authorization")
        if token:
            return {"Authorization": token}
        return {}


_METHODS = {
    "get": "GET",
    "list": "GET",
    "create": "POST",
    "update": "PUT",
    "apply": "PATCH",
    "patch": "PATCH",
    "delete": "DELETE",
}


def _error(what: str, code: int, data: bytes, retry_after: str | None) -> ClusterError:
    """The typed error for an answer; its message is the API server's where it gave one."""
    try:
        message = str(json.loads(data)["message"])
    except (ValueError, KeyError, TypeError):
        message = data[:200].decode(errors="replace").strip() or "no message"
    text = f"{what}: {message} ({code})"
    match code:
        case 404:
            return NotFound(text)
        case 409:
            return Conflict(text)
        case 401 | 403:
            return Forbidden(text)
        case 429:
            return Throttled(text, float(retry_after) if retry_after and retry_after.isdigit() else 1.0)
        case _ if code >= 500:
            return Unavailable(text)
        case _:
            return Invalid(text)
