"""Lines of a stream of JSON objects."""

from __future__ import annotations

from collections.abc import AsyncGenerator

import aiohttp


async def lines(stream: aiohttp.StreamReader, limit: int) -> AsyncGenerator[bytes]:
    """The lines that end in a newline, without it; what follows the last one was cut.

    Raises:
        ValueError: a line has more than `limit` bytes.

    """
    rest = b""
    async for piece in stream.iter_any():
        *whole, rest = (rest + piece).split(b"\n")
        if len(rest) > limit:
            raise ValueError(f"a line of more than {limit} bytes")
        for line in whole:
            yield line
