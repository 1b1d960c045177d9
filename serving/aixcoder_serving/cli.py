"""`aixcoder`: run a model behind the gateway on one machine, without Kubernetes and Ray; make API keys."""

from __future__ import annotations

import argparse
import asyncio
import logging
import math
import os
import signal
import sys
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

from aixcoder_serving.engine import checkpoint
from aixcoder_serving.engine.interface import LoadFailed
from aixcoder_serving.gateway import new_key
from aixcoder_serving.gateway.main import GatewaySettings
from aixcoder_serving.gateway.main import run as run_gateway
from aixcoder_serving.gateway.static import StaticRoutes
from aixcoder_serving.protocol import ReplicaSettings
from aixcoder_serving.replica import logs
from aixcoder_serving.replica.listener import Listener
from aixcoder_serving.replica.server import ReplicaApp
from aixcoder_serving.replica.service import ReplicaService

_LOCAL = "127.0.0.1"
_GRACE_SECONDS = 3.0
_NVIDIA_DEVICE = Path("/dev/nvidia0")


class Problem(Exception):
    """Why it can not be served, as a sentence for the person at the terminal."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a subcommand. Exit status 0: ended by a signal or done, 1: a problem, told on standard error, 2: usage."""
    options = _parser().parse_args(arguments)
    if options.command == "version":
        print(f"aixcoder {_version()}")
        return
    if options.command == "keys":
        try:
            new_key.make(options)
        except ValueError as error:
            sys.exit(f"aixcoder: {error}")
        return
    logs.configure(getattr(logging, options.log_level.upper()))
    status = 0
    try:
        settings = _settings(options)
        name = options.served_name or options.model.resolve().name
        asyncio.run(_serve(settings, name, options.host, options.port))
    except Problem as problem:
        print(f"aixcoder: {problem}", file=sys.stderr)
        status = 1
    # Not by way of the interpreter's end: a thread that still reads the model would abort the process there.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def _settings(options: argparse.Namespace) -> ReplicaSettings:
    """Raises `Problem` where there is no model."""
    try:
        found = checkpoint.inspect(str(options.model))
    except LoadFailed as failure:
        raise Problem(str(failure)) from failure
    return ReplicaSettings(
        model_path=str(options.model),
        device=options.device or ("cuda" if _NVIDIA_DEVICE.exists() else "cpu"),
        dtype=options.dtype,
        tensor_parallel_size=options.tensor_parallel_size,
        max_model_length=options.max_model_length or found.max_positions,
        max_concurrent_sequences=options.max_concurrent_sequences,
        threads=options.threads,
        cache_tokens=options.cache_tokens,
        step_budget_ms=options.step_budget_ms,
        prefix_caching=options.prefix_cache,
        drafting=options.drafts,
    )


async def _serve(settings: ReplicaSettings, name: str, host: str, port: int) -> None:
    """Serve until SIGTERM or SIGINT. Raises `Problem`."""
    service = ReplicaService(settings)
    replica = Listener(ReplicaApp(service), _LOCAL, 0)
    await replica.start()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    watches: list[asyncio.Task[None]] = []

    def started(port: int, _internal_port: int | None) -> None:
        url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
        print(f"loading {settings.model_path} on {settings.device}; {url}/readyz tells when it is ready", flush=True)
        service.start()
        watches.append(asyncio.create_task(_announce(service, f"{name} is ready: {url}/v1/completions", stop)))

    try:
        await run_gateway(
            GatewaySettings(host=host, port=port, internal_port=None, drain_seconds=0.0, grace_seconds=_GRACE_SECONDS),
            StaticRoutes.one(
                name,
                f"{_LOCAL}:{replica.port}",
                max_model_length=settings.max_model_length,
                ready=lambda: service.readiness().phase == "ready",
            ),
            stop,
            started=started,
        )
    except OSError as error:
        raise Problem(f"can not listen on {host}:{port}: {error.strerror or error}") from error
    finally:
        for watch in watches:
            watch.cancel()
        await service.close()
        await replica.stop(patience=1)
    if (failure := service.load_failure) is not None:
        raise Problem(f"{failure.reason}: {failure}")
    if (lost := service.engine_failure) is not None:
        raise Problem(f"EngineFailed: {lost}")


