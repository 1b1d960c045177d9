"""The pages of a gateway: one ASGI application for clients, one for the cluster."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from aixcoder_serving.gateway import metrics, openapi, problems, routing
from aixcoder_serving.gateway.dialects import Dialect, Model
from aixcoder_serving.gateway.dialects.llamacpp import LlamaCpp
from aixcoder_serving.gateway.dialects.openai import OpenAI
from aixcoder_serving.gateway.exchange import Exchange
from aixcoder_serving.gateway.handle import Gateway, authorise, handle
from aixcoder_serving.gateway.problems import Problem

_OPENAI = OpenAI()
_LLAMA_CPP = LlamaCpp()


class Lifecycle:
    """Whether this process is on its way out."""

    draining = False


def public(gateway: Gateway, lifecycle: Lifecycle) -> ASGIApp:
    """What clients and probes reach: /v1/*, /infill, /openapi.json, /health, /healthz, /readyz.

    No middleware of the kind that wraps receive(): it would hide the client's leaving.
    """

    async def healthz(_request: Request) -> Response:
        return PlainTextResponse("ok\n")

    async def health(_request: Request) -> Response:
        if lifecycle.draining or gateway.routes.view is None:
            problem = problems.draining() if lifecycle.draining else problems.not_synced()
            return Response(_LLAMA_CPP.error(problem), problem.status, media_type="application/json")
        return Response(b'{"status":"ok"}', media_type="application/json")

    async def document(_request: Request) -> Response:
        return Response(openapi.page(), media_type="application/json")

    async def readyz(_request: Request) -> Response:
        if lifecycle.draining:
            return PlainTextResponse("draining\n", 503)
        if gateway.routes.view is None:
            return PlainTextResponse("the replicas are not known yet\n", 503)
        return PlainTextResponse("ok\n")

    async def models(exchange: Exchange) -> None:
        key = authorise(gateway.keys, exchange)
        view = gateway.routes.view
        if view is None:
            raise problems.not_synced()
        listed = (
            Model(
                name, int(deployment.metadata.creation_timestamp.timestamp()), deployment.spec.engine.max_model_length
            )
            for name, deployment in routing.claims(view).items()
            if key.may_ask(name)
        )
        await exchange.whole(200, _OPENAI.models(listed))

    def completions(dialect: Dialect) -> _Page:
        return _Page(lambda exchange: handle(gateway, dialect, exchange))

    app = Starlette(
        routes=[
            Route("/v1/completions", completions(_OPENAI), methods=["POST"]),
            Route("/infill", completions(_LLAMA_CPP), methods=["POST"]),
            Route("/v1/models", _Page(models), methods=["GET"]),
            Route("/openapi.json", document),
            Route("/health", health),
            Route("/healthz", healthz),
            Route("/readyz", readyz),
        ],
        exception_handlers={404: _http_error, 405: _http_error},
    )
    return _closing_while_draining(app, lifecycle)


def internal(gateway: Gateway) -> ASGIApp:
    """What the operator and Prometheus reach: /metrics, /routes, /load."""

    async def metrics_page(_request: Request) -> Response:
        gateway.metrics.replicas_heard.set(gateway.airspace.fleet.heard)
        return Response(gateway.metrics.page(), headers={"content-type": metrics.CONTENT_TYPE})

    async def routes_page(_request: Request) -> Response:
        view = gateway.routes.view
        if view is None:
            return PlainTextResponse("the replicas are not known yet\n", 503)
        return Response(routing.routes(view).model_dump_json(), media_type="application/json")

    async def load_page(request: Request) -> Response:
        try:
            since, until = (float(request.query_params.get(name, "inf")) for name in ("since", "until"))
        except ValueError:
            return PlainTextResponse("since and until are seconds since 1970\n", 400)
        page = gateway.ledger.page(since, until)
        return Response(page.model_dump_json(exclude_defaults=True), media_type="application/json")

    return Starlette(routes=[Route("/metrics", metrics_page), Route("/routes", routes_page), Route("/load", load_page)])


class _Page:
    """An ASGI endpoint from a coroutine over an `Exchange`; a Problem becomes its answer.

    A class, because Starlette would take a function for one from Request to Response.
    """

    def __init__(self, answer: Callable[[Exchange], Awaitable[None]]) -> None:
        self._answer = answer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        exchange = Exchange(scope, receive, send)
        try:
            await self._answer(exchange)
        except Problem as problem:
            await exchange.problem(problem, _OPENAI.error(problem))


def _http_error(_request: Request, error: Exception) -> Response:
    wrong_method = isinstance(error, HTTPException) and error.status_code == 405
    problem = problems.wrong_method() if wrong_method else problems.unknown_path()
    headers = error.headers if isinstance(error, HTTPException) else None
    return Response(_OPENAI.error(problem), problem.status, headers, "application/json")


def _closing_while_draining(app: ASGIApp, lifecycle: Lifecycle) -> ASGIApp:
    """While draining each answer ends its connection, so that a client's next one goes to another gateway."""

    async def wrapped(scope: Scope, receive: Receive, send: Send) -> None:
        async def closing(message: Message) -> None:
            if lifecycle.draining and message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], (b"connection", b"close")]
            await send(message)

        await app(scope, receive, closing)

    return wrapped
