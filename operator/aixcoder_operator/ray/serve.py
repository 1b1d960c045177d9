"""Client of one Ray head's Serve REST interface."""

from __future__ import annotations

import asyncio
import json
from typing import Any
from urllib.parse import quote

import aiohttp
from pydantic import ValidationError

from aixcoder_operator.api.serve import ServeConfig, ServeDetails
from aixcoder_operator.cluster.client import Guard

DASHBOARD_PORT = 8265
READ_SECONDS = 5.0
# The first PUT on a new head starts Serve's controller before it answers.
WRITE_SECONDS = 30.0


class ServeError(Exception):
    """A request to a Ray head failed; the message says which and why."""


class Unreachable(ServeError):
    """No answer in time, no connection, or Serve's controller is not up (5xx): come again."""


class Unauthorized(ServeError):
    """The head does not accept our token: it was started with another one."""


class Rejected(ServeError):
    """Serve refuses what was asked (`status` 4xx); asking again will not help."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


class ServeClient:
    """One head. `guard` stands before each write, as before a write to the API server."""

    def __init__(
        self, session: aiohttp.ClientSession, host: str, token: str, *, guard: Guard, port: int = DASHBOARD_PORT
    ) -> None:
        self._session = session
        self._base = f"http://{f'[{host}]' if ':' in host else host}:{port}"
        self._headers = {"Authorization": f"Bearer {token}"}
        self._guard = guard

    async def details(self) -> ServeDetails:
        """What runs; empty where Serve was never started on this head."""
        body = await self._request("GET", "/api/serve/applications/", None, READ_SECONDS)
        try:
            return ServeDetails.model_validate(body)
        except ValidationError as error:
            raise Unreachable(f"{self._base}: an answer that is not Ray Serve's: {error}") from error

    async def put(self, config: ServeConfig) -> None:
        """Make `config` all that runs; returns when it is accepted, not when it is up.

        A change of a deployment's options sets its replica count back to `num_replicas`.
        """
        seconds = min(WRITE_SECONDS, self._guard())
        await self._request("PUT", "/api/serve/applications/", config.document(), seconds)

    async def scale(self, application: str, deployment: str, replicas: int) -> None:
        """Set a deployment's replica count, 0 or more; returns when it is accepted."""
        path = f"/api/v1/applications/{quote(application, safe='')}/deployments/{quote(deployment, safe='')}/scale"
        seconds = min(WRITE_SECONDS, self._guard())
        await self._request("POST", path, {"target_num_replicas": replicas}, seconds)

    async def _request(self, method: str, path: str, body: dict[str, Any] | None, seconds: float) -> Any:
        what = f"{method} {self._base}{path}"
        try:
            async with (
                asyncio.timeout(seconds),
                self._session.request(
                    method, self._base + path, json=body, headers=self._headers, allow_redirects=False
                ) as response,
            ):
                text = await response.text()
                status = response.status
        except TimeoutError as error:
            raise Unreachable(f"{what}: no answer within {seconds:.0f} s") from error
        except (aiohttp.ClientError, OSError, UnicodeDecodeError) as error:
            raise Unreachable(f"{what}: {error or type(error).__name__}") from error
        if status in (401, 403):
            raise Unauthorized(f"{what}: the head does not accept the operator's token ({status})")
        if status >= 500:
            raise Unreachable(f"{what}: {_reason(text)} ({status})")
        if status >= 400:
            raise Rejected(f"{what}: {_reason(text)} ({status})", status)
        try:
            return json.loads(text) if text else None
        except ValueError as error:
            raise Unreachable(f"{what}: an answer that is not JSON") from error


def _reason(text: str) -> str:
    """The `error` of a JSON answer; else the last line with anything on it: of a traceback, the exception itself."""
    try:
        return str(json.loads(text)["error"])[:500]
    except (ValueError, KeyError, TypeError):
        pass
    lines = [line.strip() for line in text.splitlines() if line.strip() and "errors.pydantic.dev" not in line]
    return lines[-1][:500] if lines else "no message"
