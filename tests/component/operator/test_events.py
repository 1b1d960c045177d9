import asyncio
import json
import time

from aixcoder_operator.cluster.client import Client, NotLeading
from aixcoder_operator.cluster.events import EventRecorder
from e2e.cluster.controlplane import ControlPlane
from tests.component.operator.apiproxy import ApiProxy
from tests.component.operator.conftest import MakeParent


async def test_news_is_what_describe_shows_once(
    client: Client, plane: ControlPlane, make_parent: MakeParent, namespace: str
) -> None:
    parent = make_parent()
    recorder = EventRecorder(client, "operator-pod")
    posting = asyncio.create_task(recorder.run())
    for _ in range(3):
        recorder.record(parent, "ImagePullFailed", "example/model:1 cannot be pulled", type="Warning")
    recorder.record(parent, "Ready", "x" * 2000)
    await recorder.flush(30)
    posting.cancel()
    described = plane.kubectl("describe", "axd", "-n", namespace, "demo")
    assert described.count("example/model:1 cannot be pulled") == 1
    stored = json.loads(plane.kubectl("get", "events.events.k8s.io", "-n", namespace, "-o", "json"))["items"]
    warning = next(event for event in stored if event["type"] == "Warning")
    assert warning["reason"] == "ImagePullFailed"
    assert warning["regarding"]["uid"] == parent["metadata"]["uid"]
    assert (warning["reportingController"], warning["reportingInstance"]) == ("aixcoder-operator", "operator-pod")
    assert [event["note"][1020:] for event in stored if event["type"] == "Normal"] == ["x…"]


async def test_an_event_that_cannot_be_posted_stops_nothing(
    client: Client, proxied: Client, proxy: ApiProxy, make_parent: MakeParent, namespace: str, plane: ControlPlane
) -> None:
    parent = make_parent()
    recorder = EventRecorder(proxied, "operator-pod")
    posting = asyncio.create_task(recorder.run())
    proxy.failures += [(500, {}), (403, {})]
    recorder.record(parent, "First", "is refused")
    recorder.record(parent, "Second", "is refused")
    recorder.record(parent, "Third", "arrives")
    await recorder.flush(30)
    assert not posting.done()
    posting.cancel()
    reasons = plane.kubectl("get", "events", "-n", namespace, "-o", "jsonpath={.items[*].reason}")
    assert reasons == "Third"


async def test_recording_never_waits_and_drops_what_is_too_much(client: Client, make_parent: MakeParent) -> None:
    parents = [{**make_parent(), "metadata": {"name": "demo", "namespace": "n", "uid": str(n)}} for n in range(1)]
    recorder = EventRecorder(client, "operator-pod")
    for n in range(1000):
        stranger = {**parents[0], "metadata": {**parents[0]["metadata"], "uid": str(n)}}
        recorder.record(stranger, "Much", "too much")
    began = time.monotonic()
    await recorder.flush(0.1)
    assert time.monotonic() - began < 5


async def test_a_standby_posts_nothing(
    client: Client, plane: ControlPlane, make_parent: MakeParent, namespace: str
) -> None:
    def not_leading() -> float:
        raise NotLeading("somebody else leads")

    recorder = EventRecorder(client.guarded(not_leading), "operator-pod")
    posting = asyncio.create_task(recorder.run())
    recorder.record(make_parent(), "Ready", "so it seems")
    await recorder.flush(30)
    posting.cancel()
    assert plane.kubectl("get", "events", "-n", namespace, "-o", "name") == ""
