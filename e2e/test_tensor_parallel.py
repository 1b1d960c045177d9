"""One replica's model over several ranks in one pod: the same text, and a rank that is lost costs its replica alone."""

from __future__ import annotations

import time
from collections.abc import Iterator

import openai
import pytest

from e2e.deployment import Deployment
from e2e.load import Load
from e2e.service import Service, record
from e2e.test_completion import MAX_TOKENS, PAIRS

SIZE = 2
NAME = "wide"
# Ranks are forked, so that they have the command line of the engine's process, which is their parent.
RANKS = """
import os, sys

def is_engine(pid):
    try:
        return b"\\0aixcoder_serving.engine\\0" in open(f"/proc/{pid}/cmdline", "rb").read()
    except OSError:
        return False

def parent(pid):
    return open(f"/proc/{pid}/stat").read().rpartition(")")[2].split()[1]

for pid in filter(str.isdecimal, os.listdir("/proc")):
    if is_engine(pid) and is_engine(parent(pid)):
        print(pid)
        if sys.argv[1:] == ["kill"]:
            os.kill(int(pid), 9)
"""


@pytest.fixture(scope="module")
def wide(installed: Service) -> Iterator[Deployment]:
    """A deployment beside the demo's: two replicas of two ranks each."""
    spec = installed.spec
    spec["engine"]["tensorParallelSize"] = SIZE
    spec["replicas"] = 2
    with installed.deployments(NAME) as (deployment,):
        deployment.apply(spec)
        record("tensor_parallel_created", seconds=deployment.wait_ready())
        yield deployment


def _ranks(service: Service, pod: str, *arguments: str) -> list[str]:
    """Process ids, inside the pod, of its ranks other than the first; killed where `kill` is among the arguments."""
    return service.exec(pod, "worker", "python3", "-c", RANKS, *arguments).split()


def test_two_ranks_write_what_one_writes(service: Service, wide: Deployment) -> None:
    for pod in wide.pods("worker"):
        assert len(_ranks(service, pod["metadata"]["name"])) == SIZE - 1
    client = openai.OpenAI(base_url=f"{service.url}/v1", api_key="none", max_retries=0)

    def text(model: str, prefix: str, suffix: str) -> str:
        answer = client.completions.create(
            model=model, prompt=prefix, suffix=suffix, max_tokens=MAX_TOKENS, temperature=0
        )
        return answer.choices[0].text

    texts = {pair: text(service.deployment.name, *pair) for pair in PAIRS}
    assert len(texts) == 20
    assert {pair: text(NAME, *pair) for pair in PAIRS} == texts
    assert any(texts.values()), "a model that writes nothing proves nothing"


def test_a_rank_is_killed(service: Service, wide: Deployment) -> None:
    wide.wait_ready()
    pods = {pod["metadata"]["uid"] for pod in wide.pods()}
    victim = wide.pods("worker")[0]["metadata"]["name"]
    with Load(service.url, model=NAME) as load:
        load.wait_for(10)
        start = time.monotonic()
        killed = _ranks(service, victim, "kill")
        wide.wait("lost a replica", lambda found: found["status"]["readyReplicas"] == 1)
        wide.wait_ready()
        seconds = time.monotonic() - start
        load.wait_for(20)
    record("rank_killed", load.tally, seconds=seconds)
    assert (load.tally.failed, load.tally.cut) == (0, 0), load.tally.reasons
    assert {pod["metadata"]["uid"] for pod in wide.pods()} == pods, "Serve replaced it in its pod"
    successors = _ranks(service, victim)
    assert len(successors) == SIZE - 1
    assert not set(successors) & set(killed)
