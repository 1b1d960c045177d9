"""What stands around the operator in the simulator: objects, clock, Ray heads, gateways. None of it decides.

Time moves in ticks of one second. `World.tick` is one turn of every controller of a cluster: ReplicaSets, StatefulSets,
scheduler, kubelet, EndpointSlices, Ray Serve, gateways. A scenario bends it by the public fields: GPUs, what is wrong
with a model image, how far gateways lag.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Literal

from aixcoder_operator.api.objects import Object, annotations_of, condition, is_terminating, labels, name
from aixcoder_operator.plan import names
from aixcoder_operator.plan.observed import is_live, is_ready

Fault = Literal["pull", "crash", "stuck", "missing"]
"""Of a model image: it cannot be pulled; its replica ends at once, never gets ready, or finds no weights in it. The
last one says so for 10 of every 20 seconds; in the others its process is started again."""

GPU = "nvidia.com/gpu"
GRACE = 3
"""Ticks between a pod's deletion and its end."""


@dataclass
class Gateway:
    """One gateway pod: it acts on a traffic version some ticks after status tells it."""

    lag: int = 1
    reachable: bool = True
    version: int | None = None
    waited: int = 0


@dataclass
class RayHead:
    """What Ray Serve on one head knows. It lives and dies with the head's store."""

    config: Object | None = None
    target: int = 0


@dataclass(frozen=True)
class Departure:
    """A pod that was chosen to go, among the live ones of its unit."""

    at: datetime
    pod: Object
    staying: tuple[Object, ...]


