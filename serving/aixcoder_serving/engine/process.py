"""The engine's process: rank 0, with the scheduler, between one socket and the other ranks.

Its life: read `Start`; fork the other ranks while nothing has a thread yet; load; time some steps; then take messages
and step, until the socket closes. An idle one waits for the socket and costs nothing.
"""

from __future__ import annotations

import gc
import logging
import pickle
import signal
import tempfile
import time
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection

import torch

from aixcoder_serving.engine import checkpoint, dtype, loading
from aixcoder_serving.engine.cost import measure
from aixcoder_serving.engine.device import check_device
from aixcoder_serving.engine.engine import EngineCore
from aixcoder_serving.engine.faults import first_line
from aixcoder_serving.engine.interface import EngineClosed, EngineSettings, LoadFailed
from aixcoder_serving.engine.messages import (
    Cancel,
    Close,
    Loaded,
    Loading,
    NotLoaded,
    Output,
    Start,
    Stepped,
    Submit,
    ToEngine,
)
from aixcoder_serving.engine.ops import Collectives
from aixcoder_serving.engine.plan import Plan, StepResult
from aixcoder_serving.engine.ranks import Rank, RankGroup
from aixcoder_serving.engine.watchdog import Heartbeat

logger = logging.getLogger(__name__)

_STATS_SECONDS = 0.1  # between two reports while long prompts give nothing else to tell
_IDLE_SECONDS = 0.25  # between two looks at the ranks while nobody asks for anything


@dataclass(frozen=True, slots=True)
class Load:
    """The first command to every rank. `rendezvous`: an empty folder in which CUDA's ranks find each other."""

    settings: EngineSettings
    rendezvous: str


class RankServer:
    """What each rank does with a command."""

    def __init__(self, collectives: Collectives) -> None:
        self._collectives = collectives
        self._loaded: loading.Loaded | None = None

    def load(self, command: Load, connection: Connection | None = None) -> int:
        """Load this rank's share, tell how far it is; returns the number of blocks. Raises `LoadFailed`."""

        def on_percent(percent: int) -> None:
            self._collectives.beat()
            if connection is not None:
                connection.send(Loading(min(percent, 99)))  # the last one is the first step

        settings = command.settings
        if settings.device == "cuda" and settings.tensor_parallel_size > 1:
            from aixcoder_serving.engine.nccl import NcclCollectives

            self._collectives = NcclCollectives(
                self._collectives.rank, self._collectives.size, command.rendezvous, self._collectives.beat
            )
        self._loaded = loading.load(
            checkpoint.inspect(settings.model_path), settings, self._collectives, on_percent, self._collectives.beat
        )
        return self._loaded.blocks

    def step(self, plan: Plan) -> StepResult:
        """Run a plan. Raises `EngineClosed` where the device is lost."""
        if self._loaded is None:
            raise RuntimeError("a plan came before the model was loaded")
        try:
            return self._loaded.runner.run(plan)
        except torch.AcceleratorError as error:
            raise EngineClosed(f"the device is lost: {first_line(error)}") from error

    def serve(self, payload: bytes) -> None:
        """Do what rank 0 told all ranks."""
        command = pickle.loads(payload)  # noqa: S301  # from rank 0, by memory that only this engine shares
        if isinstance(command, Load):
            self.load(command)
        else:
            self.step(command)


class GroupExecutor:
    """An `Executor` over all ranks."""

    def __init__(self, group: RankGroup, server: RankServer) -> None:
        self._group = group
        self._server = server
        self.patient = True
        """Whether a step may take long: until the engine is warm."""

    def load(self, command: Load, connection: Connection) -> int:
        """Load every rank; returns the number of blocks of each. Raises `LoadFailed` or `EngineClosed`."""
        payload = pickle.dumps(command)
        return self._group.run(payload, lambda: self._server.load(command, connection), patient=True)

    def run(self, plan: Plan) -> StepResult:
        """See `Executor`."""
        payload = pickle.dumps(plan, protocol=pickle.HIGHEST_PROTOCOL) if self._group.size > 1 else b""
        return self._group.run(payload, lambda: self._server.step(plan), patient=self.patient)

    def check(self) -> None:
        """See that all ranks are there. Raises `EngineClosed`."""
        self._group.check()


def _child(rank: Rank) -> None:
    rank.serve(RankServer(rank.collectives).serve)


