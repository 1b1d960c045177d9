"""EndpointSlices → ready replicas."""

from typing import Any

import pytest

from aixcoder_serving.gateway.endpoints import Slice, ready_endpoints

HTTP = [{"name": "http", "port": 30000}]


def slice_of(*endpoints: dict[str, Any], unit: str = "u", **more: Any) -> Slice:
    metadata = {"name": f"{unit}-x", "namespace": "ns", "labels": {"kubernetes.io/service-name": unit}}
    return Slice.model_validate(
        {"metadata": metadata, "addressType": "IPv4", "ports": HTTP, "endpoints": list(endpoints)} | more
    )


def at(address: str, **conditions: bool | None) -> dict[str, Any]:
    return {"addresses": [address], "conditions": conditions}


@pytest.mark.parametrize(
    ("slices", "found"),
    [
        pytest.param([], {}, id="none"),
        pytest.param([slice_of(at("1.1.1.1", ready=True))], {"u": ("1.1.1.1:30000",)}, id="ready"),
        pytest.param([slice_of(at("1.1.1.1", ready=False))], {"u": ()}, id="not ready"),
        pytest.param([slice_of(at("1.1.1.1"))], {"u": ("1.1.1.1:30000",)}, id="unknown counts as ready"),
        pytest.param([slice_of(at("1.1.1.1", ready=None))], {"u": ("1.1.1.1:30000",)}, id="null counts as ready"),
        pytest.param(
            [slice_of(at("1.1.1.1", ready=False, serving=True, terminating=True))], {"u": ()}, id="terminating, serving"
        ),
        pytest.param([slice_of(at("1.1.1.1", ready=True, terminating=True))], {"u": ()}, id="terminating, ready"),
        pytest.param([slice_of({"addresses": ["1.1.1.1"]})], {"u": ("1.1.1.1:30000",)}, id="no conditions"),
        pytest.param([slice_of({"addresses": []})], {"u": ()}, id="no address"),
        pytest.param([slice_of(endpoints=None)], {"u": ()}, id="null endpoints"),
        pytest.param([slice_of(at("1.1.1.1"), ports=None)], {"u": ()}, id="null ports"),
        pytest.param([slice_of(at("1.1.1.1"), ports=[{"name": "grpc", "port": 1}])], {"u": ()}, id="another port"),
        pytest.param(
            [slice_of(at("fd00::1"), addressType="IPv6")],
            {"u": ("[fd00::1]:30000",)},
            id="an IPv6 address is bracketed",
        ),
        pytest.param(
            [slice_of(at("1.1.1.2")), slice_of(at("1.1.1.1"), at("1.1.1.2"))],
            {"u": ("1.1.1.1:30000", "1.1.1.2:30000")},
            id="two slices that overlap",
        ),
        pytest.param(
            [slice_of(at("1.1.1.1")), slice_of(at("1.1.1.2"), unit="v")],
            {"u": ("1.1.1.1:30000",), "v": ("1.1.1.2:30000",)},
            id="two units",
        ),
        pytest.param([slice_of(at("1.1.1.1"), metadata={"name": "x", "namespace": "ns"})], {}, id="of no service"),
    ],
)
def test_ready(slices: list[Slice], found: dict[str, tuple[str, ...]]) -> None:
    assert ready_endpoints(slices) == {("ns", unit): addresses for unit, addresses in found.items()}
