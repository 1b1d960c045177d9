"""How to reach the API server: from inside a pod, or by a kubeconfig.

Written on aiohttp, which the gateway has anyway: a list and a watch are two GETs, and importing the kubernetes package
would cost each gateway 32 MB of memory and 0.7 s of its start.
"""

from __future__ import annotations

import base64
import os
import ssl
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import yaml

SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")

WATCH_SECONDS = 60
"""How long a watch is asked to last. Where nothing ever happened no bookmark comes: only the end is sure."""
_CONNECT_SECONDS = 5.0
# A connection that is silent for longer than a watch lasts is dead, whatever the kernel thinks.
_SILENCE_SECONDS = WATCH_SECONDS + 15.0


class NoAccess(Exception):
    """There is no usable description of an API server; the message says what was looked for."""


@dataclass(frozen=True, slots=True)
class Access:
    """Where the API server is and who we are. `token()` is asked at each request: tokens are rotated in place."""

    server: str
    tls: ssl.SSLContext | None
    token: Callable[[], str | None]

    def session(self) -> aiohttp.ClientSession:
        """A client for the API server, without a total time-out: watches are long."""
        return aiohttp.ClientSession(
            base_url=self.server.rstrip("/") + "/",
            connector=aiohttp.TCPConnector(ssl=self.tls if self.tls is not None else True),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_SECONDS, sock_read=_SILENCE_SECONDS),
            headers={"User-Agent": "aixcoder-gateway", "Accept": "application/json"},
        )

    def authorization(self) -> dict[str, str]:
        """The header that says who we are; empty with a client certificate."""
        token = self.token()
        return {"Authorization": f"Bearer {token}"} if token else {}


def find(environment: Mapping[str, str] = os.environ) -> Access:
    """The cluster that KUBECONFIG names, else the one this pod runs in, else ~/.kube/config.

    Raises:
        NoAccess: there is none of them, or it cannot be used.

    """
    if path := environment.get("KUBECONFIG"):
        return from_kubeconfig(Path(path))
    if "KUBERNETES_SERVICE_HOST" in environment:
        return in_cluster(environment)
    default = Path.home() / ".kube" / "config"
    if default.exists():
        return from_kubeconfig(default)
    raise NoAccess("no API server: this is no pod, KUBECONFIG is not set and there is no ~/.kube/config")


def in_cluster(environment: Mapping[str, str], files: Path = SERVICE_ACCOUNT) -> Access:
    """The cluster of this pod, as its service account."""
    host = environment["KUBERNETES_SERVICE_HOST"]
    port = environment.get("KUBERNETES_SERVICE_PORT", "443")
    token, authority = files / "token", files / "ca.crt"
    if not token.exists() or not authority.exists():
        raise NoAccess(f"{files} has no token and ca.crt: is automountServiceAccountToken off?")
    tls = ssl.create_default_context(cafile=str(authority))
    return Access(f"https://{f'[{host}]' if ':' in host else host}:{port}", tls, _token_file(token))


def from_kubeconfig(path: Path) -> Access:
    """The current context of a kubeconfig: tokens, token files and client certificates, no exec plug-ins."""
    try:
        config = yaml.safe_load(path.read_text(encoding="utf-8"))
        context = _named(config, "contexts", config["current-context"])["context"]
        cluster = _named(config, "clusters", context["cluster"])["cluster"]
        user = _named(config, "users", context["user"])["user"]
        server: str = cluster["server"]
    except (OSError, yaml.YAMLError, KeyError, TypeError) as error:
        raise NoAccess(f"{path} is no kubeconfig with a current context: {error!r}") from error
    if "exec" in user or "auth-provider" in user:
        raise NoAccess(f"{path}: exec plug-ins are not supported; use a token or a client certificate")
    token = _token_file(path.parent / user["tokenFile"]) if "tokenFile" in user else _constant(user.get("token"))
    return Access(server, _tls(path, cluster, user) if server.startswith("https:") else None, token)


def _named(config: Any, kind: str, name: str) -> Any:
    for entry in config[kind]:
        if entry["name"] == name:
            return entry
    raise KeyError(f"{kind}: {name}")


def _token_file(path: Path) -> Callable[[], str | None]:
    return lambda: path.read_text(encoding="utf-8").strip()


def _constant(token: str | None) -> Callable[[], str | None]:
    return lambda: token


def _tls(path: Path, cluster: Mapping[str, Any], user: Mapping[str, Any]) -> ssl.SSLContext:
    try:
        authority = _data(path, cluster, "certificate-authority")
        tls = ssl.create_default_context(cadata=authority.decode() if authority else None)
        if cluster.get("insecure-skip-tls-verify"):
            tls.check_hostname, tls.verify_mode = False, ssl.CERT_NONE
        certificate, key = _data(path, user, "client-certificate"), _data(path, user, "client-key")
        if certificate and key:
            # ssl loads certificates from files only.
            with tempfile.NamedTemporaryFile() as pair:
                pair.write(certificate + b"\n" + key)
                pair.flush()
                tls.load_cert_chain(pair.name)
    except (OSError, ValueError) as error:
        raise NoAccess(f"{path}: its certificates cannot be used: {error}") from error
    return tls


def _data(path: Path, section: Mapping[str, Any], field: str) -> bytes | None:
    if inline := section.get(f"{field}-data"):
        return base64.b64decode(inline)
    if file := section.get(field):
        return (path.parent / str(file)).read_bytes()
    return None
