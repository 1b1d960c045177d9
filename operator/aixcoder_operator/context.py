"""What a reconcile acts with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from aixcoder_operator.cluster.client import Client
from aixcoder_operator.cluster.events import EventRecorder
from aixcoder_operator.cluster.probe import Prober
from aixcoder_operator.ray.serve import ServeClient
from aixcoder_operator.scaling.loop import Autoscaler
from aixcoder_operator.served_names import ServedNames
from aixcoder_operator.settings import OperatorSettings


@dataclass(frozen=True, kw_only=True)
class Context:
    """Made once by `main`; of deployments it remembers which names they claim and how they are scaled, no more."""

    settings: OperatorSettings
    client: Client
    serve: Callable[[str, str], ServeClient]
    """Client of the head at a pod IP, with the deployment's Ray token."""
    prober: Prober
    events: EventRecorder
    key: bytes
    """The operator's key, from which Ray tokens are derived."""
    data_key: bytes
    """Shared with the gateways: from it are derived the tokens by which replicas know them."""
    served_names: ServedNames
    autoscaler: Autoscaler
    """Decides the number of replicas where the spec leaves it to the operator."""
    now: Callable[[], datetime]
    """The time, in UTC."""


class Reconcile(Protocol):
    """The algorithm: bring the deployment `namespace/name` nearer to what its spec says.

    Returns the seconds after which to come again, or None where only a change makes another look useful. What it raises
    is tried again with a growing delay.
    """

    async def __call__(self, key: str, *, context: Context) -> float | None:
        """Do one step."""
