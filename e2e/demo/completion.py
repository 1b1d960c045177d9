"""Ask for one completion as an editor would, and show it."""

from __future__ import annotations

import json
import sys
import urllib.error
import urllib.request
from typing import Any

from e2e.cluster.errors import ClusterError

TIMEOUT_SECONDS = 60.0
PROMPT = """\
def insort_left(a, x, lo=0, hi=None, *, key=None):
    if key is None:
        lo = bisect_left(a, x, lo, hi)
    else:
        lo = bisect_left(a, key(x), lo, hi, key=key)
    """
SUFFIX = """

def bisect_left(a, x, lo=0, hi=None, *, key=None):
    if lo < 0:
        raise ValueError('lo must be non-negative')
"""


def ask(url: str) -> str:
    """The text between PROMPT and SUFFIX, greedily. Raises ClusterError with what the answer says where it is none."""
    body: dict[str, Any] = {"prompt": PROMPT, "suffix": SUFFIX, "max_tokens": 64, "temperature": 0}
    headers = {"content-type": "application/json"}
    request = urllib.request.Request(f"{url}/v1/completions", json.dumps(body).encode(), headers)
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS) as response:
            answer = json.load(response)
    except urllib.error.HTTPError as error:
        raise ClusterError(f"{url} answered {error.code}: {error.read().decode(errors='replace')}") from error
    except OSError as error:
        raise ClusterError(f"{url} gave no answer: {error}") from error
    text: str = answer["choices"][0]["text"]
    return text


def shown(text: str, *, colour: bool | None = None) -> str:
    """Prompt, completion and suffix as they stand in the editor, each line indented; the completion stands out."""
    colour = sys.stdout.isatty() if colour is None else colour
    start, end = ("\x1b[1;32m", "\x1b[0m") if colour else ("⟦", "⟧")
    return "".join(f"    {line}" for line in f"{PROMPT}{start}{text}{end}{SUFFIX}".splitlines(keepends=True))
