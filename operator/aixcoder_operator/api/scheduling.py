"""`spec.scheduling`: which nodes the pods may run on, in the words of a pod."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from aixcoder_operator.api.base import Kube, Part, rule, ruled
from aixcoder_operator.api.values import ObjectName, QualifiedName

LabelValue = Annotated[str, Field(max_length=63)]

LABEL_RULES = (
    rule(
        "self.all(key, !format.qualifiedName().validate(key).hasValue())",
        "write label keys as an optional DNS prefix and '/', then at most 63 letters, digits, '-', '_' and '.'",
    ),
    rule(
        "self.all(key, !format.labelValue().validate(self[key]).hasValue())",
        "write label values of at most 63 letters, digits, '-', '_' and '.', a letter or digit at both ends",
    ),
)


class Toleration(Part):
    """Lets a pod run on a node with a matching taint; as in a pod."""

    model_config = ruled(
        rule(
            "has(self.key) || (has(self.operator) && self.operator == 'Exists')",
            "a toleration without a key matches every taint: say so with operator Exists, or give the key",
        ),
        rule(
            "!(has(self.operator) && self.operator == 'Exists' && has(self.value))",
            "operator Exists takes no value: leave value out or use operator Equal",
        ),
        rule(
            "!has(self.tolerationSeconds) || (has(self.effect) && self.effect == 'NoExecute')",
            "tolerationSeconds goes with effect NoExecute only",
        ),
    )

    key: QualifiedName | None = Field(
        default=None, description="Taint key, as nvidia.com/gpu. Absent with operator Exists: all."
    )
    operator: Literal["Exists", "Equal"] | None = Field(
        default=None, description="Exists matches any value of the key; Equal (the default) matches the given one."
    )
    value: LabelValue | None = Field(default=None, description="Taint value that operator Equal matches.")
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = Field(
        default=None, description="Taint effect to match. Absent: every effect."
    )
    toleration_seconds: Annotated[int, Field(ge=0, le=2**31 - 1)] | None = Field(
        default=None, description="With NoExecute: seconds a pod stays after the taint appeared. Absent: for ever."
    )


class TopologySpreadConstraint(Part):
    """Spreads the worker pods over zones or nodes; as in a pod."""

    model_config = ruled(
        rule(
            "!has(self.minDomains) || self.whenUnsatisfiable == 'DoNotSchedule'",
            "minDomains goes with whenUnsatisfiable DoNotSchedule only",
        )
    )

    max_skew: Annotated[int, Field(ge=1, le=1000)] = Field(
        description="Most by which the number of pods in two domains may differ."
    )
    topology_key: QualifiedName = Field(
        description="Node label whose values are the domains, as topology.kubernetes.io/zone or kubernetes.io/hostname."
    )
    when_unsatisfiable: Literal["DoNotSchedule", "ScheduleAnyway"] = Field(
        description=(
            "DoNotSchedule leaves a pod waiting where the skew would be passed; ScheduleAnyway only prefers not to."
        )
    )
    label_selector: dict[str, Any] | None = Field(
        default=None,
        description="Pods that are counted, as a label selector. Absent: the workers of the same revision.",
    )
    min_domains: Annotated[int, Field(ge=1, le=1000)] | None = Field(
        default=None, description="Domains that must exist before the skew counts; with DoNotSchedule only."
    )
    match_label_keys: Annotated[tuple[QualifiedName, ...], Field(max_length=16)] = Field(
        default=(), description="Pod label keys whose values are added to the selector."
    )
    node_affinity_policy: Literal["Honor", "Ignore"] | None = Field(
        default=None,
        description=(
            "Whether nodes that affinity and nodeSelector rule out are counted: Honor (not; default) or Ignore."
        ),
    )
    node_taints_policy: Literal["Honor", "Ignore"] | None = Field(
        default=None,
        description="Whether nodes with taints not tolerated are counted: Honor (not) or Ignore (yes; default).",
    )


class Affinity(Part):
    """Rules of attraction to nodes and pods; the three blocks are passed on to the pods as they are."""

    node_affinity: dict[str, Any] | None = Field(
        default=None,
        description=(
            "Nodes that are required or preferred, as in a pod's affinity.nodeAffinity (kubectl explain "
            "pod.spec.affinity)."
        ),
    )
    pod_affinity: dict[str, Any] | None = Field(
        default=None, description="Pods to be near to, as in a pod's affinity.podAffinity."
    )
    pod_anti_affinity: dict[str, Any] | None = Field(
        default=None, description="Pods to be away from, as in a pod's affinity.podAntiAffinity."
    )


class Scheduling(Part):
    """Where the worker pods may run. nodeSelector, tolerations, affinity and the classes are passed on as they are."""

    node_selector: Annotated[dict[str, LabelValue], Field(max_length=32), Kube(rules=LABEL_RULES)] = Field(
        default={}, description="Labels that a worker's node must have, as nvidia.com/gpu.product: NVIDIA-H200."
    )
    tolerations: Annotated[tuple[Toleration, ...], Field(max_length=32)] = Field(
        default=(), description="Taints of GPU nodes that the worker pods tolerate."
    )
    affinity: Affinity | None = Field(
        default=None, description="Affinity of the worker pods to nodes and to other pods."
    )
    topology_spread_constraints: Annotated[
        tuple[TopologySpreadConstraint, ...],
        Field(max_length=16),
        Kube(map_keys=("topologyKey", "whenUnsatisfiable")),
    ] = Field(default=(), description="How the worker pods are spread over zones and nodes.")
    priority_class_name: ObjectName | None = Field(
        default=None, description="PriorityClass of head and worker pods. Absent: the cluster's default."
    )
    scheduler_name: ObjectName | None = Field(
        default=None, description="Scheduler that places the worker pods. Absent: the cluster's default scheduler."
    )
    runtime_class_name: ObjectName | None = Field(
        default=None,
        description="RuntimeClass of the worker pods, as nvidia where the container runtime needs it for GPUs.",
    )
