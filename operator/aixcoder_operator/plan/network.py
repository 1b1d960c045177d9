"""NetworkPolicies: who may talk to the pods of a deployment. A Ray head runs code for whoever it trusts."""

from __future__ import annotations

from typing import Any

from aixcoder_operator.api.names import DEPLOYMENT_LABEL
from aixcoder_operator.api.objects import Object
from aixcoder_operator.plan import names, pod
from aixcoder_operator.plan.platform import Platform
from aixcoder_serving.protocol import REPLICA_PORT

_NAMESPACE_NAME = "kubernetes.io/metadata.name"


def network_policies(deployment: str, platform: Platform, metadata: Object) -> list[Object]:
    """One policy for heads, one for workers: the deployment's own pods, and from outside what each is there for."""
    within: Object = {"from": [{"podSelector": {"matchLabels": {DEPLOYMENT_LABEL: deployment}}}]}
    operator = _pods(platform.operator_namespace, "operator")
    # Whoever reads metrics reaches /generate too, which asks for a token.
    readers = [operator, _pods(platform.gateway_namespace, "gateway"), *platform.metrics_peers]
    return [
        _policy(deployment, names.HEAD, metadata, [within, _ingress([operator], pod.SERVE_PORT)]),
        _policy(deployment, names.WORKER, metadata, [within, _ingress(readers, REPLICA_PORT)]),
    ]


def _policy(deployment: str, component: str, metadata: Object, ingress: list[Object]) -> Object:
    labels = names.deployment_labels(deployment) | {names.COMPONENT_LABEL: component}
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": metadata | {"name": f"{deployment}-{component}", "labels": labels},
        "spec": {
            "podSelector": {"matchLabels": {DEPLOYMENT_LABEL: deployment, names.COMPONENT_LABEL: component}},
            "policyTypes": ["Ingress"],
            "ingress": ingress,
        },
    }


def _pods(namespace: str, component: str) -> Object:
    return {
        "namespaceSelector": {"matchLabels": {_NAMESPACE_NAME: namespace}},
        "podSelector": {"matchLabels": {"app.kubernetes.io/name": "aixcoder", names.COMPONENT_LABEL: component}},
    }


def _ingress(sources: list[Object], port: int) -> dict[str, Any]:
    return {"from": sources, "ports": [{"protocol": "TCP", "port": port}]}
