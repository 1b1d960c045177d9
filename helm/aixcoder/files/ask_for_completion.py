"""What `helm test` runs in its pod: asks the gateway for one completion, or says in a sentence why there is none.

Standard library only. Environment: AIXCODER_URL (the gateway), AIXCODER_MODEL (empty: the first listed),
AIXCODER_TIMEOUT_SECONDS (for all of it), AIXCODER_API_KEY_FILE (optional: a file with one key).
"""

import json
import os
import sys
import time
import urllib.error
import urllib.request
from typing import Any

URL = os.environ["AIXCODER_URL"]
DEADLINE = time.monotonic() + float(os.environ["AIXCODER_TIMEOUT_SECONDS"])
TOO_EARLY = (429, 502, 503, 504)
PROMPT = {"prompt": "def add(a, b):\n    return", "suffix": "\n", "max_tokens": 16, "temperature": 0}


def call(path: str, body: dict[str, Any] | None = None) -> Any:
    """The gateway's answer to GET, or to POST where there is a body. OSError or ValueError where it is not one."""
    headers = {"content-type": "application/json"}
    if key_file := os.environ.get("AIXCODER_API_KEY_FILE"):
        with open(key_file, encoding="ascii") as file:
            headers["authorization"] = f"Bearer {file.read().strip()}"
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(URL + path, data=data, headers=headers)
    with urllib.request.urlopen(request, timeout=max(1.0, DEADLINE - time.monotonic())) as response:
        return json.load(response)


def ask(model: str) -> None:
    """Print a completion by the model ("": the first listed). Exits where the gateway lists no such model."""
    listed = [entry["id"] for entry in call("/v1/models")["data"]]
    if not listed:
        sys.exit(
            "No model is served: the gateway answers and lists none. Apply an AixcoderDeployment, wait for it "
            "(kubectl wait --for=condition=Ready axd/NAME), then test again."
        )
    if model and model not in listed:
        sys.exit(f"The model {model} is not served, {', '.join(listed)} is: set test.model to what is.")
    answer = call("/v1/completions", {"model": model or listed[0], **PROMPT})
    print(f"{model or listed[0]} completed with {answer['choices'][0]['text']!r}; usage {answer.get('usage')}")


def main() -> None:
    """Ask, and ask again while the answer is that it is too early, until the time is over."""
    while True:
        try:
            return ask(os.environ.get("AIXCODER_MODEL", ""))
        except urllib.error.HTTPError as error:
            wrong, again = f"{error.code} {error.read(2000).decode(errors='replace')}", error.code in TOO_EARLY
            if error.code == 401:
                sys.exit(
                    f"The gateway asks for an API key: test.apiKey.existingSecret names a Secret with one. {wrong}"
                )
        except (OSError, ValueError) as error:
            wrong, again = str(error), True
        if not again or time.monotonic() + 1 > DEADLINE:
            sys.exit(f"No completion from {URL}: {wrong}. See `kubectl get axd -A -o wide` and the gateway's log.")
        time.sleep(1)


main()
