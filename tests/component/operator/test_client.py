import time
from pathlib import Path

import pytest
from kubernetes.aio.client.configuration import Configuration

from aixcoder_operator.api.objects import Object
from aixcoder_operator.cluster import client as client_module
from aixcoder_operator.cluster import kinds
from aixcoder_operator.cluster.client import (
    Client,
    Conflict,
    Forbidden,
    Invalid,
    NotFound,
    NotLeading,
    Throttled,
    Unavailable,
)
from aixcoder_operator.cluster.connection import NoCluster, connect, load_configuration
from e2e.cluster.controlplane import ControlPlane
from tests.component.operator.apiproxy import ApiProxy
from tests.component.operator.conftest import AuditLog, MakeParent


def service(namespace: str, name: str = "s", **labels: str) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": namespace, "labels": labels},
        "spec": {"clusterIP": "None", "selector": {"a": "b"}, "ports": [{"name": "http", "port": 80}]},
    }


async def test_what_is_not_there_is_not_found(client: Client, namespace: str) -> None:
    with pytest.raises(NotFound, match=r'get /api/v1/namespaces/.*/pods/none: pods "none" not found \(404\)'):
        await client.get(kinds.POD, namespace, "none")


async def test_a_list_by_labels_is_whole_sorted_and_typed_over_many_pages(
    client: Client, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client_module, "_PAGE", 2)
    for name in ("e", "c", "a", "d", "b"):
        await client.apply(service(namespace, name, team="x"))
    await client.apply(service(namespace, "other", team="y"))
    found = await client.list(kinds.SERVICE, namespace, labels={"team": "x"})
    assert [obj["metadata"]["name"] for obj in found] == list("abcde")
    assert {(obj["apiVersion"], obj["kind"]) for obj in found} == {("v1", "Service")}
    slim = await client.list(kinds.SERVICE, namespace, labels={"team": "y"}, metadata_only=True)
    assert ["spec" in obj for obj in slim] == [False]


async def test_apply_makes_changes_and_takes_back_what_it_no_longer_says(client: Client, namespace: str) -> None:
    first = await client.apply(service(namespace, a="1", b="2"))
    assert first["metadata"]["labels"] == {"a": "1", "b": "2"}
    second = await client.apply(service(namespace, a="1"))
    assert second["metadata"]["labels"] == {"a": "1"}
    assert second["metadata"]["uid"] == first["metadata"]["uid"]
    again = await client.apply(service(namespace, a="1"))
    assert again["metadata"]["resourceVersion"] == second["metadata"]["resourceVersion"]


async def test_apply_takes_a_field_from_another_manager_only_by_force(
    client: Client, plane: ControlPlane, namespace: str
) -> None:
    await client.apply(service(namespace, a="1"))
    plane.kubectl("label", "--overwrite", "-n", namespace, "service/s", "a=theirs", "--field-manager=someone")
    with pytest.raises(Conflict, match="someone"):
        await client.apply(service(namespace, a="1"), force=False)
    assert (await client.apply(service(namespace, a="1")))["metadata"]["labels"] == {"a": "1"}


async def test_status_is_all_that_we_say_and_changes_nothing_else(client: Client, make_parent: MakeParent) -> None:
    parent = make_parent(replicas=2)
    assert parent["status"] == {"observedGeneration": -1}
    traffic = {"version": 1, "weights": {"demo-a": 100}}
    first = await client.apply_status(parent, {"observedGeneration": 1, "replicas": 2, "traffic": traffic})
    assert first["status"] == {"observedGeneration": 1, "replicas": 2, "traffic": traffic}
    second = await client.apply_status(first, {"observedGeneration": 1, "traffic": {"version": 2, "weights": {}}})
    assert second["status"] == {"observedGeneration": 1, "traffic": {"version": 2, "weights": {}}}
    assert second["spec"] == parent["spec"]
    assert second["metadata"]["generation"] == parent["metadata"]["generation"]


async def test_status_of_an_object_that_has_moved_on_is_a_conflict(
    client: Client, plane: ControlPlane, make_parent: MakeParent, namespace: str
) -> None:
    parent = make_parent()
    plane.kubectl("annotate", "-n", namespace, "axd/demo", "note=1")
    with pytest.raises(Conflict):
        await client.apply_status(parent, {"observedGeneration": 1})
    plane.kubectl("delete", "-n", namespace, "axd/demo")
    with pytest.raises(NotFound):
        await client.apply_status(parent, {"observedGeneration": 1})
    successor = make_parent()
    impostor = {**parent, "metadata": {**successor["metadata"], "uid": parent["metadata"]["uid"]}}
    with pytest.raises(Conflict):
        await client.apply_status(impostor, {"observedGeneration": 1})


async def test_annotations_are_set_and_removed_on_that_very_object(client: Client, namespace: str) -> None:
    stored = await client.apply(service(namespace))
    marked = await client.annotate(stored, {"a": "1", "b": "2"})
    assert marked["metadata"]["annotations"] == {"a": "1", "b": "2"}
    assert (await client.annotate(stored, {"a": None}))["metadata"]["annotations"] == {"b": "2"}
    stranger = {**stored, "metadata": {**stored["metadata"], "uid": "00000000-0000-0000-0000-000000000000"}}
    with pytest.raises(Conflict):
        await client.annotate(stranger, {"b": "3"})
    assert (await client.get(kinds.SERVICE, namespace, "s"))["metadata"]["annotations"] == {"b": "2"}


