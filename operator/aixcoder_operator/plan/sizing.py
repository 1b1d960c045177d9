"""How many worker pods a unit has next, who goes first, and how many replicas Ray Serve is told.

Scaling down takes three observations, not three remembered steps:

1. Not all victims are marked → mark them (deletion cost, time). The ReplicaSet keeps the pods that it has.
2. Victims are marked for at least SETTLE → the ReplicaSet gets the wished size. The controller manager reads the
   deletion cost from a cache: lowered at once, it might take another pod.
3. A pod terminates → Serve is told the count of pods that do not. Which pod that is does not matter.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from aixcoder_operator.api.objects import Object, annotations_of, name, timestamp
from aixcoder_operator.plan import names
from aixcoder_operator.plan.observed import ReplicaView, UnitView, is_ready, scheduled_at

SETTLE = timedelta(seconds=2)
_FIRST_TO_GO = "-1000"


@dataclass(frozen=True, slots=True)
class Sizing:
    """What to do about one unit's size. `mark` and `unmark` hold names of worker pods."""

    replicas: int
    mark: tuple[str, ...] = ()
    unmark: tuple[str, ...] = ()
    settling: bool = False
    """Victims are marked and their time is not yet over: look again soon."""


def size(unit: UnitView, wish: int, now: datetime) -> Sizing:
    """The ReplicaSet size of `unit` on its way to `wish`, and the pods to mark as first or no longer first to go."""
    marked = [pod for pod in unit.workers if names.VICTIM_SINCE_ANNOTATION in annotations_of(pod)]
    surplus = len(unit.workers) - wish
    if unit.size < wish or surplus <= 0:
        return Sizing(wish, unmark=tuple(name(pod) for pod in marked))
    if unit.size == wish or wish == 0:
        return Sizing(wish)  # marks stay where the controller manager may not have chosen yet
    victims = choose_victims(unit.workers, unit.replicas, surplus)
    mark = tuple(name(pod) for pod in victims if pod not in marked)
    unmark = tuple(name(pod) for pod in marked if pod not in victims)
    # Pods that it has yet to make are wished for no more.
    kept = min(unit.size, len(unit.workers))
    if mark or any(now - timestamp(annotations_of(pod)[names.VICTIM_SINCE_ANNOTATION]) < SETTLE for pod in victims):
        return Sizing(kept, mark, unmark, settling=True)
    return Sizing(wish, unmark=unmark)


def choose_victims(workers: tuple[Object, ...], replicas: Mapping[str, ReplicaView], count: int) -> tuple[Object, ...]:
    """The `count` pods that cost least to lose: without a node, not ready, marked already, with the least work, young.

    The first two are the controller manager's own order, which no mark overrules. A ready pod that did not tell its
    work counts as busier than any that did. Two looks at the same pods agree.
    """

    def cost(pod: Object) -> tuple[bool, bool, bool, bool, int, float, str]:
        view = replicas.get(name(pod))
        stats = view.stats if view else None
        return (
            scheduled_at(pod) is not None,
            is_ready(pod),
            names.VICTIM_SINCE_ANNOTATION not in annotations_of(pod),
            stats is None,
            stats.running + stats.waiting if stats else 0,
            -timestamp(pod["metadata"]["creationTimestamp"]).timestamp(),
            name(pod),
        )

    return tuple(sorted(workers, key=cost)[:count])


def mark_patch(now: datetime | None) -> dict[str, str | None]:
    """Annotations that mark a pod as first to go since `now`; None takes the mark away."""
    if now is None:
        return {names.DELETION_COST_ANNOTATION: None, names.VICTIM_SINCE_ANNOTATION: None}
    return {names.DELETION_COST_ANNOTATION: _FIRST_TO_GO, names.VICTIM_SINCE_ANNOTATION: now.isoformat()}


def serve_replicas(unit: UnitView, wish: int) -> int:
    """Replicas that Ray Serve is to run: the wish, but never fewer than run on pods that stay."""
    return max(wish, len(unit.workers))


def is_settled(unit: UnitView, wish: int) -> bool:
    """Nothing moves: as many ready workers as wished, none leaving, Serve told. Such a unit is asked nothing.

    Serve that was never told anything runs none, so a unit made with no worker is settled as it is.
    """
    return (
        unit.replica_set is not None
        and unit.size == wish
        and len(unit.ready) == len(unit.workers) == wish
        and not unit.leaving
        and (unit.head is not None or wish == 0)
        and annotations_of(unit.replica_set).get(names.SERVE_REPLICAS_ANNOTATION, "0") == str(wish)
    )
