"""Renders the chart with the real helm program."""

import functools
import json
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from e2e.cluster.programs import kubernetes_programs

CHART = Path(__file__).parents[3] / "helm" / "aixcoder"
Object = dict[str, Any]


def helm(*arguments: str, values: Object | None = None) -> subprocess.CompletedProcess[str]:
    """Run helm; `values` become a values file. Does not raise on a failure."""
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        json.dump(values or {}, file)
        file.flush()
        command = [str(kubernetes_programs() / "helm"), *arguments]
        if values is not None:
            command += ["--values", file.name]
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


def template(values: Object | None = None, *, release: str = "aixcoder", namespace: str = "platform") -> str:
    """What `helm template` prints. AssertionError with its message where it fails."""
    done = helm("template", release, str(CHART), "--namespace", namespace, values=values or {})
    assert done.returncode == 0, done.stderr
    return done.stdout


@functools.cache
def _rendered(values: str, release: str, namespace: str) -> str:
    return template(json.loads(values), release=release, namespace=namespace)


def objects(values: Object | None = None, *, release: str = "aixcoder", namespace: str = "platform") -> list[Object]:
    """The rendered objects, hooks and tests among them. Each set of values is rendered once."""
    text = _rendered(json.dumps(values or {}, sort_keys=True), release, namespace)
    return [document for document in yaml.load_all(text, Loader=yaml.CSafeLoader) if document]


def refusal(values: Object) -> str:
    """What helm says where the schema refuses the values. AssertionError where it does not."""
    done = helm("template", "aixcoder", str(CHART), values=values)
    assert done.returncode != 0, "these values should be refused"
    return done.stderr


def find(rendered: list[Object], kind: str, name: str) -> Object:
    """The one object of a kind and a name."""
    [found] = [o for o in rendered if o["kind"] == kind and o["metadata"]["name"] == name]
    return found


def pod_templates(rendered: list[Object]) -> dict[str, Object]:
    """{kind/name: pod template (metadata, spec)} of everything that makes a pod, and of pods."""
    pods = {}
    for o in rendered:
        name = f"{o['kind']}/{o['metadata']['name']}"
        if o["kind"] == "Pod":
            pods[name] = {"metadata": o["metadata"], "spec": o["spec"]}
        elif "template" in o.get("spec", {}):
            pods[name] = o["spec"]["template"]
    return pods


def images(rendered: list[Object]) -> Iterator[str]:
    """Every image that a rendered object names, what the operator's settings tell it to run included."""
    for pod in pod_templates(rendered).values():
        for kind in ("containers", "initContainers"):
            yield from (container["image"] for container in pod["spec"].get(kind, []))
    for o in rendered:
        if o["kind"] == "ConfigMap" and "operator.yaml" in o["data"]:
            yield yaml.safe_load(o["data"]["operator.yaml"])["servingImage"]


def rules(rendered: list[Object]) -> Iterator[tuple[str, Object]]:
    """("Kind/name", rule) for every rule of every role."""
    for o in rendered:
        if o["kind"] in ("Role", "ClusterRole"):
            for rule in o["rules"]:
                yield f"{o['kind']}/{o['metadata']['name']}", rule


