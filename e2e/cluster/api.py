"""A small client of the API server: what the cluster program itself asks of it."""

import http.client
import json
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from e2e.cluster.pki import Certificate

Json = dict[str, Any]


class ApiError(Exception):
    """The API server refused; `status` is the HTTP status, the message its own."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(f"{status}: {message}")
        self.status = status


class Api:
    """One server, one identity. A connection per request: simple, and any thread may use it."""

    def __init__(self, server: str, *, authority: Path, user: Certificate) -> None:
        self.server = server
        self._address = urlsplit(server)
        self._context = ssl.create_default_context(cafile=str(authority))
        self._context.load_cert_chain(user.certificate, user.key)

    def get(self, path: str, *, timeout: float = 10) -> Json:
        """GET. Raises ApiError, or OSError while nothing listens."""
        found: Json = json.loads(self._exchange("GET", path, None, None, timeout))
        return found

    def ready(self, path: str = "/readyz") -> bool:
        """Whether the server answers and calls itself ready."""
        try:
            return self._exchange("GET", path, None, None, 2) == b"ok"
        except (ApiError, OSError, http.client.HTTPException):
            return False

    def create(self, path: str, body: Json, *, timeout: float = 10) -> Json:
        """POST of one object to its collection; `path` may carry a query, as `?dryRun=All`."""
        created: Json = json.loads(self._exchange("POST", path, json.dumps(body), "application/json", timeout))
        return created

    def apply(self, path: str, body: Json, *, timeout: float = 10) -> Json:
        """Server-side apply of one object as field manager `aixcoder-local-cluster`."""
        query = "?fieldManager=aixcoder-local-cluster&force=true"
        content_type = "application/apply-patch+yaml"
        applied: Json = json.loads(self._exchange("PATCH", path + query, json.dumps(body), content_type, timeout))
        return applied

    def merge(self, path: str, body: Json, *, timeout: float = 10) -> None:
        """JSON merge patch."""
        self._exchange("PATCH", path, json.dumps(body), "application/merge-patch+json", timeout)

    def delete(self, path: str, *, timeout: float = 10) -> None:
        """DELETE; an object that is not there is no error."""
        try:
            self._exchange("DELETE", path, None, None, timeout)
        except ApiError as error:
            if error.status != 404:
                raise

    def watch(self, path: str, *, seconds: int) -> Iterator[Json]:
        """Events of a watch, the present state first, until the server ends it after `seconds`."""
        separator = "&" if "?" in path else "?"
        connection = self._connect(seconds + 30)
        try:
            connection.request("GET", f"{path}{separator}watch=true&timeoutSeconds={seconds}")
            response = connection.getresponse()
            if response.status >= 400:
                raise ApiError(response.status, response.read().decode(errors="replace"))
            for line in response:
                yield json.loads(line)
        finally:
            connection.close()

    def _connect(self, timeout: float) -> http.client.HTTPSConnection:
        host, port = self._address.hostname, self._address.port
        return http.client.HTTPSConnection(str(host), port, timeout=timeout, context=self._context)

    def _exchange(self, method: str, path: str, body: str | None, content_type: str | None, timeout: float) -> bytes:
        connection = self._connect(timeout)
        try:
            headers = {"Accept": "application/json"} | ({"Content-Type": content_type} if content_type else {})
            connection.request(method, path, body, headers)
            response = connection.getresponse()
            data = response.read()
        finally:
            connection.close()
        if response.status >= 400:
            raise ApiError(response.status, data.decode(errors="replace"))
        return data
