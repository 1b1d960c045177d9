"""Runs `questions` and `plan` against a `World` as `reconcile` does, and writes down each step it can tell apart."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

from aixcoder_operator.api.deployment import RESTART_ANNOTATION, read
from aixcoder_operator.api.names import APPLIED_ANNOTATION
from aixcoder_operator.api.objects import Object, annotations_of, is_terminating, key, name, owner_uids
from aixcoder_operator.api.status import AutoscalingStatus, ConditionType, ScalingDecision
from aixcoder_operator.cluster.compare import digest, first_difference, stamped
from aixcoder_operator.plan import names
from aixcoder_operator.plan.deployment_children import Tokens
from aixcoder_operator.plan.events import Event
from aixcoder_operator.plan.observed import Observed, is_live, is_ready
from aixcoder_operator.plan.plan import Plan, plan, questions
from aixcoder_operator.plan.platform import Platform
from tests.unit.plan import answers, invariants
from tests.unit.plan.world import World

PLATFORM = Platform(
    serving_image="aixcoder/serving:1",
    operator_namespace="aixcoder-system",
    gateway_namespace="aixcoder-system",
    gateway_url="http://aixcoder-gateway.aixcoder-system.svc.cluster.local/v1",
)
TOKENS = Tokens(ray="0" * 64, replica="1" * 64)


def spec_of(model: str = "a", **fields: Any) -> Object:
    """A spec that serves the model image "models/<model>:1"; `fields` are further ones, as in YAML."""
    spec: Object = {
        "model": {"source": {"image": {"reference": f"models/{model}:1"}}},
        "engine": {"device": "cuda"},
        "resources": {"gpu": {}},
    }
    return spec | fields


@dataclass
class Simulator:
    """One deployment, its world, and the operator that looks when something changed or when it asked to."""

    world: World = field(default_factory=World)
    platform: Platform = PLATFORM
    tokens: Tokens = TOKENS
    name_taken_by: str | None = None
    decided: AutoscalingStatus | None = None
    """What the operator's scaling has decided; it forgets with the process."""
    resource: Object = field(default_factory=dict)
    due: datetime | None = None
    steps: list[str] = field(default_factory=list)
    told: list[Event] = field(default_factory=list)
    writes: int = 0
    waiting: bool = False
    """An object of a name that is wished for has to go first."""
    lost_heads: set[str] = field(default_factory=set)
    """Units that had workers when their head, of which nothing is kept, went."""
    traffic_of_version: dict[int, dict[str, int]] = field(default_factory=lambda: {0: {}})

    # What people do.

    def create(self, called: str = "demo", **spec: Any) -> None:
        self.resource = {
            "apiVersion": "serving.aixcoder.io/v1alpha1",
            "kind": "AixcoderDeployment",
            "metadata": {"name": called, "namespace": "team", "uid": "uid-of-it", "generation": 1, "annotations": {}},
            "spec": spec_of(**spec),
            "status": {"observedGeneration": -1},
        }
        self.world.changed = True

    def change(self, **spec: Any) -> None:
        """Write other fields into the spec; `model` names another model image."""
        model = spec.pop("model", None)
        if model is not None:
            spec["model"] = {"source": {"image": {"reference": f"models/{model}:1"}}}
        self.resource["spec"] |= spec
        self.resource["metadata"]["generation"] += 1
        self.world.changed = True

    def restart(self, value: str | None) -> None:
        annotations = self.resource["metadata"]["annotations"]
        annotations.pop(RESTART_ANNOTATION, None)
        if value is not None:
            annotations[RESTART_ANNOTATION] = value
        self.world.changed = True

    def recreate(self, garbage_lag: int = 0, **spec: Any) -> None:
        """Delete the deployment and create another one of its name. What it had is deleted `garbage_lag` s later."""
        self.world.garbage[self.resource["metadata"]["uid"]] = garbage_lag
        uid = f"{self.resource['metadata']['uid']}-again"
        self.create(self.resource["metadata"]["name"], **spec)
        self.resource["metadata"]["uid"] = uid
        self.traffic_of_version = {0: {}}
        for gateway in self.world.gateways:
            gateway.version = None

    def lose_head(self, unit: str | None = None) -> None:
        """Somebody deletes the head pod of `unit`, or of the one with the traffic."""
        head = self.world.head(unit or self.serving())
        assert head is not None
        self.world.delete("Pod", name(head))

    def lose_status(self) -> None:
        """A backup was restored without it. Gateways act on what they last saw until they see another version."""
        self.resource["status"] = {"observedGeneration": -1}
        self.world.changed = True

    # What the operator does.

    def scale(self, replicas: int, reason: str = "so many are needed") -> None:
        """Its scaling decides for another number."""
        at = ScalingDecision(time=self.world.now, reason=reason)
        self.decided = AutoscalingStatus(desired=replicas, last_decision=at)
        self.world.changed = True

    def start_again(self) -> None:
        """Another process leads; it looks at everything once."""
        self.decided, self.world.changed = None, True

    def look(self) -> Plan:
        """One reconcile."""
        self._notice_lost_heads()
        seen = self._ask(self.observed())
        made = plan(seen, self.platform, self.tokens)
        invariants.check_plan(self, seen, made)
        self.waiting = False
        self.told += made.events
        self._apply(made)
        for pod, marks in made.annotate:
            self.world.annotate(pod, marks)
        self._tell_serve(made)
        status = made.status.model_dump(mode="json", by_alias=True, exclude_none=True)
        if status != self.resource["status"]:
            invariants.check_status(self.resource["status"], status)
            self.resource["status"] = status
            self.traffic_of_version[made.status.traffic.version] = dict(made.status.traffic.weights)
            self.writes += 1
            self.world.changed = True
        self.due = None
        again = 1.0 if self.waiting else made.requeue_after
        if again is not None:
            self.due = self.world.now + timedelta(seconds=again)
        self._write_down(made)
        return made

    def run(self, seconds: int = 2000) -> list[str]:
        """Let time pass until nothing is in progress, `seconds` at most; the steps seen."""
        before, end = len(self.steps), self.world.now + timedelta(seconds=seconds)
        while self.world.now < end and (self.world.changed or self.due is not None or self.world.ending()):
            self._second(end)
        return self.steps[before:]

    def wait(self, seconds: int) -> list[str]:
        """Let `seconds` pass, whether or not something is in progress; the steps seen."""
        before, end = len(self.steps), self.world.now + timedelta(seconds=seconds)
        while self.world.now < end:
            self._second(end)
        return self.steps[before:]

    def _second(self, end: datetime) -> None:
        if self.world.changed or (self.due is not None and self.world.now >= self.due):
            self.world.changed = False
            self.look()
        most = (min(self.due or end, end) - self.world.now) // timedelta(seconds=1)
        self.world.tick(self.resource["status"].get("traffic", {}).get("version", 0), max(1, most))

    def _ask(self, observed: Observed) -> Observed:
        wanted = questions(observed, self.platform)
        world = self.world
        return replace(
            observed,
            serve={unit.name: answers.serve_of(world, unit.head) for unit in wanted.serve if unit.head is not None},
            replicas={name(pod): answers.replica(world, pod) for pod in wanted.replicas if "podIP" in pod["status"]},
            gateways=answers.gateways(world, observed.deployment) if wanted.gateways else None,
        )

    def _apply(self, made: Plan) -> None:
        objects = self.world.objects
        for obj in made.objects:
            found = objects.get((obj["kind"], name(obj)))
            if obj["kind"] != "Secret" and found is not None:
                if owner_uids(found) != owner_uids(obj):
                    self.waiting = True
                    continue
                if is_terminating(found) or annotations_of(found)[APPLIED_ANNOTATION] == digest(obj):
                    continue
                assert obj["kind"] != "Pod", f"a pod's fields are immutable: {first_difference(obj, found)}"
                if obj["kind"] == "ControllerRevision":
                    assert obj["data"] == found["data"], "the data of a ControllerRevision are immutable"
            invariants.check_write(self, obj)
            self.world.put(stamped(obj))
            self.writes += 1
        wanted = {key(obj) for obj in (*made.objects, *made.kept)}
        for obj in self.world.owned_by(self.resource["metadata"]["uid"]):
            if key(obj) not in wanted and obj["kind"] != "Secret" and not is_terminating(obj):
                self.world.delete(obj["kind"], name(obj))
                self.writes += 1

    def _tell_serve(self, made: Plan) -> None:
        for order in made.serve:
            assert order.unit.head is not None
            ray = self.world.ray(order.unit.head)
            if order.put is not None:
                ray.config = order.put.model_dump(mode="json", exclude_none=True)
            assert ray.config is not None, "a count for an application that was never deployed"
            live = [pod for pod in self.world.pods(order.unit.name, names.WORKER) if is_ready(pod)]
            assert order.replicas >= len(live), "Serve would stop a replica on a pod that stays"
            ray.target = order.replicas
            replica_set = order.unit.replica_set
            assert replica_set is not None
            told = str(order.replicas)
            if annotations_of(replica_set).get(names.SERVE_REPLICAS_ANNOTATION) != told:
                self.world.annotate(replica_set, {names.SERVE_REPLICAS_ANNOTATION: told})

    # What is told of it.

    def observed(self) -> Observed:
        """What the operator sees now without asking anybody."""
        resource = read(copy.deepcopy(self.resource))
        children = answers.children(self.world, self.resource["metadata"]["uid"])
        return Observed(resource, self.world.now, children, name_taken_by=self.name_taken_by, autoscaling=self.decided)

    def condition(self, type_: ConditionType) -> str:
        """Reason and message of a condition that holds, "" where it does not."""
        found = read(self.resource).status.condition(type_)
        return f"{found.reason}: {found.message}" if found and found.status == "True" else ""

    def serving(self) -> str:
        """The unit with the traffic."""
        return str(next(iter(self.resource["status"]["traffic"]["weights"])))

    def alias(self, unit: str) -> str:
        """A unit as a letter of its model, the value of its restart, and the number of its incarnation."""
        for revision in self.world.of_kind("ControllerRevision"):
            if names.is_unit_of(unit, name(revision)):
                reference: str = revision["data"]["spec"]["model"]["source"]["image"]["reference"]
                letter = reference.removeprefix("models/").removesuffix(":1").upper()
                restart: str = revision["data"]["restart"]
                number = names.incarnation_of(unit, name(revision))
                return letter + (f"+{restart}" if restart else "") + (f"-{number}" if number else "")
        return "?"

    def picture(self, made: Plan) -> str:
        """What is there, as one line: its units, then what the conditions say.

        `A* 2/3` is unit A, which has the traffic (`*`) and 2 of 3 worker pods ready; `!` has no head. Only where there
        is something to tell: pods marked to go first, and the count that Ray Serve was told where it is another.
        """
        units = []
        for replica_set in self.world.of_kind("ReplicaSet"):
            unit, size, head = name(replica_set), replica_set["spec"]["replicas"], self.world.head(name(replica_set))
            workers = self.world.pods(unit, names.WORKER)
            marked = sum(names.VICTIM_SINCE_ANNOTATION in annotations_of(pod) for pod in workers if is_live(pod))
            line = f"{self.alias(unit)}{'*' if unit in made.status.traffic.weights else ''}{'' if head else '!'}"
            line += f" {sum(map(is_ready, workers))}/{size}" + (f" marked {marked}" if marked else "")
            if head is not None and self.world.ray(head).target != size:
                line += f" serve {self.world.ray(head).target}"
            units.append(line)
        told = {found.type: found for found in made.status.conditions}
        ready_ = told["Ready"]
        words = [f"{'Ready' if ready_.status == 'True' else 'NotReady'} {ready_.reason}"]
        words += ["Reconciling"] if "Reconciling" in told else []
        words += [f"Stalled {told['Stalled'].reason}"] if "Stalled" in told else []
        words += ["Invalid"] if told["Valid"].status == "False" else []
        return " | ".join([", ".join(sorted(units)) or "nothing", *words])

    def _write_down(self, made: Plan) -> None:
        line = self.picture(made)
        if not self.steps or self.steps[-1] != line:
            self.steps.append(line)

    def _notice_lost_heads(self) -> None:
        for replica_set in self.world.of_kind("ReplicaSet"):
            unit = name(replica_set)
            if self.world.head(unit) is None and ("StatefulSet", names.head_name(unit)) not in self.world.objects:
                self.lost_heads.add(replica_set["metadata"]["uid"])

    def workers(self, unit: str | None = None) -> list[Object]:
        """Live worker pods of `unit`, or of the one with the traffic."""
        return [pod for pod in self.world.pods(unit or self.serving(), names.WORKER) if is_live(pod)]
