"""Whatever happens in whatever order: the invariants hold at every look, and in the end what is wished for is there."""

from __future__ import annotations

import re

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aixcoder_operator.api.objects import Object, name
from aixcoder_operator.plan import names
from aixcoder_operator.plan.observed import is_live
from tests.unit.plan import invariants
from tests.unit.plan.simulator import Simulator
from tests.unit.plan.world import Gateway

EVENTS = st.one_of(
    st.tuples(st.just("wait"), st.sampled_from([1, 2, 3, 5, 8, 20, 100, 700])),
    st.tuples(st.just("model"), st.sampled_from(["a", "b", "c"])),
    st.tuples(st.just("replicas"), st.integers(0, 3)),
    st.tuples(st.just("suspend"), st.booleans()),
    st.tuples(st.just("restart"), st.sampled_from(["", "x", "y"])),
    st.tuples(st.just("break"), st.sampled_from(["a", "b", "c"])),
    st.tuples(st.just("mend"), st.just(0)),
    st.tuples(st.just("gpus"), st.integers(0, 6)),
    st.tuples(st.just("kill worker"), st.integers(0, 9)),
    st.tuples(st.just("kill head"), st.integers(0, 9)),
    st.tuples(st.just("crash"), st.integers(0, 9)),
    st.tuples(st.just("busy"), st.integers(0, 9)),
    st.tuples(st.just("idle"), st.just(0)),
    st.tuples(st.just("lag"), st.sampled_from([0, 3, 30])),
    st.tuples(st.just("gateway away"), st.booleans()),
    st.tuples(st.just("gateways"), st.integers(0, 3)),
    st.tuples(st.just("operator away"), st.sampled_from([5, 60])),
    st.tuples(st.just("status lost"), st.just(0)),
    st.tuples(st.just("created again"), st.sampled_from([0, 5])),
)


def happen(demo: Simulator, event: str, value: object) -> None:
    """One event of EVENTS."""
    world = demo.world
    number = value if isinstance(value, int) else 0
    match event:
        case "wait":
            demo.wait(number)
        case "model":
            demo.change(model=str(value))
        case "replicas" | "suspend":
            demo.change(**{event: value})
        case "restart":
            demo.restart(str(value))
        case "break":
            world.faults[f"models/{value}:1"] = "crash"
        case "mend":
            world.faults.clear()
        case "gpus":
            world.gpus = number
        case "kill worker":
            kill(demo, names.WORKER, number)
        case "kill head":
            kill(demo, names.HEAD, number)
        case "crash":
            for pod in pods(demo, names.WORKER)[number : number + 1]:
                world.unready(pod)
        case "busy":
            for pod in pods(demo, names.WORKER)[number : number + 1]:
                world.busy[name(pod)] = 1
        case "idle":
            world.busy.clear()
        case "lag":
            for gateway in world.gateways:
                gateway.lag = number
        case "gateway away":
            for gateway in world.gateways[:1]:
                gateway.reachable = not value
        case "gateways":
            version = demo.resource["status"].get("traffic", {}).get("version", 0)
            world.gateways = [Gateway(version=version) for _ in range(number)]
        case "operator away":
            for _ in range(number):
                world.tick(demo.resource["status"].get("traffic", {}).get("version", 0))
        case "status lost":
            demo.lose_status()
        case "created again":
            demo.recreate(number, **{key: demo.resource["spec"][key] for key in ("head", "rollout")})
        case _:
            raise AssertionError(event)


def pods(demo: Simulator, component: str) -> list[Object]:
    found = demo.world.of_kind("Pod")
    return [pod for pod in found if pod["metadata"]["labels"][names.COMPONENT_LABEL] == component and is_live(pod)]


def kill(demo: Simulator, component: str, number: int) -> None:
    for pod in pods(demo, component)[number : number + 1]:
        demo.world.delete("Pod", name(pod))


def settle(demo: Simulator) -> None:
    """Mend all that is broken around the deployment, and wait for what is wished for."""
    demo.world.faults.clear()
    demo.world.busy.clear()
    demo.world.gpus = 20
    for gateway in demo.world.gateways:
        gateway.reachable, gateway.lag = True, 1
    demo.world.changed = True
    demo.run(8000)


ORDERS = st.lists(EVENTS, min_size=1, max_size=12)
HEADS = st.sampled_from([{}, {"storageClassName": "fast"}])


@settings(max_examples=40, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(events=ORDERS, head=HEADS)
def test_any_order_of_events_ends_in_what_is_wished_for(events: list[tuple[str, object]], head: Object) -> None:
    play(events, head)


@pytest.mark.long
@pytest.mark.timeout(3600)
@settings(max_examples=2000, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(events=ORDERS, head=HEADS)
def test_many_more_orders(events: list[tuple[str, object]], head: Object) -> None:
    play(events, head)


def play(events: list[tuple[str, object]], head: Object) -> None:
    """Let `events` happen, mend what is broken, and see that what is wished for is there."""
    demo = Simulator()
    demo.create(head=head, rollout={"progressDeadlineSeconds": 120, "schedulingDeadlineSeconds": 300})
    demo.wait(10)
    for event, value in events:
        happen(demo, event, value)
        demo.wait(1)
    settle(demo)
    demo.restart("at last")  # a revision that was given up is tried again on nothing less
    demo.run(8000)
    invariants.check_steady(demo)
    spec = demo.resource["spec"]
    letter = spec["model"]["source"]["image"]["reference"][len("models/")].upper()
    wish = spec.get("replicas", 1)
    last = demo.steps[-1]
    if spec.get("suspend"):
        assert last == "nothing | Ready Suspended"
    else:
        reason = "AllReplicasReady" if wish else "ScaledToZero"
        assert re.fullmatch(rf"{letter}\+at last(-\d+)?\* {wish}/{wish} \| Ready {reason}", last)
