"""Resources for the tables: one that is right, one that uses every field, and how to change one."""

import copy
from typing import Any

Resource = dict[str, Any]


def minimal(name: str = "sample") -> Resource:
    """The least that is accepted."""
    return {
        "apiVersion": "serving.aixcoder.io/v1alpha1",
        "kind": "AixcoderDeployment",
        "metadata": {"name": name},
        "spec": {"model": {"source": {"image": {"reference": "registry.example/m:1"}}}, "resources": {"gpu": {}}},
    }


def full(name: str = "sample") -> Resource:
    """Every field of the spec, each with a value of its own."""
    spec = {
        "model": {
            "variant": "aixcoder-7b-base",
            "servedName": "team/aixcoder-7b:base",
            "source": {"persistentVolumeClaim": {"claimName": "weights.v1", "path": "models/aixcoder-7b"}},
        },
        "engine": {
            "device": "cuda",
            "dtype": "float16",
            "tensorParallelSize": 2,
            "maxModelLength": 8192,
            "maxConcurrentSequences": 32,
        },
        "replicas": 3,
        "resources": {"cpu": 4, "memory": "24Gi", "gpu": {"resourceName": "nvidia.com/mig-3g.40gb"}},
        "scheduling": {
            "nodeSelector": {"nvidia.com/gpu.product": "NVIDIA-H200", "pool": ""},
            "tolerations": [
                {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"},
                {"key": "team", "operator": "Equal", "value": "a", "effect": "NoExecute", "tolerationSeconds": 60},
                {"operator": "Exists"},
            ],
            "affinity": {
                "nodeAffinity": {
                    "requiredDuringSchedulingIgnoredDuringExecution": {
                        "nodeSelectorTerms": [{"matchExpressions": [{"key": "gpu", "operator": "Gt", "values": ["1"]}]}]
                    }
                },
                "podAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": []},
                "podAntiAffinity": {
                    "requiredDuringSchedulingIgnoredDuringExecution": [
                        {"topologyKey": "kubernetes.io/hostname", "labelSelector": {"matchLabels": {"app": "loud"}}}
                    ]
                },
            },
            "topologySpreadConstraints": [
                {
                    "maxSkew": 1,
                    "topologyKey": "topology.kubernetes.io/zone",
                    "whenUnsatisfiable": "DoNotSchedule",
                    "labelSelector": {"matchLabels": {"app": "x"}},
                    "minDomains": 2,
                    "matchLabelKeys": ["pod-template-hash"],
                    "nodeAffinityPolicy": "Honor",
                    "nodeTaintsPolicy": "Ignore",
                }
            ],
            "priorityClassName": "high",
            "schedulerName": "batch-scheduler",
            "runtimeClassName": "nvidia",
        },
        "worker": {
            "labels": {"example.com/cost-centre": "42"},
            "annotations": {"example.com/note": "free text: any, even with spaces"},
            "env": [
                {"name": "HTTPS_PROXY", "value": "http://proxy.example:3128"},
                {"name": "TOKEN", "valueFrom": {"secretKeyRef": {"name": "token", "key": "value"}}},
                {"name": "REGION", "valueFrom": {"configMapKeyRef": {"name": "site", "key": "region"}}},
                {"name": "NODE", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}},
                {"name": "MEMORY", "valueFrom": {"resourceFieldRef": {"resource": "limits.memory"}}},
            ],
            "volumes": [
                {"name": "certificates", "configMap": {"name": "ca", "items": [{"key": "ca", "path": "ca.crt"}]}},
                {"name": "scratch", "emptyDir": {"sizeLimit": "1Gi"}},
                {"name": "credentials", "secret": {"secretName": "credentials"}},
                {"name": "both", "projected": {"sources": [{"secret": {"name": "credentials"}}]}},
                {"name": "about", "downwardAPI": {"items": []}},
                {"name": "shared", "persistentVolumeClaim": {"claimName": "shared", "readOnly": True}},
                {"name": "fast", "ephemeral": {"volumeClaimTemplate": {"spec": {"accessModes": ["ReadWriteOnce"]}}}},
                {"name": "vault", "csi": {"driver": "secrets.example", "readOnly": True}},
                {"name": "home", "nfs": {"server": "nfs.example", "path": "/home"}},
                {"name": "plugins", "image": {"reference": "registry.example/plugins:1"}},
                {"name": "logs", "hostPath": {"path": "/var/log"}},
            ],
            "volumeMounts": [
                {"name": "certificates", "mountPath": "/etc/ssl/company", "subPath": "ca.crt", "readOnly": True},
                {"name": "scratch", "mountPath": "/mnt/scratch"},
            ],
            "imagePullSecrets": [{"name": "registry-credentials"}],
        },
        "head": {"resources": {"cpu": "500m", "memory": "2Gi"}, "storageClassName": "standard"},
        "completion": {"maxTokens": 128, "temperature": 0.2},
        "rollout": {"progressDeadlineSeconds": 900, "schedulingDeadlineSeconds": 300, "revisionHistoryLimit": 5},
        "suspend": False,
    }
    return minimal(name) | {"spec": spec}


