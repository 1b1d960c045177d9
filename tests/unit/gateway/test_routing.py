"""Which deployment answers, and which replica."""

import random
from collections import Counter

import pytest

from aixcoder_serving.gateway import routing
from aixcoder_serving.gateway.problems import Problem
from aixcoder_serving.gateway.routing import Outstanding, View
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


@pytest.mark.parametrize(
    ("weights", "endpoints", "outstanding", "avoid", "possible"),
    [
        pytest.param({"u": 100}, {"u": (ONE,)}, {}, (), {ONE}, id="the only one"),
        pytest.param({"u": 100}, {"u": (ONE, TWO)}, {}, (), {ONE, TWO}, id="a tie falls at random"),
        pytest.param({"u": 100}, {"u": (ONE, TWO, THREE)}, {ONE: 2, TWO: 1, THREE: 1}, (), {TWO, THREE}, id="least"),
        pytest.param({"u": 100}, {"u": (ONE, TWO)}, {ONE: 0, TWO: 9}, {ONE}, {TWO}, id="avoided though idle"),
        pytest.param({"u": 100}, {"u": (ONE,)}, {}, {ONE}, {None}, id="all avoided"),
        pytest.param({}, {"u": (ONE,)}, {}, (), {None}, id="no traffic"),
        pytest.param({"u": 0}, {"u": (ONE,)}, {}, (), {None}, id="no weight"),
        pytest.param({"u": 100}, {}, {}, (), {None}, id="no endpoint"),
        pytest.param({"u": 100}, {"v": (ONE,)}, {}, (), {None}, id="a unit without traffic"),
        pytest.param({"u": 1, "v": 99}, {"u": (ONE,)}, {}, (), {ONE}, id="an empty unit leaves its share"),
        pytest.param({"u": 1, "v": 99}, {"u": (ONE,), "v": (TWO,)}, {}, {TWO}, {ONE}, id="an avoided unit too"),
        pytest.param(
            {"u": 50, "v": 50}, {"u": (ONE,), "v": (TWO,)}, {ONE: 50}, (), {ONE, TWO}, id="weights before work"
        ),
    ],
)
def test_choice(
    weights: dict[str, int],
    endpoints: dict[str, tuple[str, ...]],
    outstanding: dict[str, int],
    avoid: set[str],
    possible: set[str | None],
) -> None:
    chosen = deployment("d", weights=weights)
    view = View.of([chosen], {("ns", unit): addresses for unit, addresses in endpoints.items()})
    rng = random.Random(1)
    assert {routing.choose(view, chosen, outstanding, avoid, rng) for _ in range(200)} == possible


def test_units_of_another_namespace_are_others() -> None:
    chosen = deployment("d", weights={"u": 1})
    assert routing.choose(View.of([chosen], {("elsewhere", "u"): (ONE,)}), chosen, {}) is None


def test_weights_share_requests() -> None:
    chosen = deployment("d", weights={"u": 90, "v": 10})
    view = View.of([chosen], {("ns", "u"): (ONE,), ("ns", "v"): (TWO,)})
    rng = random.Random(1)
    counts = Counter(routing.choose(view, chosen, {}, (), rng) for _ in range(2000))
    assert 0.87 < counts[ONE] / 2000 < 0.93


def test_current_state_of_a_deployment() -> None:
    before, now = deployment("d", weights={"u": 1}), deployment("d", weights={"v": 1})
    assert routing.current(View.of([A, now], {}), before) is now
    assert routing.current(View.of([A], {}), before) is before


def test_outstanding_counts_and_forgets() -> None:
    outstanding = Outstanding()
    with outstanding.at(ONE), outstanding.at(ONE), outstanding.at(TWO):
        assert outstanding == {ONE: 2, TWO: 1}
    assert dict(outstanding) == {}


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
    assert routing.choose(static.view, found, {}) == ONE