async def test_delete_hits_that_very_object_or_nothing(client: Client, namespace: str) -> None:
    stored = await client.apply(service(namespace))
    stranger = {**stored, "metadata": {**stored["metadata"], "uid": "00000000-0000-0000-0000-000000000000"}}
    await client.delete(stranger)
    assert (await client.get(kinds.SERVICE, namespace, "s"))["metadata"]["uid"] == stored["metadata"]["uid"]
    await client.delete(stored)
    with pytest.raises(NotFound):
        await client.get(kinds.SERVICE, namespace, "s")
    await client.delete(stored)


async def test_a_refusal_carries_the_servers_own_words(client: Client, namespace: str) -> None:
    bad = service(namespace)
    bad["spec"]["ports"][0]["port"] = 0
    with pytest.raises(Invalid, match=r"spec\.ports\[0\]\.port.*must be between 1 and 65535"):
        await client.apply(bad)


async def test_without_the_right_it_is_forbidden(
    plane: ControlPlane, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KUBECONFIG", str(plane.kubeconfig_for("nobody-special")))
    async with connect(await load_configuration()) as weak:
        with pytest.raises(Forbidden, match=r'User "nobody-special" cannot list resource "pods"'):
            await weak.list(kinds.POD, namespace)


async def test_without_a_cluster_it_says_what_to_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    with pytest.raises(NoCluster, match="set KUBECONFIG"):
        await load_configuration()


async def test_a_guard_stops_writes_before_they_leave_and_lets_reads_pass(
    client: Client, namespace: str, audit: AuditLog
) -> None:
    def not_leading() -> float:
        raise NotLeading("somebody else leads")

    standby = client.guarded(not_leading)
    stored = await client.apply(service(namespace))
    audit.mark()
    for write in (
        standby.apply(service(namespace, a="1")),
        standby.create(service(namespace, "t")),
        standby.replace(stored),
        standby.annotate(stored, {"a": "1"}),
        standby.apply_status({**stored, "apiVersion": "v1", "kind": "Service"}, {}),
        standby.delete(stored),
    ):
        with pytest.raises(NotLeading):
            await write
    assert (await standby.get(kinds.SERVICE, namespace, "s"))["metadata"]["uid"] == stored["metadata"]["uid"]
    assert audit.ours(namespace) == []


async def test_a_write_ends_with_the_time_for_which_leadership_is_sure(proxied: Client, proxy: ApiProxy) -> None:
    proxy.open.clear()
    began = time.monotonic()
    with pytest.raises(Unavailable, match="did not answer"):
        await proxied.guarded(lambda: 0.2).apply(service("default"))
    print(f"gave up after {time.monotonic() - began:.2f} s")
    assert time.monotonic() - began < 0.9


async def test_a_silent_api_server_costs_the_time_out_and_no_more(proxied: Client, proxy: ApiProxy) -> None:
    proxy.open.clear()
    began = time.monotonic()
    with pytest.raises(Unavailable, match=r"the API server did not answer within 1 s"):
        await proxied.list(kinds.POD, "default")
    print(f"gave up after {time.monotonic() - began:.2f} s")
    assert time.monotonic() - began < 5
    proxy.open.set()
    assert await proxied.list(kinds.POD, "default") == []


async def test_an_api_server_that_cannot_be_reached_is_unavailable() -> None:
    nowhere = Configuration()
    nowhere.host = "http://127.0.0.1:1"
    async with connect(nowhere) as lost:
        with pytest.raises(Unavailable, match="no connection to the API server"):
            await lost.list(kinds.POD, "default")


@pytest.mark.parametrize(
    ("status", "headers", "error", "retry_after"),
    [
        (429, {"Retry-After": "7"}, Throttled, 7.0),
        (429, {}, Throttled, 1.0),
        (500, {}, Unavailable, None),
        (503, {"Retry-After": "7"}, Unavailable, None),
        (401, {}, Forbidden, None),
        (400, {}, Invalid, None),
    ],
)
async def test_each_kind_of_failure_has_its_type(
    proxied: Client,
    proxy: ApiProxy,
    status: int,
    headers: dict[str, str],
    error: type[Exception],
    retry_after: float | None,
) -> None:
    proxy.failures.append((status, headers))
    with pytest.raises(error, match=rf"made to fail \({status}\)") as caught:
        await proxied.get(kinds.POD, "default", "p")
    assert getattr(caught.value, "retry_after", None) == retry_after
    assert proxy.seen == [("GET", "/api/v1/namespaces/default/pods/p")]


async def test_requests_are_told_to_the_observer(configuration: Configuration, namespace: str) -> None:
    told: list[tuple[str, str, int]] = []
    async with connect(configuration, observer=lambda verb, kind, code, seconds: told.append((verb, kind, code))) as c:
        await c.list(kinds.POD, namespace)
        with pytest.raises(NotFound):
            await c.get(kinds.LEASE, namespace, "none")
    assert told == [("list", "Pod", 200), ("get", "Lease", 404)]
