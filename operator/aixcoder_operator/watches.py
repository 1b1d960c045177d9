"""Kopf's watches, turned into keys.

Kopf runs in a thread with an event loop of its own: its shutdown cancels every task of its loop, and a busy reconcile
must not hold up a watch. It only watches: nothing is written to any object, no finalizer, no annotation.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import kopf
from kubernetes.aio.client.configuration import Configuration

from aixcoder_operator.api import objects
from aixcoder_operator.api.base import GROUP, PLURAL, VERSION
from aixcoder_operator.api.names import DEPLOYMENT_LABEL, MANAGED_BY_LABEL, MANAGER
from aixcoder_operator.api.objects import Object
from aixcoder_operator.cluster.connection import kopf_login
from aixcoder_operator.cluster.kinds import CHILD_KINDS

BEAT_SECONDS = 1.0
STUCK_SECONDS = 30.0

logger = logging.getLogger(__name__)


def key_of(obj: Object) -> str:
    """The queue's key of a deployment: `namespace/name`."""
    return f"{objects.namespace(obj)}/{objects.name(obj)}"


def parent_key_of(child: Object) -> str | None:
    """The key of the deployment that a child belongs to; None where its label is gone."""
    deployment = objects.labels(child).get(DEPLOYMENT_LABEL)
    return f"{objects.namespace(child)}/{deployment}" if deployment else None


def wish_of(parent: Object) -> tuple[Any, ...]:
    """All of a deployment that can change what is to be done. Its status is our own writing and not in it."""
    metadata = objects.metadata(parent)
    return (
        metadata.get("uid"),
        metadata.get("generation"),
        metadata.get("deletionTimestamp"),
        dict(objects.labels(parent)),
        dict(objects.annotations_of(parent)),
    )


class Known:
    """The deployments that the watch has shown: for each its resourceVersion and its wish."""

    def __init__(self) -> None:
        self._wishes: dict[str, tuple[Any, ...]] = {}
        self._versions: dict[str, str] = {}
        self._suspects: dict[str, str] = {}

    def changed(self, event_type: str | None, parent: Object) -> bool:
        """Take in one event; whether it can matter."""
        key = key_of(parent)
        if event_type == "DELETED":
            self._versions.pop(key, None)
            self._wishes.pop(key, None)
            return True
        wish = wish_of(parent)
        self._versions[key] = objects.resource_version(parent)
        matters = self._wishes.get(key) != wish
        self._wishes[key] = wish
        return matters

    def gone(self, listed: Mapping[str, str]) -> list[str]:
        """Keys that the watch has shown and a list (key → resourceVersion) has not; they are forgotten."""
        gone = [key for key in self._versions if key not in listed]
        for key in gone:
            del self._versions[key]
            self._wishes.pop(key, None)
        return gone

    def missed(self, listed: Mapping[str, str]) -> list[str]:
        """Keys of which the watch has shown nothing new since the last call, though that call's list was newer already.

        To be called a minute apart: a watch that lives is never so late.
        """
        behind = {
            key: self._versions.get(key, "") for key, version in listed.items() if self._versions.get(key) != version
        }
        missed = [key for key, shown in behind.items() if self._suspects.get(key) == shown]
        self._suspects = behind
        return missed


class Watches:
    """Watches deployments and their children, and calls `on_parent` and `on_child` in the loop that started it.

    `namespaces` empty: all of them. `on_child` gets the parent's key.
    """

    def __init__(
        self,
        configuration: Configuration,
        namespaces: Sequence[str],
        *,
        on_parent: Callable[[str | None, Object], None],
        on_child: Callable[[str], None],
    ) -> None:
        self._configuration = configuration
        self._namespaces = namespaces
        self._on_parent = on_parent
        self._on_child = on_child
        self._loop = asyncio.get_running_loop()
        self._stop = threading.Event()
        self._ended: asyncio.Future[None] = self._loop.create_future()
        self._last_beat = time.monotonic()
        self._thread = threading.Thread(target=self._run, name="watches", daemon=True)

    def start(self) -> None:
        """Begin to watch."""
        self._last_beat = time.monotonic()
        self._thread.start()

    async def ended(self) -> None:
        """Return when the watches have ended because of `stop`; raise what has ended them otherwise."""
        await asyncio.shield(self._ended)

    async def stop(self) -> None:
        """End the watches. Errors that ended them before are not raised here."""
        self._stop.set()
        if self._thread.ident is not None:
            await asyncio.wait([self._ended])
            await asyncio.to_thread(self._thread.join)

    def problem(self) -> str | None:
        """A sentence where the watches do not live, for /healthz."""
        if self._ended.done():
            return "the watches have ended"
        silence = time.monotonic() - self._last_beat
        return f"the watches' event loop has been stuck for {silence:.0f} s" if silence > STUCK_SECONDS else None

    def _run(self) -> None:
        try:
            asyncio.run(self._watch())
            if not self._stop.is_set():
                raise RuntimeError("the watches ended by themselves")
        except BaseException as error:
            self._loop.call_soon_threadsafe(self._end, error)
        else:
            self._loop.call_soon_threadsafe(self._end, None)

    def _end(self, error: BaseException | None) -> None:
        if error is None:
            self._ended.set_result(None)
        else:
            self._ended.set_exception(error)
            self._ended.exception()  # `stop` may be all that ever looks

    async def _watch(self) -> None:
        # Made before kopf, whose shutdown cancels the tasks that were made after it.
        beat = asyncio.create_task(self._beat())
        try:
            await kopf.operator(
                registry=self._registry(),
                settings=_settings(),
                standalone=True,
                clusterwide=not self._namespaces,
                namespaces=list(self._namespaces),
                stop_flag=self._stop,
            )
        finally:
            beat.cancel()

    async def _beat(self) -> None:
        while True:
            self._last_beat = time.monotonic()
            await asyncio.sleep(BEAT_SECONDS)

    def _registry(self) -> kopf.OperatorRegistry:
        registry = kopf.OperatorRegistry()

        @kopf.on.login(registry=registry)
        async def login(**_: Any) -> kopf.ConnectionInfo:
            return await kopf_login(self._configuration)

        @kopf.on.event(GROUP, VERSION, PLURAL, registry=registry)
        async def parent(event: Mapping[str, Any], **_: Any) -> None:
            self._loop.call_soon_threadsafe(self._on_parent, event["type"], dict(event["object"]))

        async def child(event: Mapping[str, Any], **_: Any) -> None:
            key = parent_key_of(dict(event["object"]))
            if key is not None:
                self._loop.call_soon_threadsafe(self._on_child, key)

        for resource in CHILD_KINDS:
            group, _, version = resource.api_version.rpartition("/")
            kopf.on.event(group, version, resource.plural, id=resource.plural, registry=registry)(child)
        return registry


def _settings() -> kopf.OperatorSettings:
    settings = kopf.OperatorSettings()
    settings.posting.enabled = False
    settings.scanning.disabled = True
    # Several processes watch and one works, by the Lease: the signal handling and the end are ours.
    settings.process.ultimate_exiting_timeout = None
    # Idle per-object tasks of kopf go at once: nothing here waits for more events of one object.
    settings.queueing.idle_timeout = 0.05
    settings.networking.request_timeout = 30
    for resource in CHILD_KINDS:
        group, _, version = resource.api_version.rpartition("/")
        # On the server: a decorator's labels= would have every pod of the cluster sent here.
        settings.watching.label_selectors[group, version, resource.plural] = f"{MANAGED_BY_LABEL}={MANAGER}"
    return settings
