"""A fleet of replicas under a trace, simulated from event to event. A day has four million requests: it is in C++.

One queue, first come, first served. A request goes to the replica whose prompts are done first, among those that have a
slot and less than `room_s` of prompts before them; equal ones take turns by what they run. A replica computes prompts
one after the other. With its prompt a request takes `token_s_per_request` of it for each of its tokens; a token takes
`token_s` and as much again for each request that ran when it was placed. A request begins when its prompt does, and
has waited since it arrived. When it began is told `step_s` later, or with its first token where that is sooner: of who
leaves before that, it is taken to have begun half as long before.

A request whose client leaves gives everything back at that moment: its place in the queue, or what is left of its
prompt, or its slot. Who waits in the queue for `patience_s` is shed. Routing does not know who will leave.

A replica is paid for from the moment it is asked for until its last request has ended, its cold start included. Those
that are taken away are first the ones that start, then the ones with the fewest requests.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
from dataclasses import astuple, dataclass, fields
from functools import cache as once
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from benchmarks.scaling.traces import Trace
from e2e.cluster import cache

_SOURCE = Path(__file__).with_name("fleet.cpp")
_LIBRARY = "fleet.so"


@dataclass(frozen=True, slots=True)
class Service:
    """What a replica can do, and what its clients bear. Seconds; the speeds are those that facts assume."""

    prefill_tokens_per_s: float = 12_000.0
    token_s: float = 0.011
    token_s_per_request: float = 0.0003
    room_s: float = 0.15
    patience_s: float = 10.0
    target_s: float = 0.2
    step_s: float = 0.05
    slots: int = 8


SERVICE = Service()


class Counts(NamedTuple):
    """What happened since the beginning, then gauges of now. The first ten are named as the gateway's counters are."""

    arrivals: float
    completed: float
    cancelled_waiting: float
    cancelled_prefill: float
    cancelled_decode: float
    shed: float
    slot_s: float
    tokens_prefilled: float
    """Of requests that got a first token: of others a gateway is not told."""
    tokens_decoded: float
    waited_over_target: float
    """Those that waited for longer, in the queue and in the replica: counted when that is told, see `step_s`."""
    queued: float
    running: float
    ready: float
    starting: float


class _Settings(ctypes.Structure):
    _fields_ = [
        *[(each.name, ctypes.c_int64 if each.name == "slots" else ctypes.c_double) for each in fields(Service)],
        ("cold_start_s", ctypes.c_double),
        ("counted_from_s", ctypes.c_double),
        ("counted_until_s", ctypes.c_double),
    ]


_Counts = ctypes.c_double * len(Counts._fields)


class Fleet:
    """One run. Times are seconds of the trace; GPU-seconds count from `counted_from` to `counted_until`."""

    def __init__(
        self,
        trace: Trace,
        cold_start_s: float,
        counted_from: float,
        counted_until: float,
        service: Service = SERVICE,
    ) -> None:
        self._library = _library()
        self._trace = trace
        settings = _Settings(*astuple(service), cold_start_s, counted_from, counted_until)
        arrays = (trace.at, trace.leaves, trace.prompt, trace.output)
        pointers = [ctypes.c_void_p(array.ctypes.data) for array in arrays]
        size = ctypes.c_size_t(len(trace.at))
        self._fleet = ctypes.c_void_p(self._library.fleet_new(ctypes.byref(settings), size, *pointers))
        self._counts = _Counts()

    def scale(self, wish: int, *, at_once: bool = False) -> None:
        """Have `wish` replicas, started or starting. `at_once`: they stand already."""
        self._library.fleet_scale(self._fleet, ctypes.c_size_t(wish), ctypes.c_bool(at_once))

    def advance(self, until: float) -> Counts:
        """Let everything happen that does before `until`."""
        self._library.fleet_advance(self._fleet, ctypes.c_double(until), ctypes.byref(self._counts))
        return Counts(*self._counts)

    def finish(self) -> tuple[float, NDArray[np.float64]]:
        """GPU-seconds, and how long each request waited: infinitely where it was shed, or waits still."""
        wait = np.empty(len(self._trace.at))
        self._library.fleet_finish.restype = ctypes.c_double
        gpu_s = float(self._library.fleet_finish(self._fleet, ctypes.c_void_p(wait.ctypes.data)))
        self._library.fleet_delete(self._fleet)
        return gpu_s, wait


@once
def _library() -> ctypes.CDLL:
    """The compiled simulation, made where that has not been done.

    Raises:
        SystemExit: there is no compiler, or it fails.

    """
    library = ctypes.CDLL(str(cache.entry("scaling", cache.key(_SOURCE.read_bytes()), _compile) / _LIBRARY))
    library.fleet_new.restype = ctypes.c_void_p
    return library


def _compile(folder: Path) -> None:
    compiler = os.environ.get("CXX", "g++")
    if shutil.which(compiler) is None:
        raise SystemExit(f"no {compiler} on this machine: install it (Debian: the package g++), then run again")
    command = [compiler, "-std=c++17", "-O2", "-Wall", "-Wextra", "-shared", "-fPIC", str(_SOURCE)]
    done = subprocess.run([*command, "-o", str(folder / _LIBRARY)], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{compiler} does not compile {_SOURCE}:\n{done.stderr}")
