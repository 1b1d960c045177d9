from typing import Any

import pytest

from benchmarks.create_to_ready import PARTS, Timeline, pod_parts, ray_parts, resource_parts, route_parts, rows

Json = dict[str, Any]


def pod(component: str, *conditions: str, running: bool = False) -> Json:
    statuses: list[Json] = [{"state": {"running" if running else "waiting": {}}}]
    return {
        "metadata": {"labels": {"app.kubernetes.io/component": component}},
        "status": {
            "conditions": [{"type": condition, "status": "True"} for condition in conditions],
            "containerStatuses": statuses,
        },
    }


@pytest.mark.parametrize(
    ("item", "expected"),
    [
        ({"metadata": {"labels": {"app.kubernetes.io/component": "head"}}}, {"head pod created"}),
        (pod("head", "PodScheduled"), {"head pod created", "head pod scheduled"}),
        (pod("worker", "PodScheduled"), {"worker pod scheduled"}),
        (pod("worker", "PodScheduled", running=True), {"worker pod scheduled", "worker pod running"}),
        (
            pod("worker", "PodScheduled", "Ready", running=True),
            {"worker pod scheduled", "worker pod running", "worker pod ready"},
        ),
    ],
)
def test_what_a_pod_shows(item: Json, expected: set[str]) -> None:
    assert pod_parts(item) == expected


@pytest.mark.parametrize(
    ("observed", "status", "expected"), [(2, "True", {"Ready"}), (1, "True", set()), (2, "False", set())]
)
def test_ready_counts_for_the_present_generation(observed: int, status: str, expected: set[str]) -> None:
    conditions = [{"type": "Ready", "status": status}]
    resource = {"metadata": {"generation": 2}, "status": {"observedGeneration": observed, "conditions": conditions}}
    assert resource_parts(resource) == expected


def node(*, head: bool, state: str = "ALIVE") -> Json:
    return {"is_head_node": head, "state": state}


def applications(status: str, *replicas: str) -> Json:
    found = [{"state": state} for state in replicas]
    return {"applications": {"completion": {"status": status, "deployments": {"Replica": {"replicas": found}}}}}


@pytest.mark.parametrize(
    ("nodes", "serve", "expected"),
    [
        ([], {}, set()),
        ([node(head=True)], applications("DEPLOYING"), set()),
        ([node(head=True), node(head=False, state="DEAD")], {}, set()),
        ([node(head=True), node(head=False)], {}, {"worker joined Ray"}),
        ([node(head=True)], applications("DEPLOYING", "STARTING"), {"replica asked for"}),
        ([node(head=True)], applications("RUNNING", "RUNNING"), {"replica asked for", "Serve running"}),
    ],
)
def test_what_ray_tells(nodes: list[Json], serve: Json, expected: set[str]) -> None:
    assert ray_parts({"data": {"result": {"result": nodes}}}, serve) == expected


@pytest.mark.parametrize(
    ("version", "endpoints", "expected"),
    [(1, ["10.0.0.1:30000"], {"routable"}), (0, ["10.0.0.1:30000"], set()), (1, [], set())],
)
def test_routable_is_an_endpoint_with_traffic(version: int, endpoints: list[str], expected: set[str]) -> None:
    routes = {"routes": [{"name": "tiny", "traffic_version": version, "endpoints": {"tiny-abcdef": endpoints}}]}
    assert route_parts(routes, "tiny") == expected
    assert route_parts(routes, "another") == set()


def test_a_part_counts_from_when_it_was_first_seen() -> None:
    now = iter([100.0, 101.0, 103.0, 107.5])
    timeline = Timeline(lambda: next(now))
    timeline.mark({"head pod created"})
    timeline.mark({"head pod created", "head pod scheduled"})
    assert not timeline.finished.is_set()
    timeline.mark({"Ready"})
    assert timeline.finished.is_set()
    lines = rows(1, timeline.seen())
    assert [(line["part"], line["at"], line["took"]) for line in lines[:-1]] == [
        ("head pod created", 1.0, 1.0),
        ("head pod scheduled", 3.0, 2.0),
        ("Ready", 7.5, 4.5),
    ]
    assert lines[-1]["create_to_ready_seconds"] == 7.5
    assert lines[-1]["not_seen"] == [part for part in PARTS if part not in timeline.seen()]
