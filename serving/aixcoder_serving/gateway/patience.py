"""How long a client waits for its completion to begin: by its own header, its SDK's, else as its kind does."""

from __future__ import annotations

import math
from collections.abc import Mapping

OWN_HEADER = "x-patience-ms"
SDK_HEADERS = ("x-stainless-timeout", "x-stainless-read-timeout")
"""Of the SDKs of OpenAI, Mistral and others, in seconds."""

MOST_SECONDS = 300.0


def patience(headers: Mapping[str, str], default: float) -> float:
    """Seconds; what is no number above zero is as good as absent."""
    own = _number(headers.get(OWN_HEADER))
    if own is not None:
        return min(own / 1000, MOST_SECONDS)
    told = [seconds for name in SDK_HEADERS if (seconds := _number(headers.get(name))) is not None]
    # An SDK's time-out is what it waits at most, not what a person does.
    return min(min(told, default=default), default)


def _number(text: str | None) -> float | None:
    try:
        value = float(text or "")
    except ValueError:
        return None
    return value if math.isfinite(value) and value > 0 else None
