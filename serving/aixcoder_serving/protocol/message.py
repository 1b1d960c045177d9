"""What all messages have in common."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

PROTOCOL_VERSION = 1
"""Raised when a message changes its meaning; a gateway speaks this version and the one before."""

REPLICA_PORT = 30000
"""The pod port on which a replica listens: `/generate`, `/events`, `/ready`, `/stats`, `/metrics`."""


class Message(BaseModel):
    """Base of all messages: unknown fields are ignored, so that an older peer understands a newer one.

    Its errors hold no input: that may be a user's code, and errors are logged.
    """

    model_config = ConfigDict(extra="ignore", frozen=True, hide_input_in_errors=True)
