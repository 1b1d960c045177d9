"""The life of a completion request in the gateway: `handle()`."""

from __future__ import annotations

import logging
from contextlib import AsyncExitStack
from dataclasses import dataclass

from aixcoder_serving.gateway import answer, problems, routing
from aixcoder_serving.gateway.account import Account
from aixcoder_serving.gateway.dialects import Ask, Dialect, Identity, Writer, to_requests
from aixcoder_serving.gateway.dispatch import Body, Wish
from aixcoder_serving.gateway.editor import affinity, editor
from aixcoder_serving.gateway.exchange import ClientGone, Exchange
from aixcoder_serving.gateway.flight import Airspace, Flight
from aixcoder_serving.gateway.flights import Flights
from aixcoder_serving.gateway.keys import ANYBODY, Key, KeyRing
from aixcoder_serving.gateway.ledger import Ledger
from aixcoder_serving.gateway.limits import Limits
from aixcoder_serving.gateway.metrics import Metrics
from aixcoder_serving.gateway.patience import patience
from aixcoder_serving.gateway.problems import Problem
from aixcoder_serving.gateway.routing import RouteTable
from aixcoder_serving.protocol import DEFAULT_MODEL_LENGTH, CompletionRequest, DeploymentView

logger = logging.getLogger(__name__)

SESSION_HEADER = "x-editor-session"
MOST_TO_WRITE = 16 * 2**20
"""Characters of all completions' prompts together, each written out once for its replica."""


@dataclass(frozen=True, slots=True)
class Gateway:
    """What all requests share. Without `keys` anyone may ask."""

    routes: RouteTable
    keys: KeyRing | None
    limits: Limits
    flights: Flights
    airspace: Airspace
    ledger: Ledger
    metrics: Metrics


async def handle(gateway: Gateway, dialect: Dialect, exchange: Exchange) -> None:
    """Answer one completion request, whatever becomes of it."""
    account = Account(dialect.name, exchange.headers)
    with account.kept(gateway.metrics, exchange):
        try:
            key = authorise(gateway.keys, exchange)
            account.key = key.id or None
            with gateway.limits.counted(key):
                body = await exchange.body()
                ask = dialect.parse(body)
                # From here on a client that leaves cancels whatever is being done for it.
                await exchange.unless_gone(_answer(gateway, dialect, key, ask, len(body), exchange, account))
        except ClientGone:
            account.client_gone()
        except Problem as problem:
            account.ended(problem)
            await exchange.problem(problem, dialect.error(problem), account.headers)
        except Exception:
            logger.exception("request %s", account.id)
            unexpected = problems.internal()
            account.ended(unexpected)
            if exchange.begun:
                raise  # the server cuts the connection
            await exchange.problem(unexpected, dialect.error(unexpected), account.headers)


def authorise(keys: KeyRing | None, exchange: Exchange) -> Key:
    """The client's key; where keys are off, that of anybody.

    Raises:
        Problem: the key is missing or unknown.

    """
    if keys is None:
        return ANYBODY
    key = keys.identify(exchange.headers.get("authorization"))
    if key is None:
        raise problems.unauthorized()
    return key


async def _answer(
    gateway: Gateway, dialect: Dialect, key: Key, ask: Ask, size: int, exchange: Exchange, account: Account
) -> None:
    """Find who answers, start a flight for each completion, and write what they bring."""
    deployment = _deployment(gateway, key, ask.model)
    account.model, account.stream = deployment.served_name, ask.stream
    writer = dialect.writer(ask, Identity(account.id, deployment.served_name, int(account.began_at)))
    if ask.max_tokens == 0 and not ask.echo:
        await answer.empty(ask, writer, exchange, account)
        account.outcome = "completed"
        return
    longest = deployment.spec.engine.max_model_length or DEFAULT_MODEL_LENGTH
    _bounded(ask, longest)
    who = editor(key.id or None, key.shared, exchange.headers.get(SESSION_HEADER), ask.user)
    ledger = gateway.ledger.of(deployment.metadata.namespace, deployment.metadata.name)
    body, wishes = Body(), []
    requests = to_requests(ask, deployment.spec.completion, account.id, cache_salt(key))
    for number, request in enumerate(requests):
        if number % ask.samples == 0:  # those of one prompt are alike
            text_bytes, home = _text_bytes(request), affinity(who, request)
        wishes.append(
            Wish(
                deployment=deployment,
                request=request,
                key=key.id,
                weight=key.weight,
                editor=who,
                affinity=home,
                tokens=_tokens(gateway, request, text_bytes, longest),
                size=size // len(requests),
                text_bytes=text_bytes,
                patience=patience(exchange.headers, dialect.patience_seconds),
                body=body,
            )
        )
    with gateway.limits.charged(key, sum(wish.tokens for wish in wishes), account.tokens_used):
        async with AsyncExitStack() as flights:
            for wish in wishes:
                account.flights.append(await flights.enter_async_context(gateway.flights.aboard(wish, ledger)))
            await _write(account.flights, ask, writer, exchange, account)


async def _write(flights: list[Flight], ask: Ask, writer: Writer, exchange: Exchange, account: Account) -> None:
    try:
        if ask.stream:
            await answer.stream(flights, ask, writer, exchange, account)
        else:
            await answer.whole(flights, ask, writer, exchange, account)
    except Problem as problem:
        if problem.code != "superseded" or exchange.begun:
            raise
        account.ended(problem)
        await answer.empty(ask, writer, exchange, account)


def _deployment(gateway: Gateway, key: Key, model: str | None) -> DeploymentView:
    view = gateway.routes.view
    if view is None:
        raise problems.not_synced()
    deployment = routing.deployment_for(view, model)
    if deployment is None:
        raise problems.no_replica()
    if not key.may_ask(deployment.served_name):
        raise problems.model_not_allowed()
    return deployment


def cache_salt(key: Key) -> str:
    """Who shares what is computed of common beginnings: one team, else one key. Times would tell of others' code."""
    if key is ANYBODY:
        return ""
    return f"team {key.team}" if key.team is not None else f"key {key.id}"


def _bounded(ask: Ask, longest: int) -> None:
    """Refuse what no replica could run, and what would hold the gateway up for others while it is written out.

    Raises:
        Problem: a prompt of token ids is longer than the model takes, or all prompts together are too much.

    """
    if any(isinstance(prompt, tuple) and len(prompt) > longest for prompt in ask.prompts):
        raise problems.invalid(f"`prompt` has more token ids than the model takes, which is {longest}.", "prompt")
    shared = len(ask.suffix or "") + sum(len(file.text) for file in ask.context)
    once = sum(shared + (len(prompt) if isinstance(prompt, str) else 8 * len(prompt)) for prompt in ask.prompts)
    if once * ask.samples > MOST_TO_WRITE:
        param = "n" if ask.samples > 1 else "prompt"
        raise problems.invalid("These are too many completions of so much text; ask for fewer, or send less.", param)


def _text_bytes(request: CompletionRequest) -> int:
    texts = [request.prefix or "", request.suffix or "", *(file.text for file in request.context)]
    return sum(len(text.encode(errors="surrogatepass")) for text in texts)


def _tokens(gateway: Gateway, request: CompletionRequest, text_bytes: int, longest: int) -> int:
    """What a request can come to: no more than the model takes, whatever a client says."""
    ids = request.prompt_token_ids
    prompt = gateway.airspace.estimate.tokens(text_bytes, request.language) if ids is None else len(ids)
    return min(prompt + request.sampling.max_tokens, longest)