def autoscaled(name: str = "sample") -> Resource:
    """Every field of the spec, but that the operator chooses the number of replicas."""
    made = full(name)
    del made["spec"]["replicas"]
    made["spec"]["autoscaling"] = {
        "minReplicas": 0,
        "maxReplicas": 8,
        "queueTimeTargetMs": 300,
        "scaleUp": {"replicas": 4, "periodSeconds": 60},
        "scaleDown": {"replicas": 1, "periodSeconds": 120},
        "scaleToZeroAfterSeconds": 900,
        "keepHead": False,
        "schedule": [
            {"start": "30 7 * * MON-FRI", "end": "0 20 * * MON-FRI", "timeZone": "Europe/Berlin", "minReplicas": 2}
        ],
    }
    return made


def largest(name: str = "sample") -> Resource:
    """As many entries as the bounds allow in every list and map, with long names: what the rules cost most for."""
    label = f"{'d' * 60}.example/{'k' * 60}"
    made = autoscaled(name)
    spec = made["spec"]
    minutes = ",".join(f"{i}-59" for i in range(10, 17))
    entry = {"start": f"{minutes} 0-23 1-31 *", "timeZone": "America/Argentina/ComodRivadavia", "minReplicas": 8}
    moments = [f"{entry['start']} {day}" for day in ("*", "SUN-SAT")]
    spec["autoscaling"]["schedule"] = [entry | {"start": moments[0], "end": moments[1]}] * 16
    labels = {f"{label}{i:02}": "v" * 63 for i in range(32)}
    spec["scheduling"] |= {
        "nodeSelector": labels,
        "tolerations": [{"key": f"{label}{i:02}", "value": "v" * 63} for i in range(32)],
        "topologySpreadConstraints": [
            {
                "maxSkew": 1,
                "topologyKey": f"{label}{i:02}",
                "whenUnsatisfiable": "DoNotSchedule",
                "matchLabelKeys": list(labels)[:16],
            }
            for i in range(16)
        ],
    }
    spec["worker"] = {
        "labels": labels,
        "annotations": dict.fromkeys(labels, "v" * 4096),
        "env": [{"name": "N" * 250 + f"{i:02}", "value": "v" * 4096} for i in range(64)],
        "volumes": [{"name": "v" * 60 + f"{i:02}", "emptyDir": {}} for i in range(32)],
        # The last volume each time: the search for it is the longest.
        "volumeMounts": [{"name": "v" * 60 + "31", "mountPath": "/" + "p" * 500 + f"{i:02}"} for i in range(32)],
        "imagePullSecrets": [{"name": "s" * 250 + f"{i:02}"} for i in range(16)],
    }
    return made


def changed(resource: Resource, path: str, value: Any) -> Resource:
    """A copy of `resource` with `value` at `path` ("spec.worker.env"); blocks on the way are made where missing.

    `REMOVED` takes the field out.
    """
    made = copy.deepcopy(resource)
    *steps, last = path.split(".")
    node = made
    for step in steps:
        node = node.setdefault(step, {})
    if value is REMOVED:
        del node[last]
    else:
        node[last] = value
    return made


REMOVED: Any = object()
