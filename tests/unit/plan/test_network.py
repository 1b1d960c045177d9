"""Who may talk to the pods of a deployment."""

from __future__ import annotations

from typing import Any

import pytest

from aixcoder_operator.plan import names, pod
from aixcoder_operator.plan.network import network_policies
from aixcoder_operator.plan.platform import Platform
from aixcoder_serving.protocol import REPLICA_PORT

PROMETHEUS = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}


def sources(component: str, port: int, **more: Any) -> list[str]:
    """Who may reach a port of that component's pods from outside of the deployment."""
    platform = Platform("image", "system", "gateways", "http://gateway/v1", **more)
    (policy,) = [
        found
        for found in network_policies("demo", platform, {})
        if found["spec"]["podSelector"]["matchLabels"][names.COMPONENT_LABEL] == component
    ]
    within, outside = policy["spec"]["ingress"]
    assert "ports" not in within, "its own pods reach every port"
    assert outside["ports"] == [{"protocol": "TCP", "port": port}]
    return [
        "/".join(
            [
                peer["namespaceSelector"]["matchLabels"]["kubernetes.io/metadata.name"],
                peer.get("podSelector", {}).get("matchLabels", {}).get(names.COMPONENT_LABEL, "any"),
            ]
        )
        for peer in outside["from"]
    ]


@pytest.mark.parametrize(
    ("component", "port", "peers", "expected"),
    [
        pytest.param(names.HEAD, pod.SERVE_PORT, (), ["system/operator"], id="a head runs code for whoever reaches it"),
        pytest.param(names.WORKER, REPLICA_PORT, (), ["system/operator", "gateways/gateway"], id="a replica"),
        pytest.param(
            names.WORKER,
            REPLICA_PORT,
            (PROMETHEUS,),
            ["system/operator", "gateways/gateway", "monitoring/any"],
            id="who reads metrics reaches replicas",
        ),
        pytest.param(names.HEAD, pod.SERVE_PORT, (PROMETHEUS,), ["system/operator"], id="and no head"),
    ],
)
def test_sources(component: str, port: int, peers: tuple[Any, ...], expected: list[str]) -> None:
    assert sources(component, port, metrics_peers=peers) == expected
