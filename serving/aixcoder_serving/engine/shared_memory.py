"""The memory that the ranks of one engine share: a typed view of `cpu/ranks.h`, which holds its layout."""

from __future__ import annotations

import ctypes
import mmap
import os
import signal

import torch
from torch import Tensor

from aixcoder_serving.engine.interface import EngineClosed
from aixcoder_serving.engine.watchdog import Heartbeat

_PIECE_BYTES = 2**20
"""Of a tensor, what is exchanged at a time: about a core's own cache."""

_COMMAND_BYTES = 2**26
"""The largest command. Pages that no command needed take no memory."""

FREEZE_SECONDS = 1.5
"""Silence after which a rank counts as frozen: with the time between two looks it is noticed within 2 s."""

_ABORTED, _LOST, _DISAGREED, _CLOSED, _INTERRUPTED = -1, -2, -3, -4, -5
_ENDED = 1
_NO_STATUS = 0xFFFF
_TYPES = {torch.float32: 0, torch.bfloat16: 1}


class RankLost(EngineClosed):
    """A rank is dead or frozen: the group is over. Says which one and what happened to it."""


class GroupClosed(EngineClosed):
    """Rank 0 has closed the group."""


class StepAborted(RuntimeError):
    """Another rank failed in this command: leave it."""


class RanksDisagree(RuntimeError):
    """The ranks did not make the same calls, with the same shapes, in the same order."""


class SharedMemory:
    """Made before the ranks are forked; each then joins it."""

    def __init__(self, size: int, library: ctypes.CDLL, freeze_seconds: float = FREEZE_SECONDS) -> None:
        self.library = _declared(library)
        if not 1 <= size <= library.aix_max_ranks():
            raise ValueError(f"{size} ranks: there can be 1 to {library.aix_max_ranks()}")
        self.size = size
        self.freeze_seconds = freeze_seconds
        self._mapping = mmap.mmap(-1, library.aix_group_bytes(size, _PIECE_BYTES, _COMMAND_BYTES))
        self.base = ctypes.addressof(ctypes.c_char.from_buffer(self._mapping))
        library.aix_group_create(self.base, size, _PIECE_BYTES, freeze_seconds)


class Member:
    """One rank's access to it.

    `crowded`: the ranks have more threads than cores, so that one that spins may keep from running the one it waits
    for. `heartbeat` moves with the rank's own counter.
    """

    def __init__(self, memory: SharedMemory, rank: int, *, crowded: bool, heartbeat: Heartbeat | None = None) -> None:
        self.rank = rank
        self.size = memory.size
        self._memory = memory
        self._library = memory.library
        self._heartbeat = heartbeat  # its address is used from here on
        outer = heartbeat.address if heartbeat else None
        self._context = ctypes.c_void_p(memory.library.aix_join(memory.base, rank, outer, crowded))
        self._commands = memory.library.aix_command_area(memory.base)

    def started(self, rank: int, pid: int) -> None:
        """Rank 0: this process is the rank, whether it gets as far as joining or not."""
        self._library.aix_started(self._context, rank, pid)

    def beat(self) -> None:
        """Show that this rank moves."""
        self._library.aix_beat(self._context)

    def watch(self) -> None:
        """Beat, and look at the others without waiting. Raises `RankLost`."""
        self._check(self._library.aix_watch(self._context))

    def send(self, payload: bytes, *, patient: bool) -> None:
        """Rank 0: begin a command; the last one must be finished. Raises `ValueError` over 64 MiB."""
        if len(payload) > _COMMAND_BYTES:
            raise ValueError(f"a command of {len(payload)} bytes: {_COMMAND_BYTES} is the most")
        ctypes.memmove(self._commands, payload, len(payload))
        self._library.aix_command(self._context, len(payload), patient)

    def receive(self) -> bytes | None:
        """Others: wait for the next command; None once the group is closed. Raises `RankLost`."""
        while (count := self._library.aix_next_command(self._context)) == _INTERRUPTED:
            pass
        if count == _CLOSED:
            return None
        self._check(count)
        return ctypes.string_at(self._commands, count)

    def done(self) -> None:
        """End the command on this rank."""
        self._library.aix_done(self._context)

    def wait_done(self) -> None:
        """Rank 0: until all ranks have ended the command. Raises `RankLost`."""
        while (outcome := self._library.aix_all_done(self._context)) == _INTERRUPTED:
            pass  # signal handlers run here
        self._check(outcome)

    def abort(self, text: str) -> None:
        """End all ranks' collectives of this command; the first one's text, of up to 2047 bytes, is kept."""
        self._library.aix_abort(self._context, text.encode())

    def aborted(self) -> tuple[int, str] | None:
        """Rank 0, once the command has ended: which rank aborted it first, and its text."""
        text = ctypes.c_char_p()
        rank = self._library.aix_aborted(self._context, ctypes.byref(text))
        return None if rank < 0 else (rank, (text.value or b"").decode(errors="replace"))

    def close(self) -> None:
        """End every wait of every rank."""
        self._library.aix_close(self._context)

    def all_reduce(self, x: Tensor) -> None:
        """Sum over the ranks, in place: float32 or bfloat16, contiguous."""
        outcome = self._library.aix_all_reduce(self._context, x.data_ptr(), x.nbytes, _TYPES[x.dtype])
        if outcome:
            self._check(outcome)

    def all_gather(self, x: Tensor, out: Tensor) -> None:
        """Copy every rank's x to `out`, both contiguous."""
        outcome = self._library.aix_all_gather(self._context, x.data_ptr(), out.data_ptr(), x.nbytes)
        if outcome:
            self._check(outcome)

    def _check(self, outcome: int) -> None:
        if outcome == _LOST:
            raise RankLost(loss_sentence(self._library.aix_lost(self._context), self._memory.freeze_seconds))
        if outcome == _ABORTED:
            raise StepAborted("another rank failed in this command")
        if outcome == _CLOSED:
            raise GroupClosed("the engine was closed")
        if outcome == _DISAGREED:
            other = self._library.aix_disagrees(self._context)
            raise RanksDisagree(f"ranks {self.rank} and {other} made different collective calls, or of different sizes")


