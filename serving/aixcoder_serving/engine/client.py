"""The engine as its user sees it: an `Engine` whose work is done by a process of its own.

Three threads: one reads what the engine's process tells, one writes to it, so that neither a full socket nor a long
step ever holds up the caller's event loop; one watches that it moves, for it may stop in the middle of a message.
"""

from __future__ import annotations

import itertools
import logging
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Sequence
from dataclasses import replace
from multiprocessing.connection import Connection
from queue import SimpleQueue

from aixcoder_serving.engine.handle import RequestHandle
from aixcoder_serving.engine.interface import (
    Delta,
    EngineClosed,
    EngineSettings,
    EngineStats,
    Finish,
    LoadFailed,
    Sampling,
)
from aixcoder_serving.engine.messages import (
    Cancel,
    Close,
    FromEngine,
    Loaded,
    Loading,
    NotLoaded,
    Start,
    Stepped,
    Submit,
    ToEngine,
)
from aixcoder_serving.engine.threads import engine_threads
from aixcoder_serving.engine.validation import validate
from aixcoder_serving.engine.watchdog import Heartbeat

logger = logging.getLogger(__name__)

FROZEN_SECONDS = 1.7
"""A process that has not moved for this long is lost: a step is bounded by tens of milliseconds."""

_LOOK_SECONDS = 0.2
_CLOSE_SECONDS = 5.0


