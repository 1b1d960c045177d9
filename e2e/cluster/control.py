"""Commands to a running supervisor: one JSON object there, one back, over a socket in the cluster's folder."""

import asyncio
import json
import os
import socket
from collections.abc import Awaitable, Callable
from contextlib import closing
from typing import Any

from e2e.cluster.errors import ClusterError
from e2e.cluster.layout import Layout

Answer = dict[str, Any]


def ask(layout: Layout, command: str, *, timeout: float = 30, **arguments: object) -> Answer | None:
    """Send a command; None where no supervisor listens. Raises ClusterError where it refuses."""
    try:
        # By a descriptor: a path to a socket has no room for long folder names.
        folder = os.open(layout.folder, os.O_RDONLY | os.O_DIRECTORY)
    except FileNotFoundError:
        return None
    try:
        with closing(socket.socket(socket.AF_UNIX)) as connection:
            connection.settimeout(timeout)
            connection.connect(f"/proc/self/fd/{folder}/{layout.control_socket.name}")
            connection.sendall(json.dumps({"command": command, **arguments}).encode() + b"\n")
            with connection.makefile("rb") as answers:
                line = answers.readline()
    except (FileNotFoundError, ConnectionError):
        return None
    finally:
        os.close(folder)
    if not line:
        return None
    answer: Answer = json.loads(line)
    if "refused" in answer:
        raise ClusterError(answer["refused"])
    return answer


async def serve(layout: Layout, act: Callable[[Answer], Awaitable[Answer]]) -> None:
    """Answer commands for ever; what `act` raises becomes the refusal."""

    async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            answer = await act(json.loads(await reader.readline()))
        except Exception as error:
            answer = {"refused": str(error) or type(error).__name__}
        writer.write(json.dumps(answer).encode() + b"\n")
        writer.close()

    listening = socket.socket(socket.AF_UNIX)
    folder = os.open(layout.folder, os.O_RDONLY | os.O_DIRECTORY)
    listening.bind(f"/proc/self/fd/{folder}/{layout.control_socket.name}")
    os.close(folder)
    server = await asyncio.start_unix_server(converse, sock=listening)
    await server.serve_forever()
