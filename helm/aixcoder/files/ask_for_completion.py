"""What `helm test` runs in its pod: asks the gateway for one completion and says in a sentence what is wrong where there is none.

Standard library only. Environment: AIXCODER_URL (the gateway), AIXCODER_MODEL ("" = the first listed), AIXCODER_TIMEOUT_SECONDS (for all of it),
AIXCODER_API_KEY_FILE (optional: a file with one key).
"""

import json
import os
import sys
import time
import urllib.error
import urllib.request

URL = os.environ["AIXCODER_URL"]
DEADLINE = time.monotonic() + float(os.environ.get("AIXCODER_TIMEOUT_SECONDS", "120"))


def call(path: str, body: dict[str, object] | None = None) -> dict[str, object]:
    """Answer of the gateway to GET, or to POST where there is a body. Raises what urllib raises."""
    headers = {"content-type": "application/json"}
    key_file = os.environ.get("AIXCODER_API_KEY_FILE")
    if key_file:
        with open(key_file, encoding="utf-8") as file:
            headers["authorization"] = f"Bearer {file.read().strip()}"
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(URL + path, data=data, headers=headers)  # noqa: S310 - the chart wrote the URL
    with urllib.request.urlopen(request, timeout=max(1.0, DEADLINE - time.monotonic())) as response:  # noqa: S310
        answer: dict[str, object] = json.load(response)
    return answer


def ask(model: str) -> str:
    """Text of a completion by the model ("" = the first that the gateway lists). Exits with a sentence where none is served."""
    listed = [entry["id"] for entry in call("/v1/models")["data"]]  # type: ignore[attr-defined]
    if not listed:
        sys.exit(
            "No model is served: the gateway answers and lists none. Apply an AixcoderDeployment, wait for it "
            "(kubectl wait --for=condition=Ready axd/NAME), then test again."
        )
    if model and model not in listed:
        sys.exit(f"The model {model!r} is not served; the gateway lists {', '.join(listed)}. Set test.model to one of these.")
    body = {"model": model or listed[0], "prompt": "def add(a, b):\n    return", "suffix": "\n", "max_tokens": 16, "temperature": 0}
    answer = call("/v1/completions", body)
    text = answer["choices"][0]["text"]  # type: ignore[index]
    print(f"{body['model']} completed with {text!r}; usage {answer.get('usage')}")
    return str(text)


def main() -> None:
    """Ask, and again while the answer is that it is too early, until the time is over."""
    while True:
        try:
            ask(os.environ.get("AIXCODER_MODEL", ""))
        except urllib.error.HTTPError as error:
            said = error.read(2000).decode(errors="replace")
            if error.code == 401:
                sys.exit(f"The gateway asks for an API key: name a Secret with one in test.apiKey.existingSecret. It said: {said}")
            wrong = f"{error.code} {said}"
            again = error.code in (429, 502, 503, 504)
        except (OSError, ValueError) as error:
            wrong, again = str(error), True
        else:
            return
        if not again or time.monotonic() + 1 > DEADLINE:
            sys.exit(f"No completion from {URL}: {wrong}. See `kubectl get axd -A -o wide` and the gateway's log.")
        time.sleep(1)


main()
