"""Routes to one replica on this machine, for `aixcoder serve`: no Kubernetes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime

from aixcoder_serving.gateway.routing import View
from aixcoder_serving.protocol import DeploymentView

_UNIT = "local"


class StaticRoutes:
    """One deployment with one replica. While `ready()` is False the gateway is not ready either."""

    def __init__(self, view: View, ready: Callable[[], bool]) -> None:
        self._view = view
        self._ready = ready

    @classmethod
    def one(
        cls,
        served_name: str,
        address: str,
        *,
        max_model_length: int | None = None,
        ready: Callable[[], bool] = lambda: True,
    ) -> StaticRoutes:
        """Routes to the replica at `address` (`host:port`), which is listed as `served_name`."""
        deployment = DeploymentView.model_validate(
            {
                "metadata": {
                    "name": served_name,
                    "namespace": _UNIT,
                    "uid": _UNIT,
                    "creationTimestamp": datetime.now(UTC),
                },
                "spec": {"model": {"servedName": served_name}, "engine": {"maxModelLength": max_model_length}},
                "status": {"traffic": {"version": 1, "weights": {_UNIT: 100}}},
            }
        )
        return cls(View.of([deployment], {(_UNIT, _UNIT): (address,)}), ready)

    @property
    def view(self) -> View | None:
        """The one view, once the replica is ready."""
        return self._view if self._ready() else None

    async def run(self) -> None:
        """Nothing changes; wait to be cancelled."""
        await asyncio.Event().wait()
