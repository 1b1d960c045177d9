"""What a replica does, without HTTP: load, build prompts, run completions, drain."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, replace

from aixcoder_serving.engine import checkpoint
from aixcoder_serving.engine.client import EngineClient
from aixcoder_serving.engine.interface import (
    Engine,
    EngineClosed,
    EngineSettings,
    EngineStats,
    LoadFailed,
    RequestRefused,
)
from aixcoder_serving.engine.stops import ended
from aixcoder_serving.fim.prompt import NoRoom, Prompt, build
from aixcoder_serving.fim.vocabulary import Vocabulary, VocabularyError
from aixcoder_serving.protocol import (
    CompletionRequest,
    FailureReason,
    LoadReport,
    Phase,
    Readiness,
    ReplicaSettings,
    ReplicaStats,
)
from aixcoder_serving.replica.admission import Admission
from aixcoder_serving.replica.completion import Completion, engine_sampling
from aixcoder_serving.replica.stall import STALLED_SECONDS, Stall

logger = logging.getLogger(__name__)

_LOOK_SECONDS = 0.5
_CHARACTERS_PER_TOKEN = 3


class Refusal(Exception):
    """A request that was not started: HTTP status, a sentence, the field it is about."""

    def __init__(self, status: int, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.param = param


class ReplicaService:
    """One model behind one listener. Used from one event loop."""

    def __init__(self, settings: ReplicaSettings) -> None:
        self.settings = settings
        self.in_flight = 0
        """Requests being answered."""
        self.idle = asyncio.Event()
        """Set while none is."""
        self.idle.set()
        self.refusing = False
        """Set at the end of a drain, and for good: new requests are refused, and nothing is loaded any more."""
        self._phase: Phase = "starting"
        self._failure: LoadFailed | None = None
        self._failed_at = 0.0
        self.closed = False
        self.changed = asyncio.Event()
        """Set when the load changes."""
        self._reports = 0
        self._stall = Stall()
        self._admission = Admission(settings.max_concurrent_sequences)
        self._vocabulary: Vocabulary | None = None
        self._engine: Engine | None = None
        self._loading: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to load, in the background."""
        self._loading = asyncio.create_task(self._load())

    async def loaded(self) -> None:
        """Wait until loading has ended. Raises `LoadFailed`."""
        if self._loading is not None:
            await self._loading
        if self._failure is not None:
            raise self._failure

    @property
    def load_failure(self) -> LoadFailed | None:
        """Why the model could not be loaded, or None."""
        return self._failure

    @property
    def engine_failure(self) -> str | None:
        """Why the engine, once loaded, can complete nothing any more, or None."""
        return self._engine.failure if self._engine is not None else None

    async def lost(self) -> str:
        """Wait until the engine, once loaded, can complete nothing any more; returns why."""
        while (failure := self.engine_failure) is None:  # noqa: ASYNC110  # an engine has no event for it
            await asyncio.sleep(_LOOK_SECONDS)
        return failure

    def readiness(self) -> Readiness:
        """What `/ready` tells."""
        if (lost := self.stopped) is not None:
            return Readiness(phase="failed", percent=100, message=lost, reason="EngineFailed")
        message, reason = "", None
        percent = 100 if self._phase in ("ready", "draining") else self.engine_stats().load_percent
        if self._failure is not None:
            message, reason = str(self._failure), self._failure.reason
        elif self._phase == "loading":
            message = f"loading {self.settings.model_path}: {percent} %"
        return Readiness(phase=self._phase, percent=percent, message=message, reason=reason)

    @property
    def stopped(self) -> str | None:
        """Why nothing goes on here, or None: the engine is lost, or stands still with work to do."""
        stats = self.engine_stats()
        if self._stall.seen(time.monotonic(), stats.steps, busy=stats.running + stats.waiting > 0):
            return f"the engine has made no step for {STALLED_SECONDS:g} s, with work to do"
        return self.engine_failure

    def report(self) -> LoadReport:
        """The next load report."""
        stats = self.engine_stats()
        self._reports += 1
        return LoadReport(
            number=self._reports,
            slots=self._admission.slots,
            running=stats.running,
            waiting=max(len(self._admission) - stats.running, 0),
            room=self._room(stats),
            tokens=self._admission.tokens,
            blocks_free=stats.blocks_total - stats.blocks_used,
            draining=self.draining or self.refusing,
            steps=stats.steps,
        )

    def _room(self, stats: EngineStats) -> int:
        if self._phase != "ready" or self.refusing or self.stopped is not None:
            return 0
        return self._admission.room(stats)

    def stats(self) -> ReplicaStats:
        """What `/stats` tells."""
        return ReplicaStats.model_validate(asdict(self.engine_stats()))

    def engine_stats(self) -> EngineStats:
        """What the engine tells; all zero where there is none yet."""
        return self._engine.stats() if self._engine is not None else EngineStats()

    def unhealthy(self, failure_shown_seconds: float) -> str | None:
        """Why this process should be replaced, or None: its engine is lost, or loading failed that long ago."""
        if self._failure is not None and time.monotonic() - self._failed_at >= failure_shown_seconds:
            return f"{self._failure.reason}: {self._failure}"
        return self.engine_failure

    async def submit(self, request: CompletionRequest) -> Completion:
        """Build the prompt and queue it. Raises `Refusal`."""
        vocabulary, engine = self._vocabulary, self._engine
        if self.refusing:
            raise Refusal(503, "the replica is going away: send the request to another one")
        if engine is None or vocabulary is None or self._phase not in ("ready", "draining"):
            raise Refusal(503, f"the replica is not ready: {self._phase}")
        if engine.failure is not None:
            raise Refusal(503, engine.failure)
        if self._admission.room(engine.stats()) <= 0:
            raise Refusal(429, "the replica has no room: ask another one, or later")
        # Counted before its prompt is built: others come meanwhile.
        accepted = self._admission.accept(_estimate(request), request.sampling.max_tokens)

        def left(cached_tokens: int | None) -> None:
            self._admission.ended(accepted, cached_tokens)
            self.changed.set()

        try:
            completion = await self._start(vocabulary, engine, request, left)
        except BaseException:
            left(None)
            raise
        self._admission.submitted(accepted, completion.prompt_tokens)
        self.changed.set()
        return completion

    async def _start(
        self,
        vocabulary: Vocabulary,
        engine: Engine,
        request: CompletionRequest,
        left: Callable[[int | None], None],
    ) -> Completion:
        length, max_tokens = self.settings.max_model_length, request.sampling.max_tokens
        begun = request.generated_token_ids
        sampling = engine_sampling(request.sampling, vocabulary, len(begun))
        # The replica that began it may have died between the last token and the word that it is the last.
        whole = engine_sampling(request.sampling, vocabulary) if begun else sampling
        over = ended(whole, vocabulary.token_bytes, begun)
        try:
            prompt = await asyncio.to_thread(_prompt, vocabulary, request, length - max_tokens)
            generation = engine.submit(
                (*prompt.ids, *begun),
                sampling if over is None else replace(sampling, max_tokens=0, min_tokens=0),
                draft=request.draft_token_ids,
                cache_salt=request.cache_salt,
            )
        except NoRoom as refusal:
            raise Refusal(400, f"max_tokens {max_tokens} of {length}: {refusal}", "max_tokens") from refusal
        except RequestRefused as refusal:
            raise Refusal(400, str(refusal), refusal.parameter) from refusal
        except EngineClosed as refusal:
            raise Refusal(503, str(refusal)) from refusal
        return Completion(
            vocabulary,
            prompt,
            generation,
            report=self._reports + 1,
            generated=begun,
            over=over,
            told_characters=request.told_characters,
            moved=self.changed.set,
            ended=left,
            engine_lost=lambda: engine.failure is not None,
        )

    def enter(self) -> None:
        """Count a request in."""
        self.in_flight += 1
        self.idle.clear()

    def leave(self) -> None:
        """Count it out."""
        self.in_flight -= 1
        if self.in_flight == 0:
            self.idle.set()

    def begin_drain(self) -> bool:
        """`/ready` turns 503. Returns whether requests could have been sent here."""
        was_ready = self._phase == "ready" and self.engine_failure is None
        if self._phase != "failed":
            self._phase = "draining"
        self.changed.set()
        return was_ready

    @property
    def draining(self) -> bool:
        """Whether this replica is on its way out."""
        return self._phase == "draining"

    async def close(self) -> None:
        """Cancel what still runs and free the model."""
        self.refusing = self.closed = True
        self.changed.set()
        if self._engine is not None:
            await asyncio.to_thread(self._engine.close)

    async def _load(self) -> None:
        started = time.monotonic()
        self._phase = "loading"
        try:
            await _in_daemon_thread(self._load_in_thread)
        except LoadFailed as failure:
            self._fail(failure)
        except VocabularyError as error:
            self._fail(LoadFailed("ModelInvalid", str(error)))
        except MemoryError:
            self._fail(LoadFailed("OutOfMemory", "the model does not fit into memory"))
        except Exception as error:
            logger.exception("loading failed")
            self._fail(LoadFailed("EngineFailed", f"{type(error).__name__}: {error}"))
        else:
            if self.refusing:
                return
            if self._phase == "loading":
                self._phase = "ready"
            logger.info("ready after %.1f s: %s", time.monotonic() - started, self.settings.model_path)

    def _load_in_thread(self) -> None:
        settings = self.settings
        # Cheap looks first: a missing model is told before seconds of imports.
        found = checkpoint.inspect(settings.model_path)
        vocabulary = Vocabulary.load(settings.model_path)
        if vocabulary.size > found.vocabulary_size:
            raise LoadFailed(
                "ModelInvalid",
                f"{settings.model_path}: the tokenizer has {vocabulary.size} ids, the model {found.vocabulary_size}: "
                "they do not belong together",
            )
        engine = EngineClient(
            EngineSettings(
                model_path=settings.model_path,
                device=settings.device,
                dtype=settings.dtype,
                tensor_parallel_size=settings.tensor_parallel_size,
                max_model_length=settings.max_model_length,
                max_concurrent_sequences=settings.max_concurrent_sequences,
                threads=settings.threads,
                cache_tokens=settings.cache_tokens,
                step_budget_ms=settings.step_budget_ms,
                prefix_caching=settings.prefix_caching,
                drafting=settings.drafting,
            ),
            vocabulary.token_bytes,
        )
        self._engine, self._vocabulary = engine, vocabulary
        if not self.refusing:  # looked at after `close` could see the engine: one of the two ends it
            engine.load()

    def _fail(self, failure: LoadFailed) -> None:
        if self.refusing:
            return  # it was closed while it was loading
        reason: FailureReason = failure.reason
        logger.error("loading failed: %s: %s", reason, failure)
        self._failure, self._failed_at, self._phase = failure, time.monotonic(), "failed"


