"""Faults under load: what each costs in failed and cut requests and in seconds."""

from __future__ import annotations

import time

from e2e import pages
from e2e.load import Load
from e2e.service import Service, record

AMPLIFICATION = 1.1
KILL = """
import os, sys
for entry in os.listdir("/proc"):
    if entry.isdecimal():
        try:
            line = open(f"/proc/{entry}/cmdline").read().replace(chr(0), " ")
            if sys.argv[1] in line and int(entry) != os.getpid():
                os.kill(int(entry), 9)
                print(entry)
        except OSError:
            continue  # it ended by itself, or with its parent
"""


def _kill(service: Service, pod: str, container: str, pattern: str) -> None:
    killed = service.exec(pod, container, "python3", "-c", KILL, pattern)
    assert killed.split(), f"nothing in {pod} runs {pattern}"


def test_a_replica_process_is_killed(pair: Service) -> None:
    victim = pair.deployment.pods("worker")[0]["metadata"]["name"]
    with pages.opened(pair) as told, Load(pair.url) as load:
        told.wait_heard(2)
        retries = told.retries()
        load.wait_for(10)
        start = time.monotonic()
        _kill(pair, victim, "worker", "ray::ServeReplica")
        pair.deployment.wait("lost a replica", lambda found: found["status"]["readyReplicas"] == 1)
        pair.deployment.wait_ready()
        seconds = time.monotonic() - start
        load.wait_for(20)
        amplification = 1 + (told.retries() - retries) / load.tally.requests
    record("replica_killed", load.tally, seconds=seconds, amplification=amplification)
    assert amplification <= AMPLIFICATION
    # What had begun goes on at the other replica, behind the tokens that the client has.
    assert (load.tally.failed, load.tally.cut) == (0, 0), load.tally.reasons


def test_the_head_container_is_killed(pair: Service) -> None:
    head = pair.deployment.pods("head")[0]
    workers = {pod["metadata"]["uid"] for pod in pair.deployment.pods("worker")}
    with Load(pair.url) as load:
        load.wait_for(10)
        start = time.monotonic()
        _kill(pair, head["metadata"]["name"], "head", "gcs_server")

        def back(_: object) -> bool:
            found = pair.deployment.pods("head")[0]["status"]["containerStatuses"][0]
            return bool(found["restartCount"] >= 1 and found["ready"])

        pair.deployment.wait("had its head back", back)
        seconds = time.monotonic() - start
        load.wait_for(40)
    record("head_container_killed", load.tally, seconds=seconds)
    assert (load.tally.failed, load.tally.cut) == (0, 0), load.tally.reasons
    assert {pod["metadata"]["uid"] for pod in pair.deployment.pods("worker")} == workers


def test_the_head_pod_is_deleted_and_a_new_incarnation_takes_over(service: Service) -> None:
    deployment = service.deployment
    before = deployment.serving()
    head = deployment.pods("head")[0]["metadata"]["name"]
    with Load(service.url) as load:
        load.wait_for(10)
        start = time.monotonic()
        service.kubectl("delete", "pod", head, "--wait=false")
        deployment.wait("had another unit serve", lambda found: before not in found["status"]["traffic"]["weights"])
        deployment.wait_ready()
        seconds = time.monotonic() - start
        load.wait_for(20)
    record("head_pod_deleted", load.tally, seconds=seconds)
    assert (load.tally.failed, load.tally.cut) == (0, 0), load.tally.reasons
    after = deployment.serving()
    assert before is not None
    assert after is not None
    assert after.startswith(before)
    assert {pod["metadata"]["labels"]["serving.aixcoder.io/unit"] for pod in deployment.pods()} == {after}
