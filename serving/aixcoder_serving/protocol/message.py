"""What all messages have in common."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

PROTOCOL_VERSION = 1
"""Raised when a message changes its meaning, not where fields are added: unknown ones are ignored.

A replica speaks this version alone. It names it in its load reports and in `Started`, and refuses a request of another
one: 400, where `param` is `version`. A gateway speaks this version and the one before, for replicas outlive its
upgrade: it writes each request in the version that the replica's reports name, and uses no replica of another one. A
gateway that is older than a replica leaves it to those that are not: gateways are upgraded first.
"""

SPOKEN = (PROTOCOL_VERSION - 1, PROTOCOL_VERSION)
"""By a gateway."""

REPLICA_PORT = 30000
"""The pod port on which a replica listens: `/generate`, `/events`, `/ready`, `/stats`, `/metrics`."""


class Message(BaseModel):
    """Base of all messages: unknown fields are ignored, so that an older peer understands a newer one.

    Its errors hold no input: that may be a user's code, and errors are logged.
    """

    model_config = ConfigDict(extra="ignore", frozen=True, hide_input_in_errors=True)


class Versioned(Message):
    """A message that names its version; all that is sure of one in another version."""

    version: int = PROTOCOL_VERSION
