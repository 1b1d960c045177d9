"""Ranks as threads of the test: each has a slice of the vocabulary."""

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import TypeVar

import torch
from torch import Tensor

from aixcoder_serving.engine.ops import Collectives
from aixcoder_serving.engine.vocabulary import Slice

T = TypeVar("T")


class _Rank:
    def __init__(self, rank: int, places: list[Tensor], barrier: threading.Barrier) -> None:
        self.rank, self.size = rank, len(places)
        self._places, self._barrier = places, barrier

    def beat(self) -> None:
        """Nobody watches."""

    def all_gather(self, x: Tensor) -> Tensor:
        assert x.is_contiguous()
        self._places[self.rank] = x
        self._barrier.wait()
        found = torch.stack(self._places)
        self._barrier.wait()
        return found

    def all_reduce(self, x: Tensor) -> Tensor:
        return self.all_gather(x).sum(0)


def cut(vocabulary: int, size: int) -> list[Slice]:
    """Equal shares, rounded up: the last slices may be smaller or empty."""
    share = -(-vocabulary // size)
    edges = [min(rank * share, vocabulary) for rank in range(size + 1)]
    return [Slice(first, after - first, vocabulary) for first, after in pairwise(edges)]


def on_slices(logits: Tensor, parts: Sequence[Slice], work: Callable[[Tensor, Slice, Collectives], T]) -> list[T]:
    """What `work` returns on each rank, given its columns of logits (R, vocabulary)."""
    barrier = threading.Barrier(len(parts), timeout=20)
    places = [torch.empty(0)] * len(parts)

    def run(rank: int, part: Slice) -> T:
        own = logits[:, part.first : part.first + part.rows].contiguous()
        return work(own, part, _Rank(rank, places, barrier))

    with ThreadPoolExecutor(len(parts)) as pool:
        return [done.result() for done in [pool.submit(run, rank, part) for rank, part in enumerate(parts)]]
