"""The Ray Serve application `completion`: import path `aixcoder_serving.replica.application:build`."""

from __future__ import annotations

import os
from typing import Any

from ray import serve
from ray.serve import Application

from aixcoder_serving.protocol import ReplicaSettings

FAILURE_SHOWN_SECONDS = 10.0
"""How long `/ready` tells why loading failed before the health check makes Serve try again in a new process."""

_LAST_WORDS_SECONDS = 1.0
"""How long the answers may take to leave that tell that the engine is lost."""

_HEALTH_CHECK_PERIOD_SECONDS = 2.0
_HEALTH_CHECK_TIMEOUT_SECONDS = 30.0  # imports of the engine hold the interpreter for seconds


class ReplicaActor:
    """What Ray Serve runs in a pod: see the package's description."""

    async def __init__(self, settings: dict[str, Any]) -> None:  # type: ignore[misc]  # Serve awaits it
        from aixcoder_serving.replica import logs
        from aixcoder_serving.replica.listener import Listener
        from aixcoder_serving.replica.server import ReplicaApp
        from aixcoder_serving.replica.service import ReplicaService

        logs.configure()
        self._settings = ReplicaSettings.model_validate(settings)
        self._service = ReplicaService(self._settings)
        self._listener = Listener(ReplicaApp(self._service), None, self._settings.port)
        await self._listener.start()
        self._service.start()

    async def check_health(self) -> None:
        """Raise where Serve should replace this process; end it where its engine is lost.

        Serve replaces a dead process at once, one that only says so after three checks.
        """
        from aixcoder_serving.replica.drain import drain

        if self._service.engine_failure is not None:
            await drain(self._service, self._listener, _LAST_WORDS_SECONDS)
            os._exit(1)
        if not self._listener.alive:
            raise RuntimeError("the replica's listener has ended")
        if trouble := self._service.unhealthy(FAILURE_SHOWN_SECONDS):
            raise RuntimeError(trouble)

    async def __del__(self) -> None:
        """Serve awaits this before it ends the process."""
        from aixcoder_serving.replica.drain import drain

        if hasattr(self, "_listener"):
            await drain(self._service, self._listener, self._settings.shutdown_grace_seconds)


def build(args: dict[str, Any]) -> Application:
    """Make the application from `ReplicaSettings` as a mapping. Raises pydantic's ValidationError."""
    settings = ReplicaSettings.model_validate(args)
    actor_options: dict[str, Any] = {"num_cpus": 0, "resources": {"replica": 1}}
    if settings.device == "cuda":
        actor_options["num_gpus"] = settings.tensor_parallel_size
    deployment = serve.deployment(
        ReplicaActor,
        name="Replica",
        ray_actor_options=actor_options,
        # Serve gives up after this many failed constructors; the deadline is the operator's.
        max_constructor_retry_count=1_000_000,
        health_check_period_s=_HEALTH_CHECK_PERIOD_SECONDS,
        health_check_timeout_s=_HEALTH_CHECK_TIMEOUT_SECONDS,
        # Serve sees none of our requests: `__del__` waits for them, this only guards it.
        graceful_shutdown_timeout_s=settings.shutdown_grace_seconds + 10,
        graceful_shutdown_wait_loop_s=0.1,
    )
    return deployment.bind(settings.model_dump())
