"""CUDA graphs of the forward pass, by the number of query tokens. Capture never ran on a GPU; the padding is tested.

The operations find a step's sequences on the device, whatever their lengths: one graph of n rows serves n decoding
requests as well as a keystroke, the verification of drafts, or all of them together. A step is padded up to the next
size by one more sequence, which has a slot and a block for itself: all its tokens are at position 0 of that block.

Logits and sampling run behind the graph: the host queues them while the device computes, so they cost it no idle time.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from aixcoder_serving.engine.ops import Batch

Forward = Callable[[Batch], Tensor]
Capture = Callable[[Forward, list[Batch]], list[Callable[[], Tensor]]]

SIZES = (1, 2, 4, 8, 16, 32, 48, 64, 96, 128, 192, 256)
"""Query tokens. Below about 200 a step takes as long as reading the weights; above 256 the device computes for longer
than the host needs to queue the operations one by one."""


@dataclass(frozen=True, slots=True)
class _Graph:
    inputs: Batch
    replay: Callable[[], Tensor]


class Graphs:
    """A forward pass that replays graphs: the same results as `forward`, of which the last bits may differ.

    The last row of `tables` (slots + 1, blocks) is the padding's, and names a block that nobody else uses. What is
    returned is overwritten by the next call.
    """

    def __init__(self, forward: Forward, tables: Tensor, capture: Capture | None = None) -> None:
        self._forward = forward
        inputs = [_padding(size, tables) for size in SIZES]
        replays = (capture or capture_graphs)(forward, inputs)
        self._graphs = [_Graph(*pair) for pair in zip(inputs, replays, strict=True)]

    def __call__(self, batch: Batch) -> Tensor:
        """(R, hidden): see `LlamaModel.forward`."""
        tokens, rows = len(batch.ids), len(batch.logits_rows)
        at = bisect_left(SIZES, tokens)
        if at == len(SIZES):
            return self._forward(batch)
        graph = self._graphs[at]
        _fill(graph.inputs, batch)
        hidden = graph.replay()
        return hidden[:tokens] if rows == tokens else hidden[batch.logits_rows]


def capture_graphs(forward: Forward, inputs: list[Batch]) -> list[Callable[[], Tensor]]:
    """What replays `forward` of each. Each runs once before: compiling and cuBLAS's workspace are not for a graph.

    The largest comes first, and the smaller ones use its memory: only one of them runs at a time. A larger step is run
    as well, so that what it needs is compiled before any request waits for it.
    """
    forward(_padding(len(inputs[-1].ids) + 1, inputs[-1].tables))
    stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    pool = torch.cuda.graph_pool_handle()
    replays: list[Callable[[], Tensor]] = []
    for batch in reversed(inputs):
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            forward(batch)
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        # Threads of NCCL may look at their events meanwhile.
        with torch.cuda.graph(graph, pool=pool, stream=stream, capture_error_mode="thread_local"):
            out = forward(batch)
        replays.append(_replay(graph, out))
    return replays[::-1]


def _replay(graph: torch.cuda.CUDAGraph, out: Tensor) -> Callable[[], Tensor]:
    def replay() -> Tensor:
        graph.replay()
        return out

    return replay


def _padding(size: int, tables: Tensor) -> Batch:
    """Inputs of `size` tokens, all padding: room for a sequence in each slot, and the padding's behind them."""
    slots, device = len(tables) - 1, tables.device

    def int32(*values: int) -> Tensor:
        return torch.tensor(values, dtype=torch.int32, device=device)

    return Batch(
        ids=torch.zeros(size, dtype=torch.int64, device=device),
        positions=torch.zeros(size, dtype=torch.int32, device=device),
        query_start=int32(*[0] * (slots + 1), size),
        context=int32(*[1] * (slots + 1)),
        slots=int32(*[slots] * (slots + 1)),
        tables=tables,
        logits_rows=torch.arange(size, device=device),
    )


def _fill(inputs: Batch, batch: Batch) -> None:
    """Write a step into a graph's inputs. Sequences that are not there have no tokens; the rest is the padding's."""
    tokens, sequences = len(batch.ids), len(batch.slots)
    inputs.ids[:tokens].copy_(batch.ids)
    inputs.positions[:tokens].copy_(batch.positions)
    inputs.positions[tokens:].zero_()
    inputs.query_start[: sequences + 1].copy_(batch.query_start)
    inputs.query_start[sequences + 1 : -1].fill_(tokens)
    inputs.context[:sequences].copy_(batch.context)
    inputs.slots[:sequences].copy_(batch.slots)
