"""Which deployment answers, and which replicas it has."""

import pytest

from aixcoder_serving.gateway import routing
from aixcoder_serving.gateway.problems import Problem
from aixcoder_serving.gateway.routing import View
from aixcoder_serving.gateway.static import StaticRoutes
from aixcoder_serving.protocol import DeploymentView

ONE, TWO, THREE = "10.0.0.1:30000", "10.0.0.2:30000", "10.0.0.3:30000"


def deployment(
    name: str,
    *,
    served: str | None = None,
    weights: dict[str, int] | None = None,
    created: str = "2026-01-01T00:00:00Z",
) -> DeploymentView:
    return DeploymentView.model_validate(
        {
            "metadata": {"name": name, "namespace": "ns", "uid": f"uid-{name}", "creationTimestamp": created},
            "spec": {"model": {"servedName": served}},
            "status": {"traffic": {"version": 3, "weights": weights or {}}},
        }
    )


A, B = deployment("a"), deployment("b", served="bee")
OLD = deployment("z-old", served="same", created="2025-01-01T00:00:00Z")
YOUNG = deployment("a-young", served="same")


@pytest.mark.parametrize(
    ("deployments", "model", "name"),
    [
        pytest.param([], "a", None, id="none at all"),
        pytest.param([A], "a", "a", id="one by its name"),
        pytest.param([A], "whatever", "a", id="one alone answers to any name"),
        pytest.param([A], None, "a", id="one alone needs no name"),
        pytest.param([A, B], "a", "a", id="by resource name"),
        pytest.param([A, B], "bee", "b", id="by served name"),
        pytest.param([YOUNG, OLD, A], "same", "z-old", id="the older claim wins"),
    ],
)
def test_model_name(deployments: list[DeploymentView], model: str | None, name: str | None) -> None:
    found = routing.deployment_for(View.of(deployments, {}), model)
    assert (found and found.metadata.name) == name


@pytest.mark.parametrize(
    ("model", "status"),
    [pytest.param(None, 400, id="missing"), pytest.param("b", 404, id="a resource's name is not its served name")],
)
def test_model_name_is_needed_among_several(model: str | None, status: int) -> None:
    with pytest.raises(Problem) as caught:
        routing.deployment_for(View.of([A, B], {}), model)
    assert (caught.value.status, caught.value.param) == (status, "model")


def test_same_age_is_settled_by_uid() -> None:
    first, second = deployment("x", served="s"), deployment("y", served="s")
    assert routing.claims(View.of([second, first], {}))["s"] is first


def test_units_of_another_namespace_are_others() -> None:
    chosen = deployment("d", weights={"u": 1})
    assert routing.units_with_traffic(View.of([chosen], {("elsewhere", "u"): (ONE,)}), chosen) == {"u": ()}


def test_current_state_of_a_deployment() -> None:
    before, now = deployment("d", weights={"u": 1}), deployment("d", weights={"v": 1})
    assert routing.current(View.of([A, now], {}), before) is now
    assert routing.current(View.of([A], {}), before) is before


def test_page_shows_what_is_acted_on() -> None:
    shown = deployment("d", weights={"u": 100, "gone": 0})
    view = View.of([shown], {("ns", "u"): (ONE, TWO), ("ns", "gone"): (THREE,)})
    (route,) = routing.routes(view).routes
    assert (route.namespace, route.name, route.uid, route.served_name) == ("ns", "d", "uid-d", "d")
    assert (route.traffic_version, route.endpoints) == (3, {"u": (ONE, TWO)})


def test_static_routes_lead_to_their_replica_while_it_is_ready() -> None:
    ready = False
    static = StaticRoutes.one("tiny", ONE, max_model_length=512, ready=lambda: ready)
    assert static.view is None
    ready = True
    assert static.view is not None
    (found,) = static.view.deployments
    assert (found.served_name, found.spec.engine.max_model_length) == ("tiny", 512)
    assert routing.units_with_traffic(static.view, found) == {"local": (ONE,)}


def test_whose_a_replica_is() -> None:
    """Its unit's label says so; else the deployment that sends requests to the unit. Nobody else's is used."""
    a, b = deployment("a", weights={"a-1": 100}), deployment("b", weights={"b-1": 100})
    endpoints = {("ns", "a-1"): (ONE,), ("ns", "b-2"): (TWO,), ("ns", "gone-1"): (THREE,)}
    view = View.of([a, b], endpoints, {("ns", "b-2"): "b", ("ns", "gone-1"): "gone"})
    assert view.replicas == {ONE: "uid-a", TWO: "uid-b"}
