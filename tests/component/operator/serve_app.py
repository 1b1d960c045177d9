"""A Serve application as small as can be: the builder takes its arguments and binds one deployment named Replica."""

from __future__ import annotations

from typing import Any

from ray import serve


class _Replica:
    def __init__(self, arguments: dict[str, Any]) -> None:
        if arguments.get("fail"):
            raise RuntimeError("made to fail")


# Ray's decorator has no type for what it returns.
Replica: Any = serve.deployment(name="Replica")(_Replica)


def build(arguments: dict[str, Any]) -> Any:
    return Replica.bind(arguments)
