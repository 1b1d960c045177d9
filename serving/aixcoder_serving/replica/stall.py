"""An engine that makes no step though it has work to do, as when its device hangs. Decides only."""

from __future__ import annotations

STALLED_SECONDS = 2.0


class Stall:
    """Looks at the step counter now and then."""

    def __init__(self) -> None:
        self._steps = -1
        self._moved_at = 0.0
        self._busy = False

    def seen(self, now: float, steps: int, *, busy: bool) -> bool:
        """Whether it stands still: `steps` until `now`, in seconds, and whether there is work to do."""
        if steps != self._steps or not (busy and self._busy):
            self._moved_at = now
        self._steps, self._busy = steps, busy
        return busy and now - self._moved_at >= STALLED_SECONDS