class EngineClient:
    """An `Engine`, see there. Used from any event loop; needs neither torch nor a GPU in this process."""

    def __init__(self, settings: EngineSettings, token_bytes: Sequence[bytes]) -> None:
        self._settings = settings
        self._token_bytes = tuple(token_bytes)
        self._process: subprocess.Popen[bytes] | None = None
        self._connection: Connection | None = None
        self._heartbeat = Heartbeat()
        self._loaded: Loaded | None = None
        self._stats = EngineStats()
        self._failure: str | None = None
        self._closed = False
        self._ids = itertools.count()
        self._outbox: SimpleQueue[ToEngine | None] = SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._over = threading.Event()  # the reader has ended
        self._lock = threading.Lock()  # guards what follows, and that nothing is started or queued after the end
        self._handles: dict[int, RequestHandle] = {}

    @property
    def pid(self) -> int | None:
        """The engine's process, once started."""
        return self._process.pid if self._process is not None else None

    def load(self) -> None:
        """See `Engine.load`."""
        threads = engine_threads(self._settings.threads)
        connection = self._start(threads)
        try:
            connection.send(Start(self._settings, self._token_bytes, threads))
            loaded = self._await_load(connection)
        except (EOFError, OSError) as error:
            code = self._end_process()
            raise LoadFailed("EngineFailed", f"the engine's process ended while it was loading ({code})") from error
        except BaseException:
            self._end_process()
            raise
        self._loaded = loaded
        self._stats = loaded.stats
        for name, work in (
            ("engine-reader", self._read),
            ("engine-writer", self._write),
            ("engine-watch", self._watch),
        ):
            thread = threading.Thread(target=work, args=(connection,), name=name, daemon=True)
            self._threads.append(thread)
            thread.start()

    def submit(
        self, prompt: Sequence[int], sampling: Sampling, *, draft: Sequence[int] = (), cache_salt: str = ""
    ) -> RequestHandle:
        """See `Engine.submit`."""
        loaded = self._loaded
        if loaded is None:
            raise EngineClosed("the engine is closed" if self._closed else "the model is not loaded yet")
        ids, draft_ids = validate(
            prompt,
            sampling,
            vocabulary_size=loaded.vocabulary_size,
            max_length=self._settings.max_model_length,
            draft=draft,
            cache_tokens=loaded.cache_tokens,
        )
        request_id = next(self._ids)
        handle = RequestHandle(lambda: self._outbox.put(Cancel(request_id)))
        with self._lock:
            if self._closed or self._failure is not None:
                raise EngineClosed(self._failure or "the engine is closed")
            self._handles[request_id] = handle
        self._outbox.put(Submit(request_id, ids, sampling, draft_ids, cache_salt))
        return handle

    def stats(self) -> EngineStats:
        """See `Engine.stats`."""
        return self._stats

    @property
    def failure(self) -> str | None:
        """See `Engine.failure`."""
        return self._failure

    def close(self) -> None:
        """See `Engine.close`."""
        with self._lock:
            self._closed = True
        self._outbox.put(Close())
        self._outbox.put(None)
        self._end_process(_CLOSE_SECONDS if self._loaded else 0.0)  # one that loads reads no messages
        for thread in self._threads:
            thread.join()
        with self._lock:
            handles, self._handles = list(self._handles.values()), {}
        for handle in handles:
            handle.end(Finish("cancelled", 0))
        if self._connection is not None:
            self._connection.close()
        self._heartbeat.close()

    def _start(self, threads: int) -> Connection:
        mine, theirs = socket.socketpair()
        environment = {
            **os.environ,
            "OMP_NUM_THREADS": str(threads),
            "OPENBLAS_NUM_THREADS": "1",  # a pool of numpy's would be there before the ranks are forked
        }
        arguments = theirs.fileno(), self._heartbeat.fd, logger.getEffectiveLevel()
        with theirs, self._lock:
            if self._closed:
                mine.close()
                raise LoadFailed("EngineFailed", "the engine was closed before it was loaded")
            self._process = subprocess.Popen(
                [sys.executable, "-m", "aixcoder_serving.engine", *map(str, arguments)],
                pass_fds=(theirs.fileno(), self._heartbeat.fd),
                stdin=subprocess.DEVNULL,
                env=environment,
                start_new_session=True,  # Ctrl-C in a terminal is for the client to act on
            )
        self._connection = Connection(mine.detach())
        return self._connection

    def _await_load(self, connection: Connection) -> Loaded:
        while True:
            message: FromEngine = connection.recv()
            match message:
                case Loading():
                    self._stats = replace(self._stats, load_percent=message.percent)
                case NotLoaded():
                    raise LoadFailed(message.reason, message.message)
                case Loaded():
                    return message

    def _write(self, connection: Connection) -> None:
        while (message := self._outbox.get()) is not None:
            try:
                connection.send(message)
            except OSError:
                return  # the reader sees why

    def _read(self, connection: Connection) -> None:
        """Hand out what comes, until the engine is lost or closed."""
        try:
            while self._failure is None:  # what comes after a loss is its consequence
                self._take(connection.recv())
        except (EOFError, OSError):
            if not self._closed:
                self._lose(f"the engine's process ended ({self._end_process()})")
        except Exception as error:  # whatever it is, nobody would read any more
            logger.exception("reading what the engine tells")
            self._lose(f"the engine told what can not be read ({type(error).__name__})")
        finally:
            self._over.set()

    def _watch(self, _connection: Connection) -> None:
        """See that the engine's process moves, until it is lost or closed."""
        while not self._over.wait(_LOOK_SECONDS):
            if (age := self._heartbeat.age()) > FROZEN_SECONDS:
                self._lose(f"the engine's process has not moved for {age:.1f} s")
                return

    def _take(self, message: Stepped) -> None:
        self._stats = message.stats
        if message.failure is not None:
            self._lose(message.failure, _CLOSE_SECONDS)  # it ends by itself, and its other ranks with it
        for output in message.outputs:
            with self._lock:
                ended = output.finish is not None or output.error is not None
                handle = self._handles.pop(output.request_id, None) if ended else self._handles.get(output.request_id)
            if handle is None:
                continue
            if output.token_ids or output.prompt_logprobs or output.waited_ms is not None:
                handle.emit(
                    Delta(
                        output.token_ids,
                        output.held_bytes,
                        output.logprobs,
                        output.prompt_logprobs,
                        output.cached_tokens,
                        output.waited_ms,
                    )
                )
            if output.error is not None:
                handle.fail(output.error)
            elif output.finish is not None:
                handle.end(output.finish)

    def _lose(self, failure: str, patience: float = 0.0) -> None:
        """No request can succeed any more; the first call counts. The process has `patience` seconds to end itself."""
        with self._lock:
            if self._failure is not None:
                return
            self._failure = failure
        logger.error("the engine is lost: %s", failure)
        self._fail_all(failure)
        self._end_process(patience)

    def _fail_all(self, message: str) -> None:
        with self._lock:
            handles, self._handles = list(self._handles.values()), {}
        for handle in handles:
            handle.fail(message)

    def _end_process(self, patience: float = 0.0) -> str:
        """End it if it has not ended by itself; how it ended, in words."""
        process = self._process
        if process is None:
            return "never started"
        try:
            code = process.wait(patience)
        except subprocess.TimeoutExpired:
            process.kill()
            code = process.wait()
        return f"signal {-code}" if code < 0 else f"status {code}"
