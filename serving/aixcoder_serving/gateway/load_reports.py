"""Hears replicas' load reports: one `GET /events` each, NDJSON, for as long as the replica lives."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import Self

import aiohttp
from pydantic import ValidationError

from aixcoder_serving.gateway.replica_tokens import ReplicaTokens
from aixcoder_serving.gateway.upstream import CONNECT_SECONDS, Broken, Lost, NotTaken, check_version
from aixcoder_serving.protocol import LoadReport

SILENT_SECONDS = 2.0
"""Reports come every second at least: a replica that says nothing for longer is dead, or cut off."""

_LINE_LIMIT = 64 * 1024


class LoadReports:
    """The streams of all replicas. An async context manager."""

    def __init__(self, tokens: ReplicaTokens) -> None:
        self._tokens = tokens
        # Time-outs of their own: a stream is endless, and its silence is what is looked for.
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, force_close=True, happy_eyeballs_delay=None),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS, sock_read=SILENT_SECONDS),
            cookie_jar=aiohttp.DummyCookieJar(),
            read_bufsize=_LINE_LIMIT,
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._session.close()

    async def reports(self, address: str, uid: str, take: Callable[[LoadReport], None]) -> None:
        """Hand over the reports of a replica, of the deployment `uid`, until its stream ends.

        Raises:
            UpstreamError: it could not be reached, broke off, fell silent, or speaks another version of the protocol.

        """
        try:
            async with self._session.get(f"http://{address}/events", headers=self._tokens.headers(uid)) as response:
                if response.status != 200:
                    raise NotTaken(f"{address}/events answered {response.status}")
                async for line in response.content:
                    take(_report(address, line))
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
            raise NotTaken(f"{address}: {error!r}") from error
        except TimeoutError as error:
            raise Lost(f"{address} said nothing for {SILENT_SECONDS:g} s") from error
        except (aiohttp.ClientError, OSError, ValueError) as error:  # the last: a line beyond the limit
            raise Lost(f"{address}: {error!r}") from error


def _report(address: str, line: bytes) -> LoadReport:
    try:
        report = LoadReport.model_validate_json(line)
    except ValidationError as error:
        raise Broken(f"{address}/events sent what is no report: {error}") from None
    check_version(address, report)
    return report
