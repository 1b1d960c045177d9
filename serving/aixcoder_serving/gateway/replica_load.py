"""What one gateway knows of a replica's load: the replica's last report, and its own dispatches since. Decides only.

A replica tells all gateways the same; what a gateway sent since is in none of the reports it has. The replica's first
message on a request names the report from which on it is counted.
"""

from __future__ import annotations

from dataclasses import dataclass

from aixcoder_serving.protocol import PROTOCOL_VERSION, LoadReport

_UNHEARD = 4
"""Requests at once for a replica that tells nothing; it refuses what it has no room for."""


@dataclass(slots=True)
class _Dispatch:
    tokens: int
    reported_from: int | None = None  # number of the first report that counts it


class ReplicaLoad:
    """The load of one replica. Without a report there is little to go by."""

    def __init__(self) -> None:
        self.report: LoadReport | None = None
        """The last one; None until the first, and while its stream is broken."""
        self.version = PROTOCOL_VERSION
        """In which it wants its requests: ours, until it has told another one."""
        self.leaving = False
        """Whether it told, when it was last heard, that it ends."""
        self._full = False
        self._since: dict[str, _Dispatch] = {}

    def dispatched(self, request_id: str, tokens: int) -> None:
        """A request was sent there."""
        self._since[request_id] = _Dispatch(tokens)

    def accepted(self, request_id: str, report: int, tokens: int) -> None:
        """The replica has it, with so many tokens: its reports count it from this number on."""
        if request_id in self._since:
            self._since[request_id] = _Dispatch(tokens, report)
            self._drop_reported()

    def refused(self, request_id: str) -> None:
        """It did not take the request: it has no room until it says so. One that says nothing is asked again."""
        self._since.pop(request_id, None)
        self._full = self.report is not None

    def ended(self, request_id: str) -> None:
        """It is over, or was not taken."""
        self._since.pop(request_id, None)

    def take(self, report: LoadReport) -> None:
        """The replica told its load."""
        self.report, self._full, self.version, self.leaving = report, False, report.version, report.draining
        self._drop_reported()

    def unheard(self) -> None:
        """Its reports have ended: what is known of it is out of date."""
        self.report, self._full = None, False

    @property
    def tokens(self) -> int:
        """Tokens in flight: prompts, and what their completions may grow to."""
        return (self.report.tokens if self.report else 0) + sum(sent.tokens for sent in self._since.values())

    @property
    def room(self) -> bool:
        """Whether it would take one more request now."""
        if self._full:
            return False
        if self.report is None:
            return len(self._since) < _UNHEARD
        return not self.report.draining and self.report.room > len(self._since)

    def _drop_reported(self) -> None:
        if self.report is not None:
            for request_id, sent in list(self._since.items()):
                if sent.reported_from is not None and sent.reported_from <= self.report.number:
                    del self._since[request_id]
