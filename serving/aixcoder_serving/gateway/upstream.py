"""The way to the replicas: `POST /generate` over HTTP/1.1, answered by NDJSON messages, each validated as it comes."""

from __future__ import annotations

import io
import logging
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from types import SimpleNamespace, TracebackType
from typing import Self

import aiohttp
from pydantic import ValidationError

from aixcoder_serving.gateway import ndjson
from aixcoder_serving.gateway.replica_tokens import ReplicaTokens
from aixcoder_serving.protocol import (
    SPOKEN,
    STREAM_MESSAGE,
    CompletionRequest,
    Delta,
    Failed,
    Finished,
    Refused,
    Started,
    Versioned,
)

logger = logging.getLogger(__name__)

CONNECT_SECONDS = 0.25
"""Within one cluster a connection takes a millisecond; a pod whose node is gone never answers at all."""
_POOL_SECONDS = 30.0
"""An idle connection is dropped well before the replica drops it (75 s), so that the two seldom race."""
_LINE_LIMIT = 4 * 2**20


class UpstreamError(Exception):
    """A replica did not complete a request."""


class SentAgain(UpstreamError):
    """It is sent to another replica, where it may be. `reason` is a word for metrics."""

    reason: str


class NotTaken(SentAgain):
    """There was no connection to the replica, or it speaks another version of the protocol: it has begun nothing."""

    reason = "not_taken"


class Busy(UpstreamError):
    """The replica refused the request for want of room, or because it is leaving."""


class Lost(SentAgain):
    """The replica went away after the request had been sent."""

    reason = "lost"


class Silent(SentAgain):
    """The replica said nothing for too long."""

    reason = "silent"


class Left(SentAgain):
    """The replica left as it was told to, and its grace was too short for the request."""

    reason = "left"


class Broken(UpstreamError):
    """The replica answered with an error of its own, or with what is not the protocol."""


class Rejected(UpstreamError):
    """The replica found the request at fault: `message` says why, `param` where."""

    def __init__(self, message: str, param: str | None) -> None:
        super().__init__(message)
        self.message = message
        self.param = param


def check_version(address: str, message: Versioned) -> None:
    """See that a replica's message is in a version that a gateway speaks. Raises `Broken`."""
    if message.version not in SPOKEN:
        spoken = " and ".join(map(str, SPOKEN))
        raise Broken(f"{address} speaks version {message.version} of the protocol, this gateway {spoken}")


class Upstream:
    """The connections to all replicas. An async context manager."""

    def __init__(self, tokens: ReplicaTokens) -> None:
        self._tokens = tokens
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS)
        reused = aiohttp.TraceConfig()
        reused.on_connection_reuseconn.append(_note_reuse)
        self._pooled = _session(timeout, force_close=False, traces=[reused])
        self._fresh = _session(timeout, force_close=True, traces=[])

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._pooled.close()
        await self._fresh.close()

    async def generate(
        self, address: str, uid: str, request: CompletionRequest
    ) -> AsyncGenerator[Started | Delta | Finished]:
        """Run `request` on the replica at `address`, of the deployment `uid`; the last message is Finished.

        Closing the iterator, or cancelling who waits for it, closes the connection: the replica stops at once.

        Raises:
            UpstreamError: one of the above.

        """
        body = request.model_dump_json(exclude_none=True).encode()
        response = await self._post(f"http://{address}/generate", body, self._tokens.headers(uid))
        finished = False
        try:
            if response.status != 200:
                raise await _refusal(response)
            async with aclosing(_messages(response)) as messages:
                async for message in messages:
                    if isinstance(message, Failed):
                        raise _failure(message)
                    if isinstance(message, Started):
                        check_version(address, message)
                    finished = isinstance(message, Finished)
                    yield message
                    if finished:
                        break
            await response.content.readany()  # the end of the answer, so that its connection can be kept
        except (aiohttp.ClientError, OSError) as error:  # its time-outs are among them
            if not finished:
                raise Lost(f"{address}: {error!r}") from error
        finally:
            # Back to the pool where all of it was read; else it is cut, which is how a replica learns of a cancel.
            response.close() if not response.content.at_eof() else response.release()
        if not finished:
            raise Lost(f"{address} ended its answer before it was complete")

    async def _post(self, url: str, body: bytes, headers: Mapping[str, str]) -> aiohttp.ClientResponse:
        used = SimpleNamespace(reused=False)
        try:
            return await _send(self._pooled, url, body, headers, used)
        except Lost:
            # A pooled connection that the replica had closed meanwhile says nothing about the replica.
            if not used.reused:
                raise
        try:
            return await _send(self._fresh, url, body, headers, used)
        except NotTaken as error:
            raise Lost(f"{url} was sent a request and is there no more: {error}") from error


