"""What a replica has accepted, and how much more it would: it is the authority on its own load. Decides only.

It runs `slots` completions at once. Of prompts it keeps `PREFILL_MS` waiting at most: what waits in a gateway can still
go to another replica, be ordered among all, or be superseded.
"""

from __future__ import annotations

from dataclasses import dataclass

from aixcoder_serving.engine.interface import EngineStats

PREFILL_MS = 150.0

_WEIGHT = 0.05  # of one more request in the means
_FIRST_PROMPT = 1000.0  # tokens of a prompt to compute, before any was seen


@dataclass(eq=False, slots=True)
class Accepted:
    """One request. Tokens of its prompt, and what its completion may grow to; its number in the engine, once there."""

    prompt_tokens: int
    max_tokens: int
    number: int | None = None


class Admission:
    """The requests of one replica that are under way."""

    def __init__(self, slots: int) -> None:
        self.slots = slots
        self.tokens = 0
        """Of all requests under way."""
        self._under_way: set[Accepted] = set()
        self._submitted = 0
        self._uncached_share = 1.0
        self._prompt_tokens = _FIRST_PROMPT

    def __len__(self) -> int:
        return len(self._under_way)

    def accept(self, prompt_tokens: int, max_tokens: int) -> Accepted:
        """One more request; of how many tokens is an estimate as yet."""
        accepted = Accepted(prompt_tokens, max_tokens)
        self._under_way.add(accepted)
        self.tokens += prompt_tokens + max_tokens
        return accepted

    def submitted(self, accepted: Accepted, prompt_tokens: int) -> None:
        """The engine has it, and it is known to have so many tokens."""
        self._submitted += 1
        accepted.number = self._submitted
        if accepted in self._under_way:
            self.tokens += prompt_tokens - accepted.prompt_tokens
        accepted.prompt_tokens = prompt_tokens
        self._prompt_tokens += _WEIGHT * (prompt_tokens - self._prompt_tokens)

    def ended(self, accepted: Accepted, cached_tokens: int | None = None) -> None:
        """One is over, in whatever way. `cached_tokens` of its prompt were not computed, where that is known."""
        if accepted not in self._under_way:
            return
        self._under_way.remove(accepted)
        self.tokens -= accepted.prompt_tokens + accepted.max_tokens
        if cached_tokens is not None and accepted.prompt_tokens:
            share = 1 - cached_tokens / accepted.prompt_tokens
            self._uncached_share += _WEIGHT * (share - self._uncached_share)

    def room(self, stats: EngineStats) -> int:
        """Requests that would be accepted now, of the usual size; the engine as its last `stats` say."""
        unseen = sum(a.prompt_tokens for a in self._under_way if a.number is None or a.number > stats.submitted)
        ms_per_token = stats.prefill_ms_per_token * self._uncached_share
        left_ms = PREFILL_MS - stats.prefill_waiting_ms - unseen * ms_per_token
        free = self.slots - len(self._under_way)
        if left_ms <= 0:
            return 0
        # One at least: a prompt may be longer than all that may wait, and has to run somewhere.
        return max(min(free, 1 + int(left_ms / max(ms_per_token * self._prompt_tokens, 1e-6))), 0)