def main(descriptor: int, heartbeat_descriptor: int) -> None:
    """Serve one client over an inherited socket until it closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the client decides when this ends
    connection, heartbeat = Connection(descriptor), Heartbeat(heartbeat_descriptor)
    start = connection.recv()
    if not isinstance(start, Start):
        raise TypeError(f"the first message is Start, not {type(start).__name__}")
    try:
        engine, executor, group = _load(start, connection, heartbeat)
    except LoadFailed as failure:
        connection.send(NotLoaded(failure.reason, str(failure)))
        return
    except Exception as error:
        logger.exception("loading failed")
        connection.send(NotLoaded("EngineFailed", f"{type(error).__name__}: {first_line(error)}"))
        return
    try:
        _serve(engine, executor, connection)
    finally:
        group.close()


def _load(start: Start, connection: Connection, heartbeat: Heartbeat) -> tuple[EngineCore, GroupExecutor, RankGroup]:
    settings = start.settings
    found = checkpoint.inspect(settings.model_path)
    found.shape.check_tensor_parallel(settings.tensor_parallel_size)
    if settings.max_model_length > found.max_positions:
        raise LoadFailed(
            "ModelInvalid",
            f"a length of {settings.max_model_length} is asked for; the model has {found.max_positions} positions",
        )
    threads = max(1, start.threads // settings.tensor_parallel_size)
    group = RankGroup.fork(
        settings.tensor_parallel_size, _child, threads=threads, heartbeat=heartbeat, close=(connection,)
    )
    try:
        check_device(settings)
        if settings.dtype == "auto":
            settings = replace(settings, dtype=dtype.choose(settings.device, found.dtype))
        executor = GroupExecutor(group, RankServer(group.collectives))
        with tempfile.TemporaryDirectory(prefix="aixcoder-ranks-") as rendezvous:
            blocks = executor.load(Load(settings, rendezvous), connection)
        most = loading.most_tokens(settings)
        cost = measure(
            executor.run,
            budget_ms=settings.step_budget_ms,
            most=most,
            max_length=min(settings.max_model_length, blocks * settings.block_size),
            block_size=settings.block_size,
        )
        executor.patient = False
        gc.freeze()  # what is there now stays: the collector need not look through it in the middle of a step
    except BaseException:
        group.close()
        raise
    logger.info(
        "device %s, dtype %s, tensor parallel size %d, %d threads a rank, %d cached tokens; "
        "a step takes %.2f ms, or %.2f ms and %.4f ms a token, and %.2g ms a position read",
        settings.device,
        settings.dtype,
        settings.tensor_parallel_size,
        threads,
        blocks * settings.block_size,
        cost.floor,
        cost.base,
        cost.per_token,
        cost.per_read,
    )
    engine = EngineCore(
        settings, start.token_bytes, executor, blocks=blocks, cost=cost, most_tokens=most, clock=time.monotonic
    )
    connection.send(Loaded(found.vocabulary_size, blocks * settings.block_size, settings.dtype, engine.stats()))
    return engine, executor, group


def _serve(engine: EngineCore, executor: GroupExecutor, connection: Connection) -> None:
    """Take every message that is there, then step; wait where there is nothing to do."""
    told = 0.0
    while True:
        outputs: list[Output] = []
        try:
            while connection.poll(0.0 if engine.busy or outputs else _IDLE_SECONDS):
                message = connection.recv()
                if isinstance(message, Close):
                    return
                outputs += _take(engine, message)
            if engine.busy:
                outputs += engine.step()
            else:
                executor.check()
        except EOFError:
            return
        except EngineClosed as lost:
            connection.send(Stepped((), engine.stats(), str(lost)))
            return
        now = time.monotonic()
        if outputs or (engine.busy and now - told >= _STATS_SECONDS):
            connection.send(Stepped(tuple(outputs), engine.stats(), engine.failure))
            told = now
        if engine.failure is not None:
            return


def _take(engine: EngineCore, message: ToEngine) -> list[Output]:
    if isinstance(message, Submit):
        return engine.submit(message.request_id, message.prompt, message.sampling, message.draft, message.cache_salt)
    if isinstance(message, Cancel):
        return engine.cancel(message.request_id)
    raise TypeError(f"{type(message).__name__} is no message to a loaded engine")