EVERYTHING: Object = {
    "image": {
        "registry": "mirror.example:5000/ai",
        "pullPolicy": "Always",
        "pullSecrets": [{"name": "mirror"}],
        "serving": {"digest": "sha256:" + "a" * 64},
    },
    "namespaces": ["team-a", "team-b"],
    "clusterDomain": "corp.example",
    "commonLabels": {"example.com/team": "platform"},
    "operator": {
        "replicas": 3,
        "logLevel": "debug",
        "workers": 8,
        "resyncSeconds": 300,
        "serviceAccount": {"name": "operator-account", "annotations": {"example.com/a": "b"}},
        "podLabels": {"example.com/pod": "operator"},
        "podAnnotations": {"example.com/note": "operator"},
        "env": [{"name": "HTTPS_PROXY", "value": "http://proxy.example"}],
        "volumes": [{"name": "dependencies", "persistentVolumeClaim": {"claimName": "aixcoder-dependencies"}}],
        "volumeMounts": [{"name": "dependencies", "mountPath": "/opt/aixcoder/dependencies", "readOnly": True}],
        "nodeSelector": {"example.com/pool": "system"},
        "tolerations": [{"key": "system", "operator": "Exists"}],
        "affinity": {"podAntiAffinity": {}},
        "priorityClassName": "system-cluster-critical",
    },
    "gateway": {
        "replicas": 4,
        "service": {"type": "NodePort", "port": 8000, "nodePort": 30080, "annotations": {"example.com/lb": "internal"}},
        "ingress": {
            "enabled": True,
            "className": "nginx",
            "host": "complete.example",
            "tlsSecret": "complete-tls",
            "annotations": {"nginx.ingress.kubernetes.io/proxy-buffering": "off"},
        },
        "httpRoute": {
            "enabled": True,
            "parentRefs": [{"name": "public", "namespace": "gateways"}],
            "hostnames": ["complete.example"],
        },
        "apiKeys": {"existingSecret": "keys"},
        "drain": {"noticeSeconds": 20, "graceSeconds": 100},
        "podDisruptionBudget": {"maxUnavailable": "25%"},
        "podAnnotations": {"example.com/note": "gateway"},
        "env": [{"name": "PYTHONUNBUFFERED", "value": "1"}],
        "volumes": [{"name": "dependencies", "persistentVolumeClaim": {"claimName": "aixcoder-dependencies"}}],
        "volumeMounts": [{"name": "dependencies", "mountPath": "/opt/aixcoder/dependencies", "readOnly": True}],
        "topologySpreadConstraints": [
            {"maxSkew": 1, "topologyKey": "topology.kubernetes.io/zone", "whenUnsatisfiable": "DoNotSchedule"}
        ],
    },
    "serving": {
        "env": [{"name": "NCCL_DEBUG", "value": "WARN"}],
        "volumes": [{"name": "dependencies", "persistentVolumeClaim": {"claimName": "aixcoder-dependencies"}}],
        "volumeMounts": [{"name": "dependencies", "mountPath": "/opt/aixcoder/dependencies", "readOnly": True}],
        "imagePullSecrets": [{"name": "models"}],
    },
    "podMonitor": {"enabled": True, "labels": {"release": "prometheus"}, "interval": "30s"},
    "prometheusRule": {"enabled": True, "labels": {"release": "prometheus"}, "alertLabels": {"team": "platform"}},
    "dashboard": {"enabled": True, "annotations": {"grafana_folder": "Serving"}},
    "networkPolicy": {
        "enabled": True,
        "clients": [{"namespaceSelector": {"matchLabels": {"example.com/editors": "yes"}}}],
        "metrics": [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}],
    },
    "test": {"model": "aixcoder-7b", "apiKey": {"existingSecret": "test-key"}, "timeoutSeconds": 30},
}
"""Values that use most of what the chart can do."""

VALUE_SETS: dict[str, Object] = {
    "default": {},
    "everything": EVERYTHING,
    "existing key": {"operatorKey": {"existingSecret": "our-key", "key": "secret.bin"}},
    "existing keys": {"operatorKey": {"existingSecret": "our-key"}, "dataKey": {"existingSecret": "data", "key": "d"}},
    "no crds, no rbac": {"crds": {"enabled": False}, "rbac": {"create": False}},
    "no aggregation": {"rbac": {"aggregate": False}},
    "no budgets": {
        "operator": {"podDisruptionBudget": {"enabled": False}},
        "gateway": {"podDisruptionBudget": {"enabled": False}},
    },
    "platform assigns the user": {
        "podSecurityContext": {"runAsUser": None, "runAsGroup": None, "fsGroup": None},
    },
    "network policies for everyone": {"networkPolicy": {"enabled": True}},
    "gateway left to an autoscaler": {"gateway": {"replicas": None}},
    "load balancer": {"gateway": {"service": {"type": "LoadBalancer"}}},
    "as part of another chart": {"global": {"imageRegistry": "elsewhere.example"}},
    "own accounts": {
        "operator": {"serviceAccount": {"create": False, "name": "a"}},
        "gateway": {"serviceAccount": {"create": False, "name": "b"}},
    },
}
"""Named sets of values that every check over rendered objects goes through."""
