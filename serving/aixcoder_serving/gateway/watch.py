"""The gateway's view of the cluster: AixcoderDeployments and EndpointSlices, listed once and then watched.

While the API server is away the last view is kept: replicas go on serving without it.
"""

from __future__ import annotations

import asyncio
import json
import logging
import random
from collections.abc import Callable, Mapping, Sequence
from contextlib import aclosing
from typing import Any, Generic, TypeVar

import aiohttp
from pydantic import ValidationError

from aixcoder_serving.gateway import ndjson
from aixcoder_serving.gateway.endpoints import Slice, owners, ready_endpoints
from aixcoder_serving.gateway.kubeapi import WATCH_SECONDS, Access
from aixcoder_serving.gateway.routing import View
from aixcoder_serving.protocol import DeploymentView

logger = logging.getLogger(__name__)

DEPLOYMENTS = ("apis/serving.aixcoder.io/v1alpha1", "aixcoderdeployments")
SLICES = ("apis/discovery.k8s.io/v1", "endpointslices")
UNIT_LABEL = "serving.aixcoder.io/unit"

_FIRST_BACK_OFF, _LAST_BACK_OFF = 0.1, 5.0
_EVENT_LIMIT = 16 * 2**20
"""Ten times what the API server takes for one object."""

T = TypeVar("T")


class Gone(Exception):
    """The API server no longer has the version to watch from: list again."""


class ApiServerError(Exception):
    """The API server answered with an error; the message names the status and its reason."""


class Mirror(Generic[T]):
    """A copy of all objects of one list, kept by list and watch, `decode`d to what the gateway needs of each."""

    def __init__(
        self,
        path: str,
        parameters: Mapping[str, str],
        decode: Callable[[dict[str, Any]], T],
        changed: Callable[[], None],
    ) -> None:
        self._path = path
        self._parameters = parameters
        self._decode = decode
        self._changed = changed
        self._version: str | None = None
        self.items: dict[tuple[str, str], T] = {}
        self.synced = False

    async def run(self, access: Access, session: aiohttp.ClientSession) -> None:
        """Follow the list until cancelled; errors are logged and waited out."""
        clock = asyncio.get_running_loop().time
        back_off = _FIRST_BACK_OFF
        while True:
            began = clock()
            try:
                if self._version is None:
                    await self._list(access, session)
                await self._watch(access, session)
            except Gone:
                logger.info("%s: the watch is too old, listing again", self._path)
                self._version = None
            except (aiohttp.ClientError, OSError) as error:
                logger.warning("%s: the API server is away, the last state is kept: %r", self._path, error)
            except (ApiServerError, ValueError, LookupError, TypeError) as error:
                # The last three: an answer that is no list and no event, as of a proxy in between.
                logger.error("%s: listing again: %r", self._path, error)
                self._version = None
            if clock() - began > _LAST_BACK_OFF:
                back_off = _FIRST_BACK_OFF
            await asyncio.sleep(back_off * random.uniform(0.5, 1.0))  # noqa: S311 - spreads gateways, keeps no secret
            back_off = min(2 * back_off, _LAST_BACK_OFF)

    async def _list(self, access: Access, session: aiohttp.ClientSession) -> None:
        async with session.get(self._path, params=self._parameters, headers=access.authorization()) as response:
            await _check(response)
            listed = await response.json()
        self._version = listed["metadata"]["resourceVersion"]
        self.items, before = {}, self.items
        for raw in listed["items"]:
            self._put(raw, before)
        self.synced = True
        self._changed()

    async def _watch(self, access: Access, session: aiohttp.ClientSession) -> None:
        parameters = {
            **self._parameters,
            "watch": "1",
            "allowWatchBookmarks": "true",
            "resourceVersion": str(self._version),
            "timeoutSeconds": str(WATCH_SECONDS),
        }
        async with session.get(self._path, params=parameters, headers=access.authorization()) as response:
            await _check(response)
            async with aclosing(ndjson.lines(response.content, _EVENT_LIMIT)) as lines:
                async for line in lines:
                    event = json.loads(line)
                    self._take(event["type"], event["object"])

    def _take(self, kind: str, raw: dict[str, Any]) -> None:
        if kind == "ERROR":
            if raw.get("code") == 410:
                raise Gone
            raise ApiServerError(f"the watch ended with {raw.get('code')}: {raw.get('message')}")
        self._version = raw["metadata"]["resourceVersion"]
        if kind == "BOOKMARK":
            return
        if kind == "DELETED":
            self.items.pop(_key(raw), None)
        else:
            self._put(raw, self.items)
        self._changed()

    def _put(self, raw: dict[str, Any], before: Mapping[tuple[str, str], T]) -> None:
        """Take an object in; one that is not understood stays as it was in `before`."""
        key = _key(raw)
        try:
            self.items[key] = self._decode(raw)
        except ValidationError as error:
            logger.error("%s %s/%s is not understood: %s", self._path, *key, error)
            if key in before:
                self.items[key] = before[key]


class KubernetesRoutes:
    """Routes as the resources in `namespaces` say; none listed means all of them."""

    def __init__(self, access: Access, namespaces: Sequence[str] = ()) -> None:
        self._access = access
        scopes = [f"namespaces/{namespace}/" for namespace in namespaces] or [""]
        self._deployments = [
            Mirror(_path(DEPLOYMENTS, scope), {}, DeploymentView.model_validate, self._changed) for scope in scopes
        ]
        self._slices = [
            Mirror(_path(SLICES, scope), {"labelSelector": UNIT_LABEL}, Slice.model_validate, self._changed)
            for scope in scopes
        ]
        self._view: View | None = None

    @property
    def view(self) -> View | None:
        """The last state seen; None until everything has been listed once."""
        return self._view

    async def run(self) -> None:
        """Follow the cluster until cancelled."""
        async with self._access.session() as session, asyncio.TaskGroup() as group:
            for mirror in self._deployments:
                group.create_task(mirror.run(self._access, session))
            for slices in self._slices:
                group.create_task(slices.run(self._access, session))

    def _changed(self) -> None:
        if not all(m.synced for m in self._deployments) or not all(m.synced for m in self._slices):
            return
        slices: list[Slice] = [item for mirror in self._slices for item in mirror.items.values()]
        deployments = [item for mirror in self._deployments for item in mirror.items.values()]
        self._view = View.of(deployments, ready_endpoints(slices), owners(slices))


def _path(resource: tuple[str, str], scope: str) -> str:
    group_version, plural = resource
    return f"{group_version}/{scope}{plural}"


def _key(raw: Mapping[str, Any]) -> tuple[str, str]:
    return raw["metadata"]["namespace"], raw["metadata"]["name"]


async def _check(response: aiohttp.ClientResponse) -> None:
    if response.status == 410:
        raise Gone
    if response.status != 200:
        reason = (await response.text())[:500]
        raise ApiServerError(f"the API server answered {response.status}: {reason}")
