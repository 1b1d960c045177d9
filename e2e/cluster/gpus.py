"""Fake GPUs: an extended resource in a node's status that no device is behind."""

import http.client
import threading
import time

from e2e.cluster.api import Api, ApiError, Json
from e2e.cluster.layout import Node

RESOURCE = "nvidia.com/gpu"
_WATCH_SECONDS = 300
_RETRY_SECONDS = 0.5


def lacking(node: Json, count: int) -> Json | None:
    """The merge patch of the node's status that gives it `count` GPUs, or None where it has them."""
    status = node.get("status", {})
    wished = str(count)
    if all(status.get(part, {}).get(RESOURCE) == wished for part in ("capacity", "allocatable")):
        return None
    return {"status": {"capacity": {RESOURCE: wished}, "allocatable": {RESOURCE: wished}}}


class Keeper:
    """Keeps the count in a node's status: kubelet sets it to nothing when it registers the node anew."""

    def __init__(self, api: Api, node: Node, count: int) -> None:
        self._api = api
        self._node = node
        self.count = count
        threading.Thread(target=self._keep, name="gpus", daemon=True).start()

    def set(self, count: int) -> None:
        """Wish for another count; it is in the node's status when this returns."""
        self.count = count
        self._mend(self._api.get(f"/api/v1/nodes/{self._node.name}"))

    def _keep(self) -> None:
        path = f"/api/v1/nodes?fieldSelector=metadata.name={self._node.name}"
        while True:
            try:
                for event in self._api.watch(path, seconds=_WATCH_SECONDS):
                    if event["type"] in {"ADDED", "MODIFIED"}:
                        self._mend(event["object"])
            except (ApiError, OSError, http.client.HTTPException):  # the API server is away or has just started
                time.sleep(_RETRY_SECONDS)

    def _mend(self, node: Json) -> None:
        patch = lacking(node, self.count)
        if patch is not None:
            self._api.merge(f"/api/v1/nodes/{self._node.name}/status", patch)
