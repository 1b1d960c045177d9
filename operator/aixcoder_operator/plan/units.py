"""Which unit a revision runs in, which one is protected, and what is wished for of a revision that never ran."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from aixcoder_operator.api.defaults import Effective
from aixcoder_operator.api.objects import name
from aixcoder_operator.api.status import DeploymentStatus
from aixcoder_operator.plan import names
from aixcoder_operator.plan.observed import Observed, UnitView


def unit_of(revision: str, units: Mapping[str, UnitView]) -> UnitView:
    """The newest incarnation of `revision` with a head to live with, or the next one, which does not exist yet."""
    numbers = [names.incarnation_of(unit.name, revision) for unit in units.values() if unit.revision == revision]
    if not numbers:
        return UnitView(names.unit_name(revision, 0), revision)
    newest = units[names.unit_name(revision, max(numbers))]
    if newest.lost_its_head:
        return UnitView(names.unit_name(revision, max(numbers) + 1), revision)
    return newest


def protected(units: Mapping[str, UnitView], status: DeploymentStatus, starved: bool) -> UnitView | None:
    """The unit to protect. Where status does not tell one, what serves is protected all the same: status may be lost.

    A unit that serves nothing is not protected for ever: not where its workers cannot come back, since they lost their
    head, and not where the target gets no GPU (`starved`) while it holds some.
    """
    told = units.get(status.rollout.stable or "")
    if told is not None:
        return told if told.ready or not (starved or told.lost_its_head) else None
    ready = [unit for unit in units.values() if unit.ready]
    return max(ready, key=lambda unit: (unit.name in status.traffic.weights, len(unit.ready)), default=None)


def remembered(observed: Observed, wish: Effective) -> UnitView | None:
    """The unit that was ready last, while an autoscaled deployment has no pod of it left: nothing but its name.

    What wakes is its revision, not one that was given up.
    """
    told = observed.deployment.status.rollout.stable
    if told is None or wish.suspended or not wish.autoscaled:
        return None
    stored = (name(found) for found in observed.children.controller_revisions)
    return next((UnitView(told, found) for found in stored if names.is_unit_of(told, found)), None)


def wish_for(observed: Observed, revision: str) -> Effective:
    """What is wished for, on the way to `revision`: nothing while suspended.

    A revision that is to be autoscaled has one replica until it was ready once, whatever the load: one sees at once
    whether it works, not with the first request after a quiet night.
    """
    wish, told = observed.wish(), observed.deployment.status.rollout
    if wish.suspended:
        return replace(wish, replicas=0)
    works = told.failed == revision or names.is_unit_of(told.stable or "", revision)
    return replace(wish, replicas=max(wish.replicas, 1)) if wish.autoscaled and not works else wish
