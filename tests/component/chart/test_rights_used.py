"""Operator and gateway with the rights that the chart gives them, each used: no request refused, no right left over."""

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from e2e.cluster.controlplane import free_ports
from e2e.rights import Right, Use, granted, used
from tests.component.chart.conftest import Release, until
from tests.unit.chart.render import find, objects, pod_templates

VALUES = {"operatorKey": {"existingSecret": "our-key"}, "dataKey": {"existingSecret": "data-key"}}
# What the audit log of this API server cannot show to be used.
NEEDED_ELSEWHERE = {
    # Checked by the admission plugin OwnerReferencesPermissionEnforcement, which OpenShift has on.
    Right("serving.aixcoder.io", "aixcoderdeployments/finalizers", "update"),
}


def user(release: Release, component: str) -> str:
    return f"system:serviceaccount:{release.namespace}:aixcoder-{component}"


def rights_of(release: Release, component: str) -> frozenset[Right]:
    """What the chart grants to a component, as it is in the cluster."""
    bindings = json.loads(release.plane.kubectl("get", "rolebindings,clusterrolebindings", "-A", "-o", "json"))["items"]
    mine = [
        binding
        for binding in bindings
        for subject in binding.get("subjects", [])
        if subject.get("namespace") == release.namespace and subject["name"] == f"aixcoder-{component}"
    ]
    roles = [
        json.loads(
            release.plane.kubectl(
                "get",
                b["roleRef"]["kind"],
                b["roleRef"]["name"],
                f"--namespace={b['metadata'].get('namespace', '')}",
                "-o",
                "json",
            )
        )
        for b in mine
    ]
    return granted(roles)


def use_of(release: Release, component: str) -> Use:
    """What a component asked of the API server so far."""
    entries = map(json.loads, release.plane.audit_log.read_text().splitlines())
    return used(entries, user(release, component))


@contextmanager
def running(release: Release, component: str, arguments: list[str], ready: str, log: Path) -> Iterator[None]:
    """A program of the control image as its service account, from its readiness to its end by SIGTERM."""
    module = {"operator": "aixcoder_operator.main", "gateway": "aixcoder_serving.gateway.main"}[component]
    environment = {**os.environ, "KUBECONFIG": str(release.plane.kubeconfig_for(user(release, component)))}
    with log.open("w") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", module, *arguments], stdout=file, stderr=file, env=environment
        )
    try:
        until(
            lambda: (process.poll(), answers(ready), log.read_text()[-3000:]), lambda seen: seen[0] is None and seen[1]
        )
        yield
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0, log.read_text()[-3000:]
    finally:
        process.kill()
        process.wait()


def answers(url: str) -> bool:
    """Whether the URL answers 200."""
    try:
        with urllib.request.urlopen(url, timeout=5) as response:
            return bool(response.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def test_the_gateway_uses_what_it_may_and_no_more(release: Release, tmp_path: Path) -> None:
    release.helm("install", "aixcoder", values=VALUES)
    gateway = pod_templates(objects(VALUES, namespace=release.namespace))["Deployment/aixcoder-gateway"]
    [container] = gateway["spec"]["containers"]
    public, internal = free_ports(2)
    # The last one of an argument counts.
    (tmp_path / "data-key").write_bytes(os.urandom(32))
    own = [f"--data-key={tmp_path / 'data-key'}", "--drain-seconds=0"]
    arguments = [*container["args"], *own, f"--port={public}", f"--internal-port={internal}"]
    with running(release, "gateway", arguments, f"http://127.0.0.1:{public}/readyz", tmp_path / "log"):
        pass  # ready: it has listed and watches
    # A watch is logged when it ends.
    use = until(lambda: use_of(release, "gateway"), lambda use: use.rights >= rights_of(release, "gateway"))
    assert use.refused == ()
    assert use.rights == rights_of(release, "gateway")


def test_the_operator_uses_what_it_may_and_no_more(release: Release, tmp_path: Path) -> None:
    release.helm("install", "aixcoder", values=VALUES)
    rendered = objects(VALUES, namespace=release.namespace)
    settings = yaml.safe_load(find(rendered, "ConfigMap", "aixcoder-operator")["data"]["operator.yaml"])
    [port] = free_ports(1)
    (tmp_path / "key").write_bytes(os.urandom(32))
    (tmp_path / "operator.yaml").write_text(
        yaml.safe_dump(
            {**settings, "keyFile": str(tmp_path / "key"), "dataKeyFile": str(tmp_path / "key"), "port": port}
        )
    )
    arguments = ["--config", str(tmp_path / "operator.yaml")]

    def apply(name: str, **spec: Any) -> None:
        merged = {
            "engine": {"device": "cpu"},
            "model": {"source": {"persistentVolumeClaim": {"claimName": "weights"}}},
            **spec,
        }
        kind = {"apiVersion": "serving.aixcoder.io/v1alpha1", "kind": "AixcoderDeployment"}
        deployment = {**kind, "metadata": {"name": name, "namespace": release.namespace}, "spec": merged}
        release.plane.kubectl("apply", "-f", "-", stdin=json.dumps(deployment))

    def names(kind: str, of: str) -> list[str]:
        children = release.get(kind, "-l", f"serving.aixcoder.io/deployment={of}")["items"]
        return sorted(o["metadata"]["name"] for o in children if "deletionTimestamp" not in o["metadata"])

    with running(release, "operator", arguments, f"http://127.0.0.1:{port}/readyz", tmp_path / "log"):
        started = time.monotonic()
        # A head as a pod; each change of the engine is a revision, of which one is remembered.
        apply("pod", rollout={"revisionHistoryLimit": 1})
        first = until(lambda: names("replicaset", "pod"), bool)
        for length in (2048, 3072, 4096):
            before = names("replicaset", "pod")
            apply("pod", rollout={"revisionHistoryLimit": 1}, engine={"device": "cpu", "maxModelLength": length})
            until(lambda: names("replicaset", "pod"), lambda seen, before=before: len(seen) == 1 and seen != before)  # type: ignore[misc]
        until(lambda: names("controllerrevision", "pod"), lambda seen: first[0] not in seen)
        # A head as a StatefulSet, taken away again.
        apply("stored", head={"storageClassName": "fast"})
        until(lambda: names("statefulset", "stored"), bool)
        until(lambda: names("controllerrevision", "stored"), lambda seen: len(seen) == 2)
        apply("stored", head={"storageClassName": "fast"}, suspend=True)
        until(lambda: names("statefulset", "stored"), lambda seen: not seen)
        release.plane.kubectl("delete", "axd", "--all", f"--namespace={release.namespace}")
        for name in ("pod", "stored"):
            until(lambda name=name: names("all,secret,pdb,networkpolicy", name), lambda seen: not seen)  # type: ignore[misc]
        print(f"the life of two deployments: {time.monotonic() - started:.1f} s")
    use, rights = use_of(release, "operator"), rights_of(release, "operator")
    assert use.refused == ()
    assert rights - use.rights == NEEDED_ELSEWHERE
    # What every account may do (discovery, reviews of itself) needs no rule of ours.
    assert {right for right in use.rights - rights if right.group != "authorization.k8s.io"} == set()
