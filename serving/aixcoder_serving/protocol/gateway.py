"""What a gateway tells on its internal port."""

from __future__ import annotations

from pydantic import Field

from aixcoder_serving.protocol.message import Message

KEPT_SECONDS = 1800
"""For how long a gateway keeps its bins of `/load`."""


class Route(Message):
    """What one gateway does for one deployment."""

    namespace: str
    name: str
    uid: str
    served_name: str
    traffic_version: int
    endpoints: dict[str, tuple[str, ...]]
    """Unit → ready endpoints as `ip:port`."""


class Routes(Message):
    """Body of a gateway's `GET /routes` on its internal port: what it acts on now."""

    routes: tuple[Route, ...] = ()


class LoadCounters(Message):
    """What a gateway did for one deployment: amounts that only grow, and their share in one second."""

    arrivals: float = Field(default=0.0, ge=0)
    """Completions that were asked for; equal ones that are run once count once."""
    completed: float = Field(default=0.0, ge=0)
    cancelled_waiting: float = Field(default=0.0, ge=0)
    """The client left while its request waited for a replica."""
    cancelled_prefill: float = Field(default=0.0, ge=0)
    """It left after that, but before the first token."""
    cancelled_decode: float = Field(default=0.0, ge=0)
    superseded: float = Field(default=0.0, ge=0)
    """The same editor's next request took the place of one that waited."""
    shed: float = Field(default=0.0, ge=0)
    """Refused because nothing had room in time."""
    failed: float = Field(default=0.0, ge=0)
    slot_ms: float = Field(default=0.0, ge=0)
    """Milliseconds for which requests held a place at a replica."""
    tokens_prefilled: float = Field(default=0.0, ge=0)
    """Of prompts, those that were not cached."""
    tokens_decoded: float = Field(default=0.0, ge=0)
    waited_over_target: float = Field(default=0.0, ge=0)
    """Requests that waited longer than the deployment's target, whatever became of them."""
    wakes: float = Field(default=0.0, ge=0)
    """Requests that came while no replica was there."""


class LoadBin(Message):
    """One second, since 1970."""

    second: int
    counts: LoadCounters


class DeploymentLoad(Message):
    """One deployment's load at one gateway; `waiting` and `running` are of now."""

    namespace: str
    name: str
    waiting: int = Field(ge=0)
    running: int = Field(ge=0)
    counters: LoadCounters
    bins: tuple[LoadBin, ...] = ()


class GatewayLoad(Message):
    """Body of a gateway's `GET /load?since=SECOND`. `uid` and `started` name the process whose counts these are."""

    uid: str
    started: float
    now: float
    deployments: tuple[DeploymentLoad, ...] = ()
