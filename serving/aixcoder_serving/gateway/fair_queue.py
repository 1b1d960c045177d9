"""Who is next: requests that wait for a replica, fair between keys. Decides only.

Start-time fair queueing (Goyal, Vin, Cheng 1996) over tokens: a key's virtual time is what it was given, by its
weight; the key with the least is next. One that was away begins where the others are: nobody saves up. What a request
is charged when it is given a place is an estimate, and is corrected by what it used.

Inside a key the editor with the earliest deadline is next, and inside an editor its newest request: what was typed
since makes the older ones worthless.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from aixcoder_serving.gateway.editor import Editor

T = TypeVar("T")


@dataclass(eq=False, slots=True)
class Waiting(Generic[T]):
    """One request that waits. `deadline` and `since` are in seconds of a monotonic clock, `size` in bytes."""

    key: str
    editor: Editor | None
    tokens: int
    deadline: float
    since: float
    size: int
    what: T


@dataclass(slots=True)
class _Flow(Generic[T]):
    """The requests of one key, by editor; those of nobody each on their own."""

    virtual: float
    weight: float
    editors: dict[Editor | Waiting[T], list[Waiting[T]]] = field(default_factory=dict)

    @property
    def count(self) -> int:
        return sum(len(entries) for entries in self.editors.values())

    @property
    def bytes(self) -> int:
        return sum(entry.size for entries in self.editors.values() for entry in entries)

    def next(self) -> Waiting[T]:
        entries = min(self.editors.values(), key=lambda entries: min(entry.deadline for entry in entries))
        return entries[-1]


class FairQueue(Generic[T]):
    """Requests by key. `virtual` time never goes back."""

    def __init__(self) -> None:
        self._flows: dict[str, _Flow[T]] = {}
        self._virtual = 0.0
        self._count = 0
        self.bytes = 0
        """Of all bodies that wait."""

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Waiting[T]]:
        for flow in self._flows.values():
            for entries in flow.editors.values():
                yield from entries

    def push(self, entry: Waiting[T], weight: float = 1.0) -> None:
        """Let a request wait, or wait again: among its editor's it stands where its `since` says.

        A key of `weight` 2 gets twice the tokens of one of weight 1.
        """
        flow = self._flows.get(entry.key)
        if flow is None:
            flow = self._flows[entry.key] = _Flow(self._virtual, weight)
        if not flow.editors:
            flow.virtual = max(flow.virtual, self._virtual)
        flow.weight = weight
        insort(flow.editors.setdefault(_place(entry), []), entry, key=lambda waiting: waiting.since)
        self._count += 1
        self.bytes += entry.size

    def peek(self) -> Waiting[T] | None:
        """Who is next; None where nobody waits."""
        waiting = [(flow.virtual, key) for key, flow in self._flows.items() if flow.editors]
        return self._flows[min(waiting)[1]].next() if waiting else None

    def take(self, entry: Waiting[T]) -> None:
        """A request is given a place: its key is charged for it."""
        flow = self._flows[entry.key]
        self._virtual = max(self._virtual, flow.virtual)
        self.remove(entry)
        flow.virtual += entry.tokens / flow.weight

    def remove(self, entry: Waiting[T]) -> None:
        """A request does not wait any more; nothing is charged. Does nothing where it did not wait."""
        flow = self._flows.get(entry.key)
        entries = flow.editors.get(_place(entry), []) if flow is not None else []
        if flow is None or entry not in entries:
            return
        entries.remove(entry)
        if not entries:
            del flow.editors[_place(entry)]
        self._count -= 1
        self.bytes -= entry.size

    def charge(self, key: str, tokens: float) -> None:
        """Correct what a key was charged by so many tokens, more or less."""
        flow = self._flows.get(key)
        if flow is not None:
            flow.virtual += tokens / flow.weight

    def forget_idle(self) -> None:
        """Drop what is kept of keys that wait for nothing and are owed nothing: they would begin at the same place."""
        idle = [key for key, flow in self._flows.items() if not flow.editors and flow.virtual <= self._virtual]
        for key in idle:
            del self._flows[key]

    def of_editor(self, key: str, who: Editor) -> list[Waiting[T]]:
        """The requests of one editor that wait, oldest first."""
        flow = self._flows.get(key)
        return list(flow.editors.get(who, ())) if flow is not None else []

    def newest_of_largest(self, *, by_bytes: bool = False) -> Waiting[T] | None:
        """The request that came last of the key with the most that wait, or bytes of them; None where nobody waits."""
        waiting = [flow for flow in self._flows.values() if flow.editors]
        if not waiting:
            return None
        largest = max(waiting, key=lambda flow: flow.bytes if by_bytes else flow.count)
        return max((entries[-1] for entries in largest.editors.values()), key=lambda entry: entry.since)

    def ahead_of(self, key: str, without: int = 0) -> int:
        """Requests that would be served before a new one of this key in the place of `without`, all weights equal."""
        flow = self._flows.get(key)
        own = flow.count - without if flow is not None else 0
        return own + sum(min(other.count, own + 1) for other in self._flows.values() if other is not flow)


def _place(entry: Waiting[T]) -> Editor | Waiting[T]:
    return entry.editor if entry.editor is not None else entry
