"""Look at something again and again, in a thread, while a test goes on."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager


@contextmanager
def meanwhile(look: Callable[[], None], *, every_s: float) -> Iterator[None]:
    """While the block runs, look once in so many seconds. What `look` raises is raised at the end of the block."""
    over = threading.Event()

    def looking() -> None:
        while not over.wait(every_s):
            look()

    with ThreadPoolExecutor(1) as pool:
        done = pool.submit(looking)
        try:
            yield
        finally:
            over.set()
            done.result()
