"""`aixcoder-gateway`: flags, wiring, signals, and an end that loses no request."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import signal
import sys
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import uvloop

from aixcoder_serving.gateway import app, arguments, kubeapi, logs
from aixcoder_serving.gateway.dispatch import Dispatcher
from aixcoder_serving.gateway.estimate import TokenEstimate
from aixcoder_serving.gateway.fleet import Fleet
from aixcoder_serving.gateway.flight import Airspace
from aixcoder_serving.gateway.flights import Flights
from aixcoder_serving.gateway.handle import Gateway
from aixcoder_serving.gateway.keys import KeyRing
from aixcoder_serving.gateway.ledger import Ledger
from aixcoder_serving.gateway.limits import Limits
from aixcoder_serving.gateway.load_reports import LoadReports
from aixcoder_serving.gateway.metrics import Metrics
from aixcoder_serving.gateway.replica_tokens import ReplicaTokens
from aixcoder_serving.gateway.routing import RouteTable
from aixcoder_serving.gateway.server import Server, listen
from aixcoder_serving.gateway.setbacks import Poison, RetryBudget
from aixcoder_serving.gateway.upstream import Upstream
from aixcoder_serving.gateway.watch import KubernetesRoutes

logger = logging.getLogger(__name__)

_KEYS_SECONDS = 2.0
_VIEW_SECONDS = 0.05


@dataclass(frozen=True, slots=True)
class GatewaySettings:
    """How to run a gateway. Port 0 is any free one; `internal_port` None: no internal pages.

    `data_key`: the file with the key that is shared with the operator; None: replicas want no token.
    At the end it is unready and still answers for `drain_seconds`, then takes nothing new and gives what is in flight
    `grace_seconds` more.
    """

    host: str = "0.0.0.0"
    port: int = 8080
    internal_port: int | None = 9090
    api_keys: Path | None = None
    data_key: Path | None = None
    drain_seconds: float = 8.0
    grace_seconds: float = 60.0


async def run(
    settings: GatewaySettings,
    routes: RouteTable,
    stop: asyncio.Event,
    *,
    started: Callable[[int, int | None], None] | None = None,
) -> None:
    """Serve until `stop` is set and what was in flight has ended; call `started` with both ports once they listen.

    Raises:
        OSError: a port is taken, or the API keys or the data key cannot be read.

    """
    keys = KeyRing(settings.api_keys) if settings.api_keys is not None else None
    tokens = ReplicaTokens.read(settings.data_key)
    lifecycle = app.Lifecycle()
    with contextlib.ExitStack() as sockets:
        public = sockets.enter_context(listen(settings.host, settings.port))
        internal = None
        if settings.internal_port is not None:
            internal = sockets.enter_context(listen(settings.host, settings.internal_port))
        async with Upstream(tokens) as upstream, LoadReports(tokens) as reports, asyncio.TaskGroup() as group:
            gateway, fleet = _gateway(routes, keys, upstream, reports)
            dispatcher = gateway.airspace.dispatcher
            background = [
                group.create_task(routes.run()),
                group.create_task(dispatcher.run()),
                group.create_task(_follow(routes, gateway.ledger, fleet)),
            ]
            if keys is not None:
                background.append(group.create_task(_refresh(keys)))
            inside = Server(app.internal(gateway), grace_seconds=1.0)
            if internal is not None:
                group.create_task(inside.serve([internal]))
            outside = Server(app.public(gateway, lifecycle), grace_seconds=settings.grace_seconds)
            group.create_task(outside.serve([public]))
            await outside.listening.wait()
            if internal is not None:
                await inside.listening.wait()
            if started is not None:
                started(public.getsockname()[1], internal.getsockname()[1] if internal is not None else None)

            await stop.wait()
            lifecycle.draining = True
            logger.info("draining")
            await asyncio.sleep(settings.drain_seconds)
            await outside.end()
            await inside.end()
            for task in background:
                task.cancel()
            await fleet.close()
    logger.info("ended")


def _gateway(
    routes: RouteTable, keys: KeyRing | None, upstream: Upstream, reports: LoadReports
) -> tuple[Gateway, Fleet]:
    """All parts of a gateway, put together."""
    metrics, ledger = Metrics(), Ledger(uuid.uuid4().hex, _steady_clock())
    fleet = Fleet(reports, lambda: dispatcher.pump())
    dispatcher = Dispatcher(routes, fleet, ledger)
    airspace = Airspace(dispatcher, fleet, upstream, metrics, RetryBudget(), Poison(), TokenEstimate())
    limits = Limits(time.monotonic)
    return Gateway(routes, keys, limits, Flights(airspace), airspace, ledger, metrics), fleet


def _steady_clock() -> Callable[[], float]:
    """Seconds since 1970 that nobody sets back: a second that was told is over."""
    started = time.time() - time.monotonic()
    return lambda: started + time.monotonic()


async def _follow(routes: RouteTable, ledger: Ledger, fleet: Fleet) -> None:
    """Hear all replicas that the view has."""
    while True:
        view = routes.view
        if view is not None:
            fleet.keep(view.replicas)
            ledger.keep({(d.metadata.namespace, d.metadata.name) for d in view.deployments})
        await asyncio.sleep(_VIEW_SECONDS)


async def _refresh(keys: KeyRing) -> None:
    while True:
        await asyncio.sleep(_KEYS_SECONDS)
        keys.refresh()


def main(given: Sequence[str] | None = None) -> None:
    """Run a gateway in a Kubernetes cluster until SIGTERM or SIGINT."""
    options = _parser().parse_args(given)
    logs.configure(options.log_level)
    settings = GatewaySettings(
        host=options.host,
        port=options.port,
        internal_port=options.internal_port,
        api_keys=options.api_keys,
        data_key=options.data_key,
        drain_seconds=options.drain_seconds,
        grace_seconds=options.grace_seconds,
    )
    try:
        routes = KubernetesRoutes(kubeapi.find(), options.namespaces)
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_until_signalled(settings, routes))
    except (kubeapi.NoAccess, OSError) as error:
        sys.exit(f"aixcoder-gateway: {error}")


async def _until_signalled(settings: GatewaySettings, routes: RouteTable) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await run(settings, routes, stop, started=_say_started)


def _say_started(port: int, internal_port: int | None) -> None:
    logger.info("serving", extra={"fields": {"port": port, "internal_port": internal_port}})


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="aixcoder-gateway",
        description="The URL behind which all AixcoderDeployments of a cluster complete code.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    defaults = GatewaySettings()
    parser.add_argument(
        "--namespaces", type=arguments.names, default=(), metavar="A,B", help="namespaces to serve; empty: all of them"
    )
    parser.add_argument("--host", default=defaults.host, help="address to listen on")
    parser.add_argument("--port", type=int, default=defaults.port, help="port for clients: /v1/*, /healthz, /readyz")
    parser.add_argument(
        "--internal-port", type=int, default=defaults.internal_port, help="port for the cluster: /metrics, /routes"
    )
    parser.add_argument(
        "--api-keys",
        type=_path,
        default=None,
        metavar="DIR|none",
        help='directory of a mounted Secret with a file for each key: <id> holds {"sha256": "<hex>"}; none: no keys',
    )
    parser.add_argument(
        "--data-key",
        type=_path,
        default=None,
        metavar="FILE|none",
        help="the key that is shared with the operator, of which replicas' tokens are made; none: they want no token",
    )
    parser.add_argument(
        "--drain-seconds",
        type=float,
        default=defaults.drain_seconds,
        help="how long to answer on after SIGTERM, unready",
    )
    parser.add_argument(
        "--grace-seconds",
        type=float,
        default=defaults.grace_seconds,
        help="how long in-flight requests may take after that",
    )
    parser.add_argument(
        "--log-level", default="info", choices=["debug", "info", "warning", "error"], help="least level logged"
    )
    return parser


def _path(value: str) -> Path | None:
    return None if value == "none" else Path(value)


if __name__ == "__main__":
    main()
