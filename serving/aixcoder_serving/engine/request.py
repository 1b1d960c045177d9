"""One request inside the engine: what was asked, how far it is, and what it holds."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from aixcoder_serving.engine.draft import Drafter
from aixcoder_serving.engine.interface import Sampling
from aixcoder_serving.engine.prefix import NO_MATCH, Match
from aixcoder_serving.engine.stops import Ending


@dataclass(eq=False)
class Request:
    """Written by the scheduler alone, and by the engine when tokens come in. Times are of the engine's clock, seconds.

    Invariants: `computed` positions have keys and values in `blocks`, the first `published` of which are matchable;
    `computed < len(tokens)`, since the last token's are computed by the step that chooses the next one.
    """

    id: int
    prompt: tuple[int, ...]
    sampling: Sampling
    seed: int
    arrived: float
    ending: Ending
    drafter: Drafter
    root: bytes
    hashes: list[bytes]
    """Of each full block of `tokens`, chained; grows with them."""
    tokens: list[int] = field(init=False)
    """The prompt and what was generated."""
    slot: int | None = None
    """Its row in the ranks' tables while it runs."""
    blocks: list[int] = field(default_factory=list)
    reserved: int = 0
    """Blocks it may still allocate."""
    computed: int = 0
    cached: int = 0
    """Prompt tokens that were not computed but found in the cache."""
    copied: Match = NO_MATCH
    """The page whose beginning it copied, as it was found."""
    told: int = 0
    """Blocks that the ranks know of, the first ones."""
    published: int = 0
    begun: bool = False
    """Whether its first step is done."""
    progressed: float = 0.0
    """When it arrived or was last part of a step."""
    parked_on: bytes | None = None
    """The block that it waits for, which another request is computing."""
    awaited: float = math.inf
    """Tokens of the shortest prompt that waits for its blocks: then it is as urgent as that one."""
    uncached: int = 0
    """Tokens to compute before its first one, as the cache was when it was queued."""
    done: bool = False

    def __post_init__(self) -> None:
        self.tokens = list(self.prompt)
        self.progressed = self.arrived

    @property
    def generated(self) -> int:
        """Tokens chosen so far."""
        return len(self.tokens) - len(self.prompt)

    @property
    def decoding(self) -> bool:
        """Whether the next step gives it a token by computing a single one."""
        return self.slot is not None and len(self.tokens) - self.computed == 1 and self.generated > 0

    @property
    def deadline(self) -> float | None:
        """When it ends whatever it has."""
        return None if self.sampling.deadline_ms is None else self.arrived + self.sampling.deadline_ms / 1000