async def _in_daemon_thread(work: Callable[[], None]) -> None:
    """Run `work` in a thread that does not keep the process alive: loading can take minutes and can not be stopped."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[None] = loop.create_future()

    def tell(error: BaseException | None) -> None:
        if done.cancelled():
            return
        if error is None:
            done.set_result(None)
        else:
            done.set_exception(error)

    def run() -> None:
        error: BaseException | None = None
        try:
            work()
        except BaseException as caught:
            error = caught
        if not loop.is_closed():
            loop.call_soon_threadsafe(tell, error)

    threading.Thread(target=run, name="load", daemon=True).start()
    await done


def _estimate(request: CompletionRequest) -> int:
    """Tokens of its prompt, about."""
    if request.prompt_token_ids is not None:
        return len(request.prompt_token_ids)
    texts = (request.prefix or "", request.suffix or "", *(file.text for file in request.context))
    return sum(map(len, texts)) // _CHARACTERS_PER_TOKEN


def _prompt(vocabulary: Vocabulary, request: CompletionRequest, room: int) -> Prompt:
    if request.prompt_token_ids is not None:
        return Prompt(request.prompt_token_ids)
    return build(
        vocabulary,
        prefix=request.prefix or "",
        suffix=request.suffix,
        path=request.path,
        language=request.language,
        context=[(file.path, file.text) for file in request.context],
        order=request.order,
        room=room,
        post_process=request.post_process,
    )
