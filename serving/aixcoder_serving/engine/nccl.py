"""Collectives between GPUs. Never run on a GPU: NCCL needs two, and no machine with two was at hand."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import torch
from torch import Tensor, distributed


class NcclCollectives:
    """`Collectives` over torch's NCCL process group, each rank on the GPU of its number. Never run on a GPU.

    Made in every rank at once, after the fork, in a `patient` command; `directory` is one that only these ranks use.
    Both calls work on the current stream and can be captured in a CUDA graph: shapes are static, nothing is read back.
    NCCL adds in an order of its own, the same one in every run and on every rank.

    They return before they are done, so that a lost rank shows where the host next waits for the device. NCCL cannot
    leave a collective: a rank that fails in one ends the group, as a frozen one does.
    """

    def __init__(self, rank: int, size: int, directory: str, beat: Callable[[], None] = lambda: None) -> None:
        self.beat = beat
        """See `Collectives`: that of the shared memory."""
        self.rank = rank
        self.size = size
        torch.cuda.set_device(rank)
        distributed.init_process_group(
            "nccl",
            init_method=Path(directory, "nccl").absolute().as_uri(),
            rank=rank,
            world_size=size,
            timeout=timedelta(minutes=10),
            device_id=torch.device("cuda", rank),
        )
        self.all_reduce(torch.zeros(1, device="cuda"))  # connects; not possible while a graph is captured

    def all_reduce(self, x: Tensor) -> Tensor:
        """See `Collectives`: in place."""
        x = x.contiguous()
        distributed.all_reduce(x)
        return x

    def all_gather(self, x: Tensor) -> Tensor:
        """See `Collectives`."""
        out = x.new_empty((self.size, *x.shape))
        distributed.all_gather_into_tensor(out, x.contiguous())
        return out
