"""What holds at every look of the operator, whatever happens. Checked by the simulator itself, in every scenario."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from aixcoder_operator.api.objects import Object, key, labels, name
from aixcoder_operator.cluster.compare import first_difference
from aixcoder_operator.plan import names
from aixcoder_operator.plan.observed import Observed, is_ready
from aixcoder_operator.plan.plan import Plan, Questions, plan, questions

if TYPE_CHECKING:
    from tests.unit.plan.simulator import Simulator


def check_plan(simulator: Simulator, seen: Observed, made: Plan) -> None:
    """Of one plan, before it is carried out."""
    assert plan(seen, simulator.platform, simulator.tokens) == made, "the same sight gives the same plan"
    weights = made.status.traffic.weights
    assert sum(weights.values()) == (100 if weights else 0)
    assert len(weights) <= 1
    wanted = {name(obj) for obj in (*made.objects, *made.kept) if obj["kind"] == "Service"}
    assert set(weights) <= wanted, "requests go to a unit that is there"
    _heads_before_workers(made)
    _within_bounds(simulator, seen, made)
    _nobody_is_cut_off(simulator, seen, made)


def _heads_before_workers(made: Plan) -> None:
    """A crash between two writes must not leave workers without a head: that would look like a lost one."""
    order = [(obj["kind"], labels(obj).get(names.UNIT_LABEL)) for obj in made.objects]
    for index, (kind, unit) in enumerate(order):
        if kind in ("Pod", "StatefulSet"):
            assert ("ReplicaSet", unit) not in order[:index]


def _within_bounds(simulator: Simulator, seen: Observed, made: Plan) -> None:
    """Nobody has more pods made for it than it may have; what has more already goes its own way."""
    autoscaling = seen.deployment.spec.autoscaling
    if autoscaling is None:
        assert made.status.autoscaling is None
        return
    assert made.status.autoscaling == (seen.autoscaling or seen.deployment.status.autoscaling)
    for obj in made.objects:
        if obj["kind"] == "ReplicaSet":
            found = simulator.world.objects.get(key(obj))
            before = found["spec"]["replicas"] if found else 0
            assert obj["spec"]["replicas"] <= max(autoscaling.max_replicas, before)


def _nobody_is_cut_off(simulator: Simulator, seen: Observed, made: Plan) -> None:
    """A unit to which status or any gateway sends keeps its ready workers, but for those that are not wished for."""
    wish = seen.wish()
    acted_on = [simulator.traffic_of_version[gateway.version or 0] for gateway in simulator.world.gateways]
    used = {unit for weights in (*acted_on, made.status.traffic.weights) for unit in weights}
    sizes = {name(obj): obj["spec"]["replicas"] for obj in made.objects if obj["kind"] == "ReplicaSet"}
    for replica_set in simulator.world.of_kind("ReplicaSet"):
        unit = name(replica_set)
        ready = [pod for pod in simulator.world.pods(unit, names.WORKER) if is_ready(pod)]
        kept = any(key(obj) == ("ReplicaSet", unit) for obj in made.kept)
        if unit in used and ready and not kept:
            floor = min(len(ready), replica_set["spec"]["replicas"], 0 if wish.suspended else wish.replicas)
            assert sizes.get(unit, 0) >= floor, f"{simulator.alias(unit)} still gets requests"


def check_steady(simulator: Simulator) -> None:
    """Nothing is in progress: nobody is asked, nothing is written, nothing is told, no other look is wished for."""
    seen = simulator.observed()
    assert questions(seen, simulator.platform) == Questions()
    made = plan(seen, simulator.platform, simulator.tokens)
    for obj in made.objects:
        found = simulator.world.objects.get((obj["kind"], name(obj)))
        assert found is not None, f"{obj['kind']} {name(obj)} is missing"
        assert first_difference(obj, found) is None
    known = {key(obj) for obj in (*made.objects, *made.kept)}
    owned = {key(obj) for obj in simulator.world.owned_by(simulator.resource["metadata"]["uid"])}
    assert owned - {("Secret", f"{seen.deployment.metadata.name}-tokens")} == known
    assert (made.annotate, made.serve, made.events, made.requeue_after) == ((), (), (), None)
    assert made.status.model_dump(mode="json", by_alias=True, exclude_none=True) == simulator.resource["status"]


def check_write(simulator: Simulator, obj: Object) -> None:
    """Of one object that is written."""
    unit = labels(obj).get(names.UNIT_LABEL, "")
    if obj["kind"] in ("Pod", "StatefulSet"):
        workers = simulator.world.objects.get(("ReplicaSet", unit))
        lost = workers is not None and workers["metadata"]["uid"] in simulator.lost_heads
        assert not lost, f"a head with an empty store would end the workers of {simulator.alias(unit)}"


def check_status(before: dict[str, Any], after: dict[str, Any]) -> None:
    """Of two statuses, one written after the other: the contract of kstatus, and of the gateways."""
    told = {found["type"]: found for found in after["conditions"]}
    assert {"Ready", "Valid"} <= set(told)
    assert not {"Reconciling", "Stalled"} <= set(told)
    assert all(told[type_]["status"] == "True" for type_ in ("Reconciling", "Stalled") if type_ in told)
    assert {found["observedGeneration"] for found in told.values()} == {after["observedGeneration"]}
    assert all(found["reason"] and found["message"] for found in told.values())
    assert after["observedGeneration"] >= before["observedGeneration"]
    was, now = before.get("traffic", {"version": 0, "weights": {}}), after["traffic"]
    assert now["version"] == was["version"] + (now["weights"] != was["weights"])