class SharedMemoryCollectives:
    """`Collectives` of processes on one machine, for tensors in its memory."""

    def __init__(self, member: Member) -> None:
        self.rank = member.rank
        self.size = member.size
        self._member = member

    def beat(self) -> None:
        """See `Collectives`; every other call does it too."""
        self._member.beat()

    def all_reduce(self, x: Tensor) -> Tensor:
        """See `Collectives`: float32, or bfloat16 that is added in float32 and rounded once; x itself if contiguous.

        Raises `RankLost`, `StepAborted` and `RanksDisagree`, as `all_gather` does.
        """
        if x.dtype not in _TYPES or not x.is_cpu:
            raise TypeError(f"all_reduce of {x.dtype} on {x.device}: it adds float32 and bfloat16 on the cpu")
        x = x.contiguous()
        self._member.all_reduce(x)
        return x

    def all_gather(self, x: Tensor) -> Tensor:
        """See `Collectives`; any dtype."""
        if not x.is_cpu:
            raise TypeError(f"all_gather on {x.device}: it copies in the memory of the cpu")
        out = torch.empty((self.size, *x.shape), dtype=x.dtype)
        self._member.all_gather(x.contiguous(), out)
        return out


def loss_sentence(word: int, freeze_seconds: float) -> str:
    """The sentence for `Group::lost` of `cpu/ranks.h`."""
    rank, kind, status = (word & 0xFF) - 1, word >> 8 & 0xFF, word >> 16
    if kind != _ENDED:
        return f"rank {rank} has not moved for {freeze_seconds:g} s"
    if status == _NO_STATUS:
        return f"rank {rank} has ended"
    if os.WIFSIGNALED(status):
        return f"rank {rank} ended by signal {os.WTERMSIG(status)} ({signal.Signals(os.WTERMSIG(status)).name})"
    return f"rank {rank} ended with exit code {os.WEXITSTATUS(status)}"


def _declared(library: ctypes.CDLL) -> ctypes.CDLL:
    """Give the functions their types; the library may have others."""
    context, number, size = ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t
    pointer = ctypes.c_void_p
    types: dict[str, tuple[list[type], type | None]] = {
        "aix_max_ranks": ([], number),
        "aix_group_bytes": ([number, size, size], size),
        "aix_group_create": ([pointer, number, size, ctypes.c_double], None),
        "aix_join": ([pointer, number, pointer, number], pointer),
        "aix_started": ([context, number, ctypes.c_int64], None),
        "aix_beat": ([context], None),
        "aix_watch": ([context], number),
        "aix_lost": ([context], ctypes.c_uint64),
        "aix_disagrees": ([context], number),
        "aix_command_area": ([pointer], pointer),
        "aix_command": ([context, ctypes.c_int64, number], None),
        "aix_next_command": ([context], ctypes.c_int64),
        "aix_done": ([context], None),
        "aix_all_done": ([context], number),
        "aix_abort": ([context, ctypes.c_char_p], number),
        "aix_aborted": ([context, ctypes.POINTER(ctypes.c_char_p)], number),
        "aix_close": ([context], None),
        "aix_all_reduce": ([context, pointer, size, number], number),
        "aix_all_gather": ([context, pointer, pointer, size], number),
    }
    for name, (arguments, result) in types.items():
        function = getattr(library, name)
        function.argtypes, function.restype = arguments, result
    return library