@dataclass
class World:
    """A cluster with one AixcoderDeployment in it."""

    gpus: int = 8
    faults: dict[str, Fault] = field(default_factory=dict)
    load_ticks: int = 3
    gateways: list[Gateway] = field(default_factory=lambda: [Gateway(), Gateway(lag=2)])
    refuses: str = ""
    """Why the API server refuses new worker pods; "" where it does not."""
    busy: dict[str, int] = field(default_factory=dict)
    """Worker pod → requests that run in it."""
    now: datetime = datetime(2026, 1, 1, tzinfo=UTC)
    objects: dict[tuple[str, str], Object] = field(default_factory=dict)
    heads: dict[str, RayHead] = field(default_factory=dict)
    """Key of a head's store (pod uid, or unit where a claim keeps it) → what it holds."""
    changed: bool = False
    """Something that the operator watches changed since it last looked."""
    controllers_stand_still: bool = False
    """The controller manager is away: no pod is made or chosen to go, no EndpointSlice is written."""
    went: list[Departure] = field(default_factory=list)
    """Worker pods that the controller manager chose to go."""
    garbage: dict[str, int] = field(default_factory=dict)
    """The uid of a deleted deployment → seconds until the garbage collector takes away what it had."""
    still: int = 0
    """Ticks since anything moved."""
    serial: int = 0
    ages: dict[str, int] = field(default_factory=dict)
    """Pod uid → ticks since its last step."""

    # What scenarios and the API server do.

    def put(self, obj: Object) -> Object:
        """Store `obj`, new or in the place of one of its name; what the API server adds is kept."""
        key = (obj["kind"], name(obj))
        before = self.objects.get(key)
        stored = copy.deepcopy(obj)
        if before is None:
            self.serial += 1
            stored["metadata"] |= {"uid": f"uid-{self.serial}", "creationTimestamp": self.now.isoformat()}
            if obj["kind"] == "Pod":
                stored["status"] = {"phase": "Pending", "conditions": []}
        else:
            stored["metadata"]["annotations"] = {**annotations_of(before), **annotations_of(obj)}
            stored["metadata"] |= {key: before["metadata"][key] for key in ("uid", "creationTimestamp")}
            if "status" in before:
                stored["status"] = before["status"]
        self.objects[key] = stored
        if obj["kind"] != "Secret":
            self.changed = True
        return stored

    def annotate(self, obj: Object, marks: dict[str, str | None]) -> None:
        found = self.objects.get((obj["kind"], name(obj)))
        if found is None:
            return
        merged = {**annotations_of(found), **marks}
        found["metadata"]["annotations"] = {key: value for key, value in merged.items() if value is not None}
        self.changed = True

    def delete(self, kind: str, called: str) -> None:
        """Delete one object and, with it, what it owns. A pod ends some ticks later."""
        found = self.objects[kind, called]
        self.changed = True
        if kind == "Pod":
            if not is_terminating(found):
                found["metadata"]["deletionTimestamp"] = self.now.isoformat()
                self.ages[found["metadata"]["uid"]] = 0
            return
        del self.objects[kind, called]
        for child in self.owned_by(found["metadata"]["uid"]):
            if child["kind"] != "Pod" or not is_terminating(child):
                self.delete(child["kind"], name(child))

    def owned_by(self, uid: str) -> list[Object]:
        return [
            obj
            for obj in self.objects.values()
            if any(owner["uid"] == uid for owner in obj["metadata"].get("ownerReferences", ()))
        ]

    def of_kind(self, kind: str) -> list[Object]:
        return [obj for (found, _), obj in sorted(self.objects.items()) if found == kind]

    def pods(self, unit: str, component: str) -> list[Object]:
        return [
            pod
            for pod in self.of_kind("Pod")
            if labels(pod).get(names.UNIT_LABEL) == unit and labels(pod).get(names.COMPONENT_LABEL) == component
        ]

    def head(self, unit: str) -> Object | None:
        return next((pod for pod in self.pods(unit, names.HEAD) if is_live(pod)), None)

    def ray(self, head: Object) -> RayHead:
        """The store of a head: with the pod where it is bare, with the claim where a StatefulSet keeps it."""
        unit = labels(head)[names.UNIT_LABEL]
        key = unit if ("StatefulSet", names.head_name(unit)) in self.objects else head["metadata"]["uid"]
        return self.heads.setdefault(key, RayHead())

    def ending(self) -> bool:
        """Whether a pod is on its way out."""
        return any(is_terminating(pod) for pod in self.of_kind("Pod"))

    # One second of a cluster's life.

    def tick(self, traffic_version: int, most: int = 1) -> int:
        """Let a second pass, or up to `most` of them where nothing in the cluster moves; how many did."""
        waits = any(gateway.reachable and gateway.version != traffic_version for gateway in self.gateways)
        self.still = 0 if self.changed or waits else self.still + 1
        seconds = most if self.still > GRACE + self.load_ticks else 1
        self.now += timedelta(seconds=seconds)
        if not self.controllers_stand_still:
            self._collect_garbage()
            self._replica_sets()
            self._stateful_sets()
        for pod in self.of_kind("Pod"):
            self.ages[pod["metadata"]["uid"]] = self.ages.get(pod["metadata"]["uid"], 0) + 1
            if is_terminating(pod):
                self._ending(pod)
            elif not self._scheduled(pod):
                self._schedule(pod)
            else:
                self._run(pod)
        if not self.controllers_stand_still:
            self._endpoint_slices()
        for gateway in self.gateways:
            if gateway.reachable and gateway.version != traffic_version:
                gateway.waited += 1
                if gateway.waited > gateway.lag:
                    gateway.version, gateway.waited = traffic_version, 0
        self.still = 0 if self.changed else self.still
        return seconds

    def _collect_garbage(self) -> None:
        for uid, seconds in list(self.garbage.items()):
            self.garbage[uid] = seconds - 1
            for obj in self.owned_by(uid) if seconds <= 0 else ():
                self.delete(obj["kind"], name(obj))

    def _replica_sets(self) -> None:
        for replica_set in self.of_kind("ReplicaSet"):
            pods = [pod for pod in self.owned_by(replica_set["metadata"]["uid"]) if is_live(pod)]
            missing = replica_set["spec"]["replicas"] - len(pods)
            if missing > 0 and self.refuses:
                self._refuse(replica_set)
                continue
            for _ in range(missing):
                self._pod_of(replica_set, f"{name(replica_set)}-{self.serial:05d}")
            ordered, surplus = sorted(pods, key=_first_to_go), max(0, -missing)
            for pod in ordered[:surplus]:
                self.went.append(Departure(self.now, copy.deepcopy(pod), tuple(copy.deepcopy(ordered[surplus:]))))
                self.delete("Pod", name(pod))

    def _refuse(self, replica_set: Object) -> None:
        if condition(replica_set, "ReplicaFailure") is None:
            replica_set.setdefault("status", {"conditions": []})
            self._set(replica_set, "ReplicaFailure", "True", self.refuses)

    def _stateful_sets(self) -> None:
        for stateful_set in self.of_kind("StatefulSet"):
            called = f"{name(stateful_set)}-0"
            if ("Pod", called) not in self.objects:
                self._pod_of(stateful_set, called)

    def _pod_of(self, owner: Object, called: str) -> None:
        template = owner["spec"]["template"]
        metadata = copy.deepcopy(template["metadata"]) | {
            "name": called,
            "namespace": owner["metadata"]["namespace"],
            "ownerReferences": [{"kind": owner["kind"], "uid": owner["metadata"]["uid"], "controller": True}],
        }
        self.put({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template["spec"]})

    def _ending(self, pod: Object) -> None:
        if self.ages[pod["metadata"]["uid"]] >= GRACE and not self.busy.get(name(pod)):
            del self.objects["Pod", name(pod)]
            self.changed = True

    def _scheduled(self, pod: Object) -> bool:
        found = condition(pod, "PodScheduled")
        return found is not None and found["status"] == "True"

    def _schedule(self, pod: Object) -> None:
        taken = sum(_gpus(other) for other in self.of_kind("Pod") if self._scheduled(other))
        if taken + _gpus(pod) <= self.gpus:
            self._set(pod, "PodScheduled", "True")
        else:
            self._set(pod, "PodScheduled", "False", f"0/1 nodes are available: 1 Insufficient {GPU}.")

    def _run(self, pod: Object) -> None:
        status = pod["status"]
        if "podIP" not in status:
            status["podIP"] = f"10.0.0.{pod['metadata']['uid'].removeprefix('uid-')}"
            self._set(pod, "Ready", "False")
            return
        if labels(pod)[names.COMPONENT_LABEL] == names.HEAD:
            status["phase"] = "Running"
            self._set(pod, "Ready", "True")
            return
        match self.faults.get(image_of(pod["spec"])):
            case "pull":
                self._container(pod, "Pending", {"waiting": {"reason": "ImagePullBackOff", "message": "not found"}})
            case "crash":
                ended = {"exitCode": 1, "message": "Traceback\nValueError: bad weights\n"}
                self._container(pod, "Running", {"waiting": {"reason": "CrashLoopBackOff"}}, {"terminated": ended})
                self._set(pod, "Ready", "False")
            case "stuck" | "missing":
                self._container(pod, "Running", {"running": {}})
            case None:
                self._container(pod, "Running", {"running": {}})
                if not is_ready(pod) and self._may_start(pod) and self.ages[pod["metadata"]["uid"]] >= self.load_ticks:
                    self._set(pod, "Ready", "True")

    def _may_start(self, pod: Object) -> bool:
        """Ray Serve starts as many replicas as it was told, and none without a head."""
        unit = labels(pod)[names.UNIT_LABEL]
        head = self.head(unit)
        if head is None or not is_ready(head):
            return False
        running = sum(is_ready(other) for other in self.pods(unit, names.WORKER))
        return running < self.ray(head).target

    def _container(self, pod: Object, phase: str, state: Object, last: Object | None = None) -> None:
        status = {"name": "worker", "state": state, "lastState": last or {}}
        if pod["status"].get("containerStatuses") != [status]:
            pod["status"] |= {"phase": phase, "containerStatuses": [status]}
            self.changed = True

    def _set(self, pod: Object, type_: str, status: str, message: str = "") -> None:
        found = condition(pod, type_)
        if found is not None and found["status"] == status:
            return
        others = [entry for entry in pod["status"]["conditions"] if entry["type"] != type_]
        entry = {"type": type_, "status": status, "message": message, "lastTransitionTime": self.now.isoformat()}
        pod["status"]["conditions"] = [*others, entry]
        self.ages[pod["metadata"]["uid"]] = 0
        self.changed = True

    def unready(self, pod: Object) -> None:
        """Its replica's process is gone; Ray Serve starts it again."""
        self._set(pod, "Ready", "False")

    def _endpoint_slices(self) -> None:
        for service in self.of_kind("Service"):
            unit = labels(service)[names.UNIT_LABEL]
            if name(service) != unit:
                continue
            endpoints = [
                {"addresses": [pod["status"]["podIP"]], "conditions": {"ready": is_ready(pod)}}
                for pod in self.pods(unit, names.WORKER)
                if "podIP" in pod["status"]
            ]
            piece = {
                "apiVersion": "discovery.k8s.io/v1",
                "kind": "EndpointSlice",
                "metadata": {
                    "name": f"{unit}-slice",
                    "labels": {**labels(service), "kubernetes.io/service-name": unit},
                    "ownerReferences": [{"kind": "Service", "uid": service["metadata"]["uid"]}],
                },
                "endpoints": endpoints,
            }
            before = self.objects.get(("EndpointSlice", f"{unit}-slice"))
            if before is None or before["endpoints"] != endpoints:
                self.put(piece)


def image_of(pod_spec: Object) -> str:
    """The reference of the model image that a worker mounts."""
    return str(next(volume["image"]["reference"] for volume in pod_spec["volumes"] if "image" in volume))


def _gpus(pod: Object) -> int:
    return sum(int(container["resources"]["limits"].get(GPU, 0)) for container in pod["spec"]["containers"])


def _first_to_go(pod: Object) -> tuple[bool, bool, int, str]:
    """The ReplicaSet controller's order: without a node, not ready, lower deletion cost, younger."""
    scheduled = (condition(pod, "PodScheduled") or {}).get("status") == "True"
    cost = int(annotations_of(pod).get(names.DELETION_COST_ANNOTATION, "0"))
    return (scheduled, is_ready(pod), cost, "".join(chr(255 - ord(letter)) for letter in name(pod)))
