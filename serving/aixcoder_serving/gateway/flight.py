"""One completion on its way: it waits for a place, runs, and goes on elsewhere where its replica dies.

A flight writes a transcript, which any number of clients read at their own pace: identical requests share a flight. It
ends when its last reader has left.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Literal, Protocol

from aixcoder_serving.gateway import problems
from aixcoder_serving.gateway.dialects import Usage
from aixcoder_serving.gateway.dispatch import Dispatcher, Superseded, Wish
from aixcoder_serving.gateway.estimate import TokenEstimate
from aixcoder_serving.gateway.fleet import Fleet
from aixcoder_serving.gateway.ledger import DeploymentLedger
from aixcoder_serving.gateway.metrics import Metrics
from aixcoder_serving.gateway.problems import Problem
from aixcoder_serving.gateway.setbacks import Poison, RetryBudget
from aixcoder_serving.gateway.transcript import Transcript
from aixcoder_serving.gateway.upstream import Broken, Busy, Left, Lost, NotTaken, Rejected, SentAgain, Silent
from aixcoder_serving.protocol import CompletionRequest, Delta, Finished, Started

logger = logging.getLogger(__name__)

_FIRST_DELTA_SECONDS = 10.0
_FIRST_DELTA_SECONDS_A_TOKEN = 0.02
"""For the first token of a prompt: a processor computes some 50 of its tokens a second at worst."""
_NEXT_DELTA_SECONDS = 30.0
_END_SECONDS = 1.0
"""From the last message to the end of the answer."""
HALF_STEP_SECONDS = 0.025
"""Of an engine, by default: what began in its step is told at the end of that."""
_PAUSE_SECONDS = 0.02
"""Before a request is offered again that could not be delivered, and longer each time: its own patience ends it."""

Phase = Literal["waiting", "prefill", "decode"]


class Generator(Protocol):
    """Runs requests at replicas: `upstream.Upstream`."""

    def generate(
        self, address: str, uid: str, request: CompletionRequest
    ) -> AsyncGenerator[Started | Delta | Finished]:
        """See there."""


@dataclass(frozen=True, slots=True)
class Airspace:
    """What all flights share."""

    dispatcher: Dispatcher
    fleet: Fleet
    upstream: Generator
    metrics: Metrics
    budget: RetryBudget
    poison: Poison
    estimate: TokenEstimate


class Flight:
    """One completion. `phase` is where it is; `retries` counts replicas that it was sent to beyond the first."""

    def __init__(self, airspace: Airspace, wish: Wish, ledger: DeploymentLedger, identity: bytes) -> None:
        """`identity`: the digest of what was asked, by whom."""
        self.transcript = Transcript()
        self.phase: Phase = "waiting"
        self.retries = 0
        self._airspace = airspace
        self._wish = wish
        self._ledger = ledger
        self._identity = identity
        self._clock = asyncio.get_running_loop().time
        self._began = self._clock()
        self._placed: float | None = None
        self._prompt_tokens = 0
        self._started = self._began
        self._prefilled = False
        self._begun = False
        self._cached_tokens = 0
        self._lost = False

    @property
    def used(self) -> Usage:
        """Tokens of its prompt, once a replica has taken it, and of its completion so far."""
        return Usage(self._prompt_tokens, len(self.transcript.token_ids), self._cached_tokens)

    @property
    def waited_seconds(self) -> float:
        """How long it waited for its first place, or does since."""
        return (self._placed if self._placed is not None else self._clock()) - self._began

    def joined(self, wish: Wish) -> None:
        """Another client reads it too, and may be more patient than the first."""
        self._wish.last(wish.patience, self._clock())

    async def run(self) -> None:
        """Fly; whatever becomes of it is in the transcript. Cancelling ends it, and the replica's work for it."""
        try:
            await self._fly()
        except Superseded:
            self._ledger.count("superseded")
            self.transcript.fail(problems.superseded())
        except Problem as problem:
            self._ledger.count("shed" if problem.retry_after is not None else "failed")
            self.transcript.fail(problem)
        except asyncio.CancelledError:
            if not self.transcript.over:
                self._ledger.count(f"cancelled_{self.phase}")
                if self.phase == "prefill" and not self._begun:
                    self._wish.waited_until(self._clock() - HALF_STEP_SECONDS, self._ledger)
            raise
        except Exception:
            logger.exception("request %s", self._wish.request.id)
            self._ledger.count("failed")
            self.transcript.fail(problems.internal())

    async def _fly(self) -> None:
        space = self._airspace
        if space.poison.suspected(self._identity, self._clock()):
            raise problems.poison()
        space.budget.sent()
        failures = 0
        while True:
            if failures:
                await asyncio.sleep(_PAUSE_SECONDS * min(failures, 10))
            async with space.dispatcher.place(self._wish) as address:
                self.phase = "prefill"
                self._placed = self._placed or self._clock()
                try:
                    await self._attempt(address, self._request(space.fleet.load(address).version))
                except Busy:
                    load = space.fleet.load(address)
                    load.refused(self._wish.request.id)  # it never left the queue, so to say
                    space.metrics.refusals.inc()
                    failures += load.report is None
                except NotTaken as error:
                    failures += 1
                    self._wish.avoid.add(address)
                    space.fleet.ejections.failed(address, self._clock())
                    self._again(address, error)
                except (Lost, Silent, Left) as error:
                    self._after_loss(address, error)
                except Rejected as error:
                    raise problems.invalid(error.message, error.param) from error
                except Broken as error:
                    logger.error("request %s: %s", self._wish.request.id, error)
                    raise problems.replica_failed() from error
                else:
                    return
                self.phase = "waiting"

    async def _attempt(self, address: str, request: CompletionRequest) -> None:
        """Run the request at one replica.

        Raises:
            UpstreamError: it did not complete.

        """
        space = self._airspace
        patience = asyncio.timeout(self._first_delta_seconds(self._wish.tokens))
        uid = self._wish.deployment.metadata.uid
        with space.fleet.attempt(address, patience) as dead:
            try:
                async with patience, aclosing(space.upstream.generate(address, uid, request)) as messages:
                    async for message in messages:
                        self._take(address, message, patience)
            except TimeoutError as error:
                if self.transcript.over:
                    return
                if dead():
                    raise Lost(f"{address} died") from error
                raise Silent(f"{address} said nothing for too long") from error

    def _take(self, address: str, message: Started | Delta | Finished, patience: asyncio.Timeout) -> None:
        now = self._clock()
        match message:
            case Started():
                wish = self._wish
                wish.body.begun = True
                self._prompt_tokens = self._wish.used = message.prompt_tokens
                self._started, self._prefilled = now, False
                if wish.text_bytes and not message.truncated:
                    self._airspace.estimate.correct(wish.text_bytes, wish.request.language, message.prompt_tokens)
                tokens = message.prompt_tokens + wish.request.sampling.max_tokens
                self._airspace.fleet.load(address).accepted(wish.request.id, message.report, tokens)
                _extend(patience, now, self._first_delta_seconds(message.prompt_tokens))
            case Delta():
                if message.begun is not None:
                    self._begun, self._cached_tokens = True, message.begun.cached_tokens
                    self._wish.waited_until(self._started + message.begun.waited_ms / 1000, self._ledger)
                if message.token_ids:
                    self.phase = "decode"
                    self._count_prefill()
                    self._ledger.count("tokens_decoded", len(message.token_ids))
                    self._wish.used += len(message.token_ids)
                if message.token_ids or message.prompt_logprobs:  # else its prompt is still being computed
                    _extend(patience, now, _NEXT_DELTA_SECONDS)
            case Finished():
                _extend(patience, now, _END_SECONDS)
                if message.completion_tokens:  # its first token may have been its end
                    self._cached_tokens = message.cached_tokens
                    self._count_prefill()
                self._ledger.count("completed")
        self.transcript.add(message)

    def _count_prefill(self) -> None:
        """With its first token, once at each replica."""
        if not self._prefilled:
            self._prefilled = True
            self._ledger.count("tokens_prefilled", max(self._prompt_tokens - self._cached_tokens, 0))

    def _request(self, version: int) -> CompletionRequest:
        """The request, or what is left of it where another replica has begun it, in a version of the protocol."""
        change: dict[str, object] = {"version": version}
        if done := tuple(self.transcript.token_ids):
            change |= {"generated_token_ids": done, "told_characters": self.transcript.characters}
        return self._wish.request.model_copy(update=change)

    def _after_loss(self, address: str, error: Lost | Silent | Left) -> None:
        """A replica is gone from it: go on elsewhere, once, where no client can tell.

        Raises:
            Problem: they could, or it happened before.

        """
        space = self._airspace
        if isinstance(error, Lost) and not space.fleet.load(address).leaving:  # else its grace was over: no death
            space.poison.death(self._identity, self._clock())
        if self._lost or not space.budget.spend():
            raise _lost(error) from error
        self._lost = True
        if not _continuable(self._wish.request):
            if self.transcript.seen:
                raise _lost(error) from error
            self.transcript.restart()
        self._wish.avoid.add(address)
        self._wish.since = self._clock()  # its client's patience begins anew: it has waited for nothing yet
        self._again(address, error)

    def _again(self, address: str, error: SentAgain) -> None:
        self.retries += 1
        self._airspace.metrics.retries.labels(error.reason).inc()
        logger.warning("request %s is sent to another replica than %s: %s", self._wish.request.id, address, error)

    def _first_delta_seconds(self, tokens: int) -> float:
        return _FIRST_DELTA_SECONDS + tokens * _FIRST_DELTA_SECONDS_A_TOKEN


def _lost(error: Lost | Silent | Left) -> Problem:
    return problems.replica_silent() if isinstance(error, Silent) else problems.replica_lost()


def _extend(patience: asyncio.Timeout, now: float, seconds: float) -> None:
    """Wait for so long from now on; not where it is over, as by the notice that the replica has died."""
    when = patience.when()
    if not patience.expired() and when is not None and when > now:
        patience.reschedule(now + seconds)


def _continuable(request: CompletionRequest) -> bool:
    """Whether another replica chooses the same tokens from here on, by nothing but the tokens before.

    Greedy, or with a seed: the engine's noise is a function of seed, position and id.
    """
    sampling = request.sampling
    repeatable = sampling.temperature == 0.0 or sampling.seed is not None
    plain = (sampling.presence_penalty, sampling.frequency_penalty, sampling.repetition_penalty) == (0.0, 0.0, 1.0)
    return repeatable and plain and sampling.logprobs is None and sampling.prompt_logprobs is None