def _session(
    timeout: aiohttp.ClientTimeout, *, force_close: bool, traces: list[aiohttp.TraceConfig]
) -> aiohttp.ClientSession:
    # limit=0: admission is decided before this point. Addresses are numeric, so there is nothing to race.
    connector = (
        aiohttp.TCPConnector(limit=0, force_close=True, happy_eyeballs_delay=None)
        if force_close
        else aiohttp.TCPConnector(limit=0, keepalive_timeout=_POOL_SECONDS, happy_eyeballs_delay=None)
    )
    return aiohttp.ClientSession(
        connector=connector,
        timeout=timeout,
        trace_configs=traces,
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,
        headers={"Content-Type": "application/json"},
    )


async def _note_reuse(
    _session: aiohttp.ClientSession, context: SimpleNamespace, _params: aiohttp.TraceConnectionReuseconnParams
) -> None:
    context.trace_request_ctx.reused = True


async def _send(
    session: aiohttp.ClientSession, url: str, body: bytes, headers: Mapping[str, str], used: SimpleNamespace
) -> aiohttp.ClientResponse:
    try:
        return await session.post(url, data=io.BytesIO(body), headers=headers, trace_request_ctx=used)
    except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
        raise NotTaken(f"{url}: {error}") from error
    except (aiohttp.ClientError, OSError) as error:
        raise Lost(f"{url}: {error!r}") from error


async def _refusal(response: aiohttp.ClientResponse) -> UpstreamError:
    """What an answer other than 200 means."""
    if response.status in (429, 503):
        return Busy(f"{response.url} answered {response.status}")
    if response.status >= 500 or response.status < 400 or response.status == 401:  # the last: our token, no client's
        return Broken(f"{response.url} answered {response.status}")
    try:
        refused = Refused.model_validate_json(await response.read())
    except ValidationError:
        return Broken(f"{response.url} answered {response.status} without a reason")
    if refused.param == "version":  # a field of ours, no client's
        return NotTaken(f"{response.url}: {refused.message}")
    return Rejected(refused.message, refused.param)


def _failure(failed: Failed) -> UpstreamError:
    """What a failure after the start means."""
    if failed.leaving:
        return Left("the replica left before the request was complete")
    if failed.status in (429, 503):
        # Not as one that was never taken, which every replica is asked: it may be what ended this one.
        return Lost(f"the replica failed with {failed.status}")
    if failed.status < 500:
        return Rejected(failed.message, None)
    return Broken(f"the replica failed with {failed.status}")


async def _messages(response: aiohttp.ClientResponse) -> AsyncGenerator[Started | Delta | Finished | Failed]:
    try:
        async with aclosing(ndjson.lines(response.content, _LINE_LIMIT)) as lines:
            async for line in lines:
                yield STREAM_MESSAGE.validate_json(line)
    except ValidationError:
        # Its text would hold generated code.
        raise Broken(f"{response.url} sent what is no message of the protocol") from None
    except ValueError as error:
        raise Broken(f"{response.url} sent {error}") from error
