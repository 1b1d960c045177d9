"""Once a second, while this process leads: ask the gateways, decide for every deployment with spec.autoscaling.

`reconcile` tells what it sees (`learn`, `measure`), and gets what is decided (`decided`). A deployment is known here
from its first reconcile on, which reads it live: a new leader never begins with a status older than what the last one
wrote.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Protocol

from aixcoder_operator.api.deployment import AixcoderDeployment
from aixcoder_operator.api.objects import Object
from aixcoder_operator.api.status import AutoscalingStatus
from aixcoder_operator.plan.observed import Observed
from aixcoder_operator.scaling.history import History
from aixcoder_operator.scaling.metrics import ScalingMetrics
from aixcoder_operator.scaling.policy import Now
from aixcoder_operator.scaling.scaler import Scaler, key_of

PHASE_S = 0.25
"""How long after a second's end it is asked for: clocks that are off by less still tell it the first time."""

_READ_AGAIN_S = 0.5  # of a second, for half hours that have to be read again

_GATEWAYS = "the gateways"

logger = logging.getLogger(__name__)


class Gateways(Protocol):
    """Who asks the gateways; see `Collector`."""

    @property
    def history(self) -> History:
        """What they told; another one where all has to be read again."""

    async def collect(self) -> None:
        """Ask each, wait a little, close the seconds that are over."""

    def unheard(self) -> list[str]:
        """Gateways that should answer and do not."""

    async def end(self) -> None:
        """Ask no more."""


class Autoscaler:
    """`clock`: seconds since 1970."""

    def __init__(self, gateways: Gateways, metrics: ScalingMetrics, *, clock: Callable[[], float] = time.time) -> None:
        self._gateways = gateways
        self._metrics = metrics
        self._clock = clock
        self._scalers: dict[str, Scaler] = {}
        self._failing: dict[str, str] = {}  # what cannot be done, and the error that was told of it

    def learn(self, observed: Observed) -> None:
        """Take in a deployment and its pods as they are now."""
        deployment = observed.deployment
        key = key_of(deployment)
        if not _is_scaled(deployment):
            self.forget(key)
            return
        namespace, name = deployment.metadata.namespace, deployment.metadata.name
        if not self._knows(deployment):
            self.forget(key)
            self._scalers[key] = Scaler(observed)
            self._metrics.begin(namespace, name)
        scaler = self._scalers[key]
        for seconds in scaler.learn(observed):
            self._metrics.became_ready(namespace, name, seconds)
        self._metrics.state(namespace, name, ready_replicas=scaler.ready, max_replicas=scaler.most)

    def measure(self, observed: Observed) -> None:
        """Take in what its replicas told that they can do."""
        if self._knows(observed.deployment):
            self._scalers[key_of(observed.deployment)].measure(observed)

    def forget(self, key: str) -> None:
        """The deployment is gone, or is scaled no more."""
        if self._scalers.pop(key, None) is not None:
            self._metrics.forget(*key.split("/", 1))
            self._failing.pop(key, None)

    def decided(self, deployment: AixcoderDeployment) -> AutoscalingStatus | None:
        """What is decided for it; None where nothing is yet."""
        return self._scalers[key_of(deployment)].decided if self._knows(deployment) else None

    def unmeasured(self, observed: Observed) -> tuple[Object, ...]:
        """Ready worker pods of a deployment that is scaled, while nobody has told what a replica of it can do."""
        deployment = observed.deployment
        if not _is_scaled(deployment) or (self._knows(deployment) and self._scalers[key_of(deployment)].is_measured):
            return ()
        return tuple(pod for unit in observed.units().values() for pod in unit.ready)

    async def run(self, changed: Callable[[str], None]) -> None:
        """Work for ever; `changed` is told the key of a deployment for which something else is decided than before."""
        try:
            while True:
                await asyncio.sleep(1 - (self._clock() - PHASE_S) % 1)
                if self._scalers:
                    await self.look(changed)
        finally:
            await self._gateways.end()

    async def look(self, changed: Callable[[str], None]) -> None:
        """Ask once, and decide for all."""
        began = time.monotonic()
        try:
            await self._gateways.collect()
            self._failing.pop(_GATEWAYS, None)
        except Exception as error:  # what is known already is still decided on
            self._tell(_GATEWAYS, error)
        history, unheard = self._gateways.history, len(self._gateways.unheard())
        until = time.monotonic() + _READ_AGAIN_S
        # Those that have to be read again come last, and who had to wait for that longest is the first of them.
        for scaler in sorted(self._scalers.values(), key=lambda one: one.is_stale(history)):
            key = scaler.key
            is_read = scaler.is_stale(history) and time.monotonic() < until
            if is_read:
                await asyncio.sleep(0)  # each takes some hundredths of a second
            if self._scalers.get(key) is not scaler:
                continue  # forgotten meanwhile
            try:
                if is_read:
                    self._scalers[key] = self._scalers.pop(key)
                    scaler.read_again(history)
                self._decide(scaler, unheard, changed)
                self._failing.pop(key, None)
            except Exception as error:  # who cannot be decided for stops no other
                self._tell(key, error)
        self._metrics.looped(time.monotonic() - began)

    def _decide(self, scaler: Scaler, unheard: int, changed: Callable[[str], None]) -> None:
        history, moment = self._gateways.history, self._clock()
        key, before = scaler.key, scaler.decided
        now = Now(
            moment,
            queued=history.waiting(key, moment),
            running=history.running(key, moment),
            arrivals_per_s=history.arrivals_per_s(key),
            all_heard=not unheard,
        )
        scaler.feed(history, now.queued)
        change = scaler.decide(now)
        namespace, name = key.split("/", 1)
        self._metrics.state(namespace, name, gateways_unheard=unheard, **scaler.inputs(now))
        if change and scaler.decision is not None:
            self._metrics.decided(namespace, name, "up" if change > 0 else "down")
            logger.info("%s: %+d to %d: %s", key, change, scaler.decision.standing.desired, scaler.decision.reason)
        if scaler.decided != before:
            changed(key)

    def _knows(self, deployment: AixcoderDeployment) -> bool:
        scaler = self._scalers.get(key_of(deployment))
        return scaler is not None and scaler.uid == deployment.metadata.uid and _is_scaled(deployment)

    def _tell(self, what: str, error: Exception) -> None:
        """Log an error, once while it stays the same."""
        if self._failing.get(what) != repr(error):
            self._failing[what] = repr(error)
            logger.error("%s: nothing can be decided", what, exc_info=error)


def _is_scaled(deployment: AixcoderDeployment) -> bool:
    return deployment.spec.autoscaling is not None and not deployment.spec.suspend
