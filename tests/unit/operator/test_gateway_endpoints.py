"""Which gateways are asked, and which have to answer."""

from __future__ import annotations

from typing import Any

import pytest

from aixcoder_operator.api.objects import Object
from aixcoder_operator.cluster.observe import GatewayEndpoint, endpoints_of


def endpoint(*addresses: str, pod: str = "", **conditions: Any) -> Object:
    return {"addresses": list(addresses), "conditions": conditions} | ({"targetRef": {"uid": pod}} if pod else {})


def one(address: str, *, ready: bool, should_answer: bool = True) -> GatewayEndpoint:
    return GatewayEndpoint(address, is_ready=ready, should_answer=should_answer)


@pytest.mark.parametrize(
    ("slices", "found"),
    [
        pytest.param([], [], id="none"),
        pytest.param([[]], [], id="a slice without any"),
        pytest.param(
            [[endpoint("10.0.0.1", ready=True)], [endpoint("10.0.0.2")]],
            [one("10.0.0.1:9090", ready=True), one("10.0.0.2:9090", ready=True)],
            id="ready, and not said otherwise",
        ),
        pytest.param(
            [[endpoint("10.0.0.1", ready=False, serving=False)]],
            [one("10.0.0.1:9090", ready=False, should_answer=False)],
            id="not ready",
        ),
        pytest.param(
            [[endpoint("10.0.0.1", ready=False, serving=True, terminating=True)]],
            [one("10.0.0.1:9090", ready=False)],
            id="ends, and still serves",
        ),
        pytest.param(
            [[endpoint("10.0.0.1", ready=False, serving=False, terminating=True)]],
            [one("10.0.0.1:9090", ready=False, should_answer=False)],
            id="ends, and is not ready any more",
        ),
        pytest.param(
            [[endpoint("10.0.0.1", pod="a", ready=True)], [endpoint("fd00::1", pod="a", ready=True)]],
            [one("10.0.0.1:9090", ready=True)],
            id="one pod with two addresses",
        ),
        pytest.param([[endpoint("fd00::1", ready=True)]], [one("[fd00::1]:9090", ready=True)], id="IPv6"),
    ],
)
def test_endpoints(slices: list[list[Object]], found: list[GatewayEndpoint]) -> None:
    assert endpoints_of([{"endpoints": endpoints} for endpoints in slices], 9090) == tuple(found)
    assert endpoints_of([{"endpoints": None}], 9090) == ()