async def _announce(service: ReplicaService, ready: str, stop: asyncio.Event) -> None:
    """Say when the model is there; end everything where it can not be loaded, and once its engine is lost."""
    try:
        await service.loaded()
        print(ready, flush=True)
        await service.lost()
    except LoadFailed:
        pass
    stop.set()


def _version() -> str:
    try:
        return metadata.version("aixcoder")
    except metadata.PackageNotFoundError:
        return "from a source tree"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="aixcoder", description="Code completion by aiXcoder-7B on a machine of your own."
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    commands.add_parser("version", help="print the version")
    new_key.add_parser(commands)
    serve = commands.add_parser(
        "serve",
        help="serve one model on this machine",
        description=(
            "Serve one model on this machine: gateway and engine in one process, for trying an editor plug-in. "
            "Clients use http://HOST:PORT/v1. SIGTERM or Ctrl-C ends it."
        ),
    )
    serve.add_argument(
        "--model", type=Path, required=True, metavar="DIR", help="folder with config.json, tokenizer.json and weights"
    )
    serve.add_argument(
        "--port", type=_port, default=8080, help="port for clients, %(default)s where not given; 0: a free one"
    )
    serve.add_argument(
        "--host",
        default=_LOCAL,
        help="address to listen on, %(default)s where not given; nothing asks clients for a key",
    )
    serve.add_argument(
        "--device", choices=["cpu", "cuda"], help="what computes; not given: cuda on a machine with an NVIDIA device"
    )
    serve.add_argument(
        "--dtype",
        choices=["auto", "float32", "bfloat16", "float16"],
        default="auto",
        help="number format; auto, where not given: the checkpoint's own, unless the processor is slow at it",
    )
    serve.add_argument("--served-name", metavar="NAME", help="model name for clients; not given: the folder's name")
    serve.add_argument(
        "--max-model-length",
        type=_at_least(16),
        metavar="TOKENS",
        help="prompt and completion together; not given: all positions of the model",
    )
    serve.add_argument(
        "--max-concurrent-sequences",
        type=_at_least(1),
        default=8,
        metavar="N",
        help="completions that run at once, %(default)s where not given",
    )
    serve.add_argument(
        "--tensor-parallel-size",
        type=int,
        choices=[1, 2, 4, 8],
        default=1,
        help="CUDA devices, on cpu processes, to spread it over, %(default)s where not given",
    )
    serve.add_argument(
        "--threads",
        type=_at_least(1),
        metavar="N",
        help="threads that compute on cpu; not given: the cores less one, which is for HTTP",
    )
    serve.add_argument(
        "--cache-tokens",
        type=_at_least(16),
        metavar="TOKENS",
        help="size of the cache, running and reusable tokens together; not given: what fits",
    )
    serve.add_argument(
        "--step-budget-ms",
        type=_milliseconds,
        default=50.0,
        metavar="MS",
        help="how long one step may take: less makes streams smoother, more long prompts faster; "
        "%(default)g where not given",
    )
    serve.add_argument(
        "--no-prefix-cache",
        dest="prefix_cache",
        action="store_false",
        help="compute every prompt anew; for measuring",
    )
    serve.add_argument(
        "--no-drafts",
        dest="drafts",
        action="store_false",
        help="compute one token a step instead of guessing ahead; the text is the same; for measuring",
    )
    serve.add_argument(
        "--log-level",
        choices=["debug", "info", "warning", "error"],
        default="warning",
        help="least level logged, %(default)s where not given",
    )
    return parser


def _port(text: str) -> int:
    port = int(text)
    if not 0 <= port <= 65535:
        raise argparse.ArgumentTypeError(f"{port} is not in 0..65535")
    return port


def _milliseconds(text: str) -> float:
    number = float(text)
    if not 0 < number < math.inf:
        raise argparse.ArgumentTypeError(f"{text} is not more than 0 milliseconds")
    return number


class _at_least:  # noqa: N801 - reads as the check it is
    """A whole number from `least` on."""

    def __init__(self, least: int) -> None:
        self._least = least

    def __call__(self, text: str) -> int:
        number = int(text)
        if number < self._least:
            raise argparse.ArgumentTypeError(f"{number} is less than {self._least}")
        return number


if __name__ == "__main__":
    main()
