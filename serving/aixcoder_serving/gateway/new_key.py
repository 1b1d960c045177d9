"""`aixcoder keys new`: a new API key for a person, and its entry for the Secret."""

from __future__ import annotations

import argparse
import hashlib
import json
import secrets
import sys
from typing import Any

from aixcoder_serving.gateway import arguments
from aixcoder_serving.gateway.keys import KEY_ID, Key

_LIMITS = {
    "concurrent_requests": "requests under way at once",
    "requests_per_minute": "requests in a minute",
    "tokens_per_minute": "tokens in a minute, prompts and completions",
}


def new_key(key_id: str, **fields: Any) -> tuple[str, str]:
    """A key with 256 random bits, and the JSON of its entry, which does not give it away."""
    key = f"axk_{key_id}_{secrets.token_urlsafe(32)}"
    entry = Key(sha256=hashlib.sha256(key.encode()).hexdigest(), **fields)
    told = entry.model_dump(by_alias=True, exclude={"id"}, exclude_defaults=True)
    return key, json.dumps({"sha256": entry.sha256, **told})


def add_parser(commands: Any) -> None:
    """Add `keys new` to the commands of a parser."""
    keys = commands.add_parser("keys", help="make API keys for a gateway")
    new = keys.add_subparsers(dest="keys_command", required=True, metavar="COMMAND").add_parser(
        "new",
        help="make one key",
        description=(
            "Make one API key. The key goes to standard error, for its owner; its entry for the gateway's Secret to "
            "standard output. The key is stored nowhere."
        ),
    )
    new.add_argument("id", type=_id, metavar="ID", help="whose key it is: lower-case letters, digits and -")
    new.add_argument("--team", help="whose cached prompts it may meet; not given: its own alone")
    new.add_argument("--shared", action="store_true", help="several people use it, so it tells no editor")
    new.add_argument("--weight", type=float, help="its share of the tokens while requests wait, 1 where not given")
    new.add_argument("--models", type=arguments.names, metavar="A,B", help="names that it may ask for; not given: all")
    for limit, help_ in _LIMITS.items():
        option = f"--{limit.replace('_', '-')}"
        new.add_argument(option, type=int, metavar="N", help=f"{help_}, at each gateway; not given: no limit")


def make(options: argparse.Namespace) -> None:
    """What `keys new` does. Raises ValueError where a number is out of its range."""
    names = ("team", "shared", "weight", "models", *_LIMITS)
    key, entry = new_key(options.id, **{name: value for name in names if (value := getattr(options, name)) is not None})
    print(key, file=sys.stderr)
    print(entry)


def _id(text: str) -> str:
    if not KEY_ID.fullmatch(text):
        raise argparse.ArgumentTypeError(f"{text!r} is not 1 to 63 lower-case letters, digits and -, no - at an end")
    return text
