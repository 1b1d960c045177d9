"""Creates keys once: what the chart's hook runs in its pod before an installation or an upgrade.

Standard library only: it starts in a tenth of a second and needs no package. It may create a Secret and may read none,
so "already there" is the API server's answer 409, and an existing key is neither looked at nor changed.
"""

from __future__ import annotations

import argparse
import base64
import http.client
import json
import os
import secrets
import ssl
import sys
from pathlib import Path
from typing import Any

KEY_BYTES = 32
SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")


class CannotCreateError(RuntimeError):
    """The key could not be created. The message says why and what to do."""


def secret_object(namespace: str, name: str, key: str, value: bytes) -> dict[str, Any]:
    """The Secret: immutable, since tokens derived from its value are in use for as long as any deployment runs."""
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {
            "name": name,
            "namespace": namespace,
            "labels": {"app.kubernetes.io/name": "aixcoder", "app.kubernetes.io/component": "operator"},
        },
        "type": "Opaque",
        "immutable": True,
        "data": {key: base64.b64encode(value).decode()},
    }


def outcome(status: int, body: str, where: str) -> str:
    """What a person reads of the API server's answer. Raises CannotCreateError where there is no key after it."""
    if status == http.client.CREATED:
        return f"Created the Secret {where} with a new key."
    if status == http.client.CONFLICT:
        return f"The Secret {where} is there already: kept as it is."
    try:
        message = str(json.loads(body)["message"])
    except (ValueError, KeyError, TypeError):
        message = body[:500]
    raise CannotCreateError(
        f"The API server refused the Secret {where} with {status}: {message}. Allow the hook's service account to "
        "create it, or create it with at least 32 random bytes and name it in operatorKey.existingSecret or "
        "dataKey.existingSecret."
    )


def create(secret: dict[str, Any], host: str, port: int, account: Path = SERVICE_ACCOUNT) -> tuple[int, str]:
    """POST the Secret as the pod's service account. Status and body of the answer; OSError where there is none."""
    token = (account / "token").read_text(encoding="ascii").strip()
    trust = ssl.create_default_context(cafile=str(account / "ca.crt"))
    connection = http.client.HTTPSConnection(host, port, timeout=30, context=trust)
    try:
        connection.request(
            "POST",
            f"/api/v1/namespaces/{secret['metadata']['namespace']}/secrets",
            body=json.dumps(secret),
            headers={"authorization": f"Bearer {token}", "content-type": "application/json"},
        )
        answer = connection.getresponse()
        return answer.status, answer.read().decode(errors="replace")
    finally:
        connection.close()


def main() -> None:
    """Entry point: exits with a sentence and status 1 where there is no key afterwards."""
    parser = argparse.ArgumentParser(description="Create a key in each Secret that is not there yet.")
    parser.add_argument("--namespace", required=True)
    parser.add_argument(
        "secrets", nargs="+", metavar="SECRET/KEY", type=_place, help="name of a Secret and of the key in its data"
    )
    arguments = parser.parse_args()
    try:
        host, port = os.environ["KUBERNETES_SERVICE_HOST"], int(os.environ["KUBERNETES_SERVICE_PORT"])
    except KeyError as missing:
        sys.exit(f"{missing} is not set: this program runs in a pod.")
    for name, key in arguments.secrets:
        where = f"{arguments.namespace}/{name}"
        secret = secret_object(arguments.namespace, name, key, secrets.token_bytes(KEY_BYTES))
        try:
            print(outcome(*create(secret, host, port), where))
        except OSError as error:
            sys.exit(f"The API server could not be asked to create the Secret {where}: {error}. The Job tries again.")
        except CannotCreateError as error:
            sys.exit(str(error))


def _place(text: str) -> tuple[str, str]:
    name, separator, key = text.partition("/")
    if not (name and separator and key):
        raise argparse.ArgumentTypeError(f"{text}: write NAME/KEY")
    return name, key


if __name__ == "__main__":
    main()
