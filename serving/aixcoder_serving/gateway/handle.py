"""The life of a completion request in the gateway: `handle()`."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass

from aixcoder_serving.gateway import problems, routing
from aixcoder_serving.gateway.account import Account
from aixcoder_serving.gateway.dialects import Ask, Dialect, Identity, Writer, to_request
from aixcoder_serving.gateway.exchange import ClientGone, Exchange
from aixcoder_serving.gateway.keys import KeyRing
from aixcoder_serving.gateway.metrics import Metrics
from aixcoder_serving.gateway.problems import Problem
from aixcoder_serving.gateway.routing import Outstanding, RouteTable
from aixcoder_serving.gateway.upstream import Broken, Lost, NotTaken, Rejected, Silent, Upstream
from aixcoder_serving.protocol import CompletionRequest, Delta, DeploymentView, Finished, Started

logger = logging.getLogger(__name__)

# Proxies in front must pass each piece on at once.
_UNBUFFERED = (("cache-control", "no-store"), ("x-accel-buffering", "no"))


@dataclass(frozen=True, slots=True)
class Gateway:
    """What all requests share. Without `keys` anyone may ask."""

    routes: RouteTable
    upstream: Upstream
    metrics: Metrics
    keys: KeyRing | None
    outstanding: Outstanding


async def handle(gateway: Gateway, dialect: Dialect, exchange: Exchange) -> None:
    """Answer one completion request, whatever becomes of it."""
    account = Account(dialect.name)
    with account.kept(gateway.metrics, exchange):
        try:
            account.key = authorise(gateway.keys, exchange)
            ask = dialect.parse(await exchange.body())
            # From here on a client that leaves cancels whatever is being done for it.
            await exchange.unless_gone(_answer(gateway, dialect, ask, exchange, account))
        except ClientGone:
            account.outcome = "client_gone"
        except Problem as problem:
            account.outcome = problem.code
            await exchange.problem(problem, dialect.error(problem), account.headers)
        except Exception:
            logger.exception("request %s", account.id)
            account.outcome = "internal_error"
            if exchange.begun:
                raise  # the server cuts the connection
            unexpected = problems.internal()
            await exchange.problem(unexpected, dialect.error(unexpected), account.headers)


def authorise(keys: KeyRing | None, exchange: Exchange) -> str | None:
    """The id of the client's key; None where keys are off.

    Raises:
        Problem: the key is missing or unknown.

    """
    if keys is None:
        return None
    key = keys.identify(exchange.headers.get("authorization"))
    if key is None:
        raise problems.unauthorized()
    return key


async def _answer(gateway: Gateway, dialect: Dialect, ask: Ask, exchange: Exchange, account: Account) -> None:
    """Find who answers, send the request there, and write what comes back."""
    view = gateway.routes.view
    if view is None:
        raise problems.not_synced()
    deployment = routing.deployment_for(view, ask.model)
    if deployment is None:
        raise problems.no_replica()
    account.model, account.stream = deployment.served_name, ask.stream
    request = to_request(ask, deployment.spec.completion, account.id)
    writer = dialect.writer(ask, Identity(account.id, deployment.served_name, int(account.began_at)))
    messages = _from_replicas(gateway, deployment, request, exchange, account)
    async with aclosing(messages):
        if ask.stream:
            await _stream(messages, writer, exchange, account)
        else:
            await _collect(messages, writer, exchange, account)


async def _from_replicas(
    gateway: Gateway, deployment: DeploymentView, request: CompletionRequest, exchange: Exchange, account: Account
) -> AsyncGenerator[Started | Delta | Finished]:
    """The replica's messages. While nothing has reached the client, a replica that goes away is replaced by another.

    A Started after a Delta means that the answer begins anew. What no replica has taken is offered to each of them
    once; what was lost on the way is sent again once, to the same replica only where there is no other.

    Raises:
        Problem: no replica completed the request.

    """
    not_taken: set[str] = set()
    lost_at: str | None = None
    failed: NotTaken | Lost | None = None
    while True:
        # The view of now: a replica that went away may be out of it already, the traffic with another unit.
        view = gateway.routes.view or routing.NOTHING
        deployment = routing.current(view, deployment)
        address = routing.choose(view, deployment, gateway.outstanding, {*not_taken, lost_at})
        if address is None and lost_at is not None:
            address = routing.choose(view, deployment, gateway.outstanding, not_taken)
        if address is None:
            raise problems.no_replica()
        if failed is not None:
            gateway.metrics.retries.labels(failed.reason).inc()
            account.retries += 1
            logger.warning("request %s is sent to %s now: %s", request.id, address, failed)
        try:
            with gateway.outstanding.at(address):
                async with aclosing(gateway.upstream.generate(address, request)) as messages:
                    async for message in messages:
                        yield message
        except (NotTaken, Lost) as error:
            if exchange.begun or (lost_at is not None and isinstance(error, Lost)):
                raise problems.replica_lost() from error
            if isinstance(error, Lost):
                lost_at = address
            else:
                not_taken.add(address)
            failed = error
        except Rejected as error:
            raise problems.invalid(error.message, error.param) from error
        except Silent as error:
            raise problems.replica_silent() from error
        except Broken as error:
            logger.error("request %s: %s", request.id, error)
            raise problems.replica_failed() from error
        else:
            return


async def _collect(
    messages: AsyncIterator[Started | Delta | Finished], writer: Writer, exchange: Exchange, account: Account
) -> None:
    """Answer in one piece."""
    texts: list[str] = []
    async for message in messages:
        match message:
            case Started():
                texts.clear()
            case Delta():
                texts.append(message.text)
            case Finished():
                account.first_byte()
                await exchange.whole(200, writer.whole("".join(texts), message), account.headers)
                account.completed(message)


async def _stream(
    messages: AsyncIterator[Started | Delta | Finished], writer: Writer, exchange: Exchange, account: Account
) -> None:
    """Answer piece by piece. The head waits for the first text, so that what fails before it can still be an error."""
    try:
        async for message in messages:
            if isinstance(message, Started) or (isinstance(message, Delta) and not message.text):
                continue
            if not exchange.begun:
                account.first_byte()
                await exchange.start(200, writer.stream_type, [*_UNBUFFERED, *account.headers])
            if isinstance(message, Delta):
                await exchange.write(writer.delta(message.text))
            else:
                await exchange.write(writer.end(message), last=True)
                account.completed(message)
    except Problem as problem:
        if not exchange.begun or exchange.complete:
            raise
        account.outcome = problem.code
        await exchange.write(writer.broken(problem), last=True)
