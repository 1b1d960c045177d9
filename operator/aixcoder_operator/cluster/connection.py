"""How to reach the API server: in a pod by its service account, else by KUBECONFIG."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from kopf import ConnectionInfo
from kubernetes.aio.client.configuration import Configuration
from kubernetes.aio.client.rest import RESTClientObject
from kubernetes.aio.config import ConfigException, load_incluster_config, load_kube_config

from aixcoder_operator.cluster.client import REQUEST_SECONDS, Client, RequestObserver, unobserved


class NoCluster(Exception):
    """Neither a service account nor a kubeconfig is there; the message says what to do."""


async def load_configuration() -> Configuration:
    """Where the API server is and how to authenticate; a service account's token is read again each minute.

    Raises NoCluster.
    """
    configuration = Configuration()
    try:
        load_incluster_config(client_configuration=configuration)
    except ConfigException:
        path = os.environ.get("KUBECONFIG") or str(Path.home() / ".kube" / "config")
        try:
            await load_kube_config(config_file=path, client_configuration=configuration, persist_config=False)
        except (ConfigException, OSError) as error:
            raise NoCluster(f"not in a pod, and {path} is no usable kubeconfig ({error}): set KUBECONFIG") from error
    return configuration


@asynccontextmanager
async def connect(
    configuration: Configuration,
    *,
    observer: RequestObserver = unobserved,
    request_seconds: float = REQUEST_SECONDS,
) -> AsyncIterator[Client]:
    """A client whose connections live as long as the context."""
    rest = RESTClientObject(configuration)
    try:
        yield Client(rest, configuration, observer=observer, request_seconds=request_seconds)
    finally:
        await rest.close()


async def kopf_login(configuration: Configuration) -> ConnectionInfo:
    """The same way in, for kopf's watches."""
    authorization = await configuration.get_api_key_with_prefix("BearerToken", alias="authorization")
    scheme, _, token = (authorization or "").rpartition(" ")
    return ConnectionInfo(
        server=configuration.host,
        ca_path=configuration.ssl_ca_cert,
        insecure=not configuration.verify_ssl,
        scheme=scheme.strip() or None,
        token=token or None,
        certificate_path=configuration.cert_file,
        private_key_path=configuration.key_file,
        trust_env=True,
    )
