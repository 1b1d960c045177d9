"""A client's connection, with bounds on all that it may take: time, headers, bodies, and what it does not read.

uvicorn bounds none of this with httptools. It also lets a pipelined request take the place of the one that runs, whose
client could then leave unseen: here pipelining is refused.
"""

from __future__ import annotations

import asyncio
import fcntl
import random
import sys
import termios
from typing import Any

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

SILENT_SECONDS = 10.0
"""Until the first byte of a new connection."""
HEADERS_SECONDS = 5.0
BODY_SECONDS = 10.0
"""From the last header to the end of the body."""
STALL_SECONDS, STALL_BYTES = 10.0, 16 * 2**10
"""For so long a client may read less than that of an answer that waits for it."""
AGE_SECONDS = 300.0
"""After which, give or take a fifth, a connection ends with its next answer: else editors stay at the oldest pod."""
HEADER_BYTES = 16 * 1024
HEADERS = 100
BODIES_BYTES = 256 * 2**20
"""Of all requests that are being answered."""


class _TooMuch(Exception):
    """The request is beyond a bound: the answer's status and sentence."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


class BoundedProtocol(HttpToolsProtocol):
    """uvicorn's protocol with those bounds."""

    bodies_bytes = 0
    """Of all connections of the process."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=False)
        self._timer: asyncio.TimerHandle | None = None
        self._stall: asyncio.TimerHandle | None = None
        self._too_much: _TooMuch | None = None
        self._in_headers = True  # `cycle` is that of the request before, if there was one
        self._header_bytes = 0  # received, and may not end
        self._parsed_bytes = 0
        self._body_bytes = 0
        self._receiving = False
        self._old_at = self.loop.time() + AGE_SECONDS * random.uniform(0.8, 1.2)  # noqa: S311 - keeps no secret

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """See `asyncio.Protocol`."""
        super().connection_made(transport)
        self._wait(SILENT_SECONDS)

    def connection_lost(self, exc: Exception | None) -> None:
        """See `asyncio.Protocol`."""
        self._wait(None)
        self.resume_writing()
        self._forget_body()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`."""
        if self.transport.is_closing():
            return
        if self.cycle is not None and not self._receiving and not self.cycle.response_complete:
            self.cycle.keep_alive = False  # what is pipelined is dropped, and told so by `connection: close`
            return
        if not self._receiving:
            self._begin()
        if self._in_headers:
            self._header_bytes += len(data)
        super().data_received(data)
        if self._in_headers and self._header_bytes > HEADER_BYTES and not self.transport.is_closing():
            self._refuse(_TooMuch(431, "The headers are too large."))

    def send_400_response(self, msg: str) -> None:
        """Called where the parser or one of the callbacks below refused what came."""
        self._refuse(self._too_much or _TooMuch(400, msg))

    def on_message_begin(self) -> None:
        """See `httptools.HttpRequestParser`."""
        if self.cycle is not None and not self.cycle.response_complete:
            self._raise(_TooMuch(400, "Requests must not be pipelined."))
        if not self._receiving:
            self._begin()  # in one piece with the end of a request that was answered before it
        self._parsed_bytes = 0
        super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        """See `httptools.HttpRequestParser`."""
        self._parsed_bytes += len(url)
        if self._parsed_bytes > HEADER_BYTES:
            self._raise(_TooMuch(431, "The path is too long."))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """See `httptools.HttpRequestParser`."""
        self._parsed_bytes += len(name) + len(value)
        if self._parsed_bytes > HEADER_BYTES:
            self._raise(_TooMuch(431, "The headers are too large."))
        if len(self.headers) >= HEADERS:
            self._raise(_TooMuch(431, "There are too many headers."))
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """See `httptools.HttpRequestParser`."""
        self._wait(BODY_SECONDS)
        super().on_headers_complete()
        self._in_headers = False
        if self.loop.time() > self._old_at or self.parser.should_upgrade():  # behind an upgrade no request is read
            self.cycle.keep_alive = False

    def on_body(self, body: bytes) -> None:
        """See `httptools.HttpRequestParser`."""
        if self.cycle.response_complete:
            return  # refused before it was read: what still comes is dropped, for as long as a body may take
        if BoundedProtocol.bodies_bytes + len(body) > BODIES_BYTES:
            self._raise(_TooMuch(503, "Too many requests are being read; try again later."))
        BoundedProtocol.bodies_bytes += len(body)
        self._body_bytes += len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        """See `httptools.HttpRequestParser`."""
        self._receiving = False
        self._wait(None)
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """Called once an answer has gone out."""
        self._forget_body()
        super().on_response_complete()

    def pause_writing(self) -> None:
        """See `asyncio.Protocol`."""
        super().pause_writing()
        self._watch_for_stall()

    def resume_writing(self) -> None:
        """See `asyncio.Protocol`."""
        super().resume_writing()
        if self._stall is not None:
            self._stall.cancel()
            self._stall = None

    def _watch_for_stall(self) -> None:
        """Abort where the client reads next to nothing for so long; to one that reads slowly all is sent.

        While writing is paused nothing is added to what is still to go out.
        """
        left = self._unread()

        def look() -> None:
            if self._unread() <= left - STALL_BYTES:
                self._watch_for_stall()
            else:
                self.transport.abort()

        self._stall = self.loop.call_later(STALL_SECONDS, look)

    def _unread(self) -> int:
        """Bytes that the client's machine has not got: ours, and the kernel's, which takes more in large pieces."""
        descriptor = self.transport.get_extra_info("socket").fileno()
        kernels = fcntl.ioctl(descriptor, termios.TIOCOUTQ, bytes(4)) if descriptor >= 0 else bytes(4)
        return self.transport.get_write_buffer_size() + int.from_bytes(kernels, sys.byteorder)

    def _begin(self) -> None:
        self._receiving, self._in_headers, self._header_bytes = True, True, 0
        self._wait(HEADERS_SECONDS)

    def _wait(self, seconds: float | None) -> None:
        """The client has so long for its next step; None: it is our turn."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None if seconds is None else self.loop.call_later(seconds, self._late)

    def _late(self) -> None:
        if self._receiving:
            self._refuse(_TooMuch(408, "The request took too long to arrive."))
        else:
            self.transport.close()

    def _raise(self, bound: _TooMuch) -> None:
        """Out of a callback of the parser, which hides what was raised."""
        self._too_much = bound
        raise bound

    def _refuse(self, bound: _TooMuch) -> None:
        if self._in_headers or not self.cycle.response_started:
            content = bound.message.encode("ascii")
            head = f"content-type: text/plain\r\ncontent-length: {len(content)}\r\nconnection: close\r\n"
            # SDKs would retry by themselves and multiply the load.
            head += "retry-after: 1\r\nx-should-retry: false\r\n\r\n" if bound.status in (408, 503) else "\r\n"
            self.transport.write(STATUS_LINE[bound.status] + head.encode("ascii") + content)
        self.transport.close()

    def _forget_body(self) -> None:
        BoundedProtocol.bodies_bytes -= self._body_bytes
        self._body_bytes = 0
