import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import yaml

from e2e.cluster.controlplane import ControlPlane
from tests.component.operator.conftest import CRD, ROOT, AuditLog, MakeParent

HANG = 90.0


def until(condition: Callable[[], bool], what: str, seconds: float = HANG) -> float:
    """Seconds it took."""
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < seconds, f"never: {what}"
        time.sleep(0.02)
    return time.monotonic() - began


class Process:
    """One operator process with the trivial reconcile."""

    def __init__(self, kubeconfig: Path, settings: Path, folder: Path, name: str) -> None:
        self._out, self._err = folder / f"{name}.out", folder / f"{name}.err"
        path = os.pathsep.join(str(ROOT / part) for part in ("operator", "serving", "."))
        with self._out.open("w") as out, self._err.open("w") as err:
            self.popen = subprocess.Popen(
                [sys.executable, "-m", "tests.component.operator.trivial_operator", str(settings)],
                env={**os.environ, "KUBECONFIG": str(kubeconfig), "PYTHONPATH": path},
                stdout=out,
                stderr=err,
            )

    def calls(self) -> list[str]:
        return re.findall(r"^reconcile (\S+)$", self._out.read_text(), re.MULTILINE)

    def log(self) -> str:
        return self._err.read_text()

    def get(self, page: str) -> tuple[int, str]:
        """Status and body of one of its pages; (0, "") before it listens."""
        port = re.search(r"^port (\d+)$", self._out.read_text(), re.MULTILINE)
        if port is None:
            return 0, ""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port[1]}{page}", timeout=5) as response:
                return response.status, response.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()
        except OSError:
            return 0, ""

    def leads(self) -> bool:
        return "aixcoder_operator_leader 1.0" in self.get("/metrics")[1]

    def ready(self) -> bool:
        assert self.popen.poll() is None, self.log()
        return self.get("/readyz")[0] == 200

    def end(self) -> None:
        if self.popen.poll() is None:
            self.popen.send_signal(signal.SIGCONT)
            self.popen.terminate()
            try:
                self.popen.wait(HANG)
            except subprocess.TimeoutExpired:
                self.popen.kill()
                self.popen.wait()
                raise


Start = Callable[..., Process]


@pytest.fixture
def start(plane: ControlPlane, namespace: str, tmp_path: Path) -> Iterator[Start]:
    """Starts operator processes that work in the test's namespace and elect by a Lease in it."""
    with ExitStack() as stack:

        def begin(name: str = "a", *, kubeconfig: Path = plane.kubeconfig, everywhere: bool = False) -> Process:
            settings = {
                "servingImage": "example/serving:1",
                "namespaces": [] if everywhere else [namespace],
                "gateway": {"namespace": namespace},
                "lease": {"namespace": namespace},
                "port": 0,
            }
            path = tmp_path / f"{name}.yaml"
            path.write_text(yaml.safe_dump(settings))
            process = Process(kubeconfig, path, tmp_path, name)
            stack.callback(process.end)
            return process

        yield begin


def holder(plane: ControlPlane, namespace: str) -> str:
    return plane.kubectl(
        "get",
        "lease",
        "-n",
        namespace,
        "aixcoder-operator",
        "--ignore-not-found",
        "-o",
        "jsonpath={.spec.holderIdentity}",
    )


def test_deployments_and_changes_of_their_children_become_keys_and_nothing_is_written(
    start: Start, plane: ControlPlane, make_parent: MakeParent, namespace: str, audit: AuditLog
) -> None:
    before = make_parent("before")
    process = start()
    until(lambda: process.calls() == [f"{namespace}/before"], "the deployment that was there")
    after = make_parent("after")
    took = until(lambda: process.calls()[1:] == [f"{namespace}/after"], "the new deployment")
    print(f"an event became a call within {took:.2f} s")

    def child(name: str, deployment: str) -> None:
        labels = {"serving.aixcoder.io/deployment": deployment, "app.kubernetes.io/managed-by": "aixcoder-operator"}
        for kind, body in (("ConfigMap", {}), ("Service", {"spec": {"clusterIP": "None", "ports": [{"port": 1}]}})):
            manifest = {
                "apiVersion": "v1",
                "kind": kind,
                "metadata": {"name": name, "namespace": namespace, "labels": labels},
                **body,
            }
            plane.kubectl("create", "-f", "-", stdin=json.dumps(manifest))

    child("x", "before")
    until(lambda: process.calls()[2:] == [f"{namespace}/before"], "the Service's deployment")
    plane.kubectl("delete", "service", "-n", namespace, "x")
    until(lambda: process.calls()[3:] == [f"{namespace}/before"], "the deployment of the Service that went")
    # Not ours: no call may come of it.
    plane.kubectl("create", "service", "clusterip", "-n", namespace, "theirs", "--clusterip=None")
    plane.kubectl("delete", "axd", "-n", namespace, "after")
    until(lambda: process.calls()[4:] == [f"{namespace}/after"], "the deployment that went")
    stored = json.loads(plane.kubectl("get", "axd", "-n", namespace, "before", "-o", "json", "--show-managed-fields"))
    assert stored["metadata"] == before["metadata"] | {"managedFields": stored["metadata"]["managedFields"]}
    assert after["metadata"].get("finalizers") is None
    assert {line.split()[1] for line in audit.ours(namespace)} == {"leases/aixcoder-operator"}
    strangers = {
        line.split()[-1] for line in audit.since(namespace) if "kopf" in line.lower() or "python" in line.lower()
    }
    assert strangers == set()


def test_its_own_status_does_not_call_it_again_and_every_change_of_a_wish_does(
    start: Start, plane: ControlPlane, make_parent: MakeParent, namespace: str
) -> None:
    make_parent()
    process = start()
    until(lambda: len(process.calls()) == 1, "the first call")
    plane.kubectl("annotate", "-n", namespace, "axd/demo", "write-status=1")
    until(lambda: len(process.calls()) == 2, "the annotation")
    plane.kubectl("patch", "-n", namespace, "axd/demo", "--type=merge", '-p={"spec":{"replicas":3}}')
    until(lambda: len(process.calls()) == 3, "the spec")
    time.sleep(3)
    assert len(process.calls()) == 3
    status = plane.kubectl("get", "axd", "-n", namespace, "demo", "-o", "jsonpath={.status.endpoint}")
    assert float(status) > 0
    events = plane.kubectl("get", "events", "-n", namespace, "-o", "jsonpath={.items[*].reason}")
    assert events == "Told"
    pages = process.get("/metrics")[1]
    assert 'aixcoder_operator_reconciles_total{result="done"} 3.0' in pages
    assert "aixcoder_operator_queue_length 0.0" in pages
    assert 'aixcoder_operator_api_requests_total{code="200",kind="AixcoderDeployment",verb="update"} 2.0' in pages


def test_sigterm_gives_the_lease_up_and_the_standby_takes_over_with_all_that_it_has_seen(
    start: Start, plane: ControlPlane, make_parent: MakeParent, namespace: str
) -> None:
    make_parent("one")
    leader = start("leader")
    until(lambda: len(leader.calls()) == 1, "the first call")
    standby = start("standby")
    until(standby.ready, "the standby is ready")
    assert standby.get("/healthz") == (200, "ok\n")
    make_parent("two")
    until(lambda: len(leader.calls()) == 2, "the second call")
    time.sleep(1)
    assert (leader.leads(), standby.leads()) == (True, False)
    assert standby.calls() == []
    told = time.monotonic()
    leader.popen.terminate()
    until(standby.leads, "the standby leads")
    print(f"taken over {time.monotonic() - told:.2f} s after SIGTERM")
    assert leader.popen.wait(HANG) == 0
    print(f"the old leader was gone {time.monotonic() - told:.2f} s after SIGTERM")
    until(lambda: sorted(standby.calls()) == [f"{namespace}/one", f"{namespace}/two"], "all keys")
    standby.popen.terminate()
    assert standby.popen.wait(HANG) == 0
    assert holder(plane, namespace) == ""


def test_a_crashed_leader_is_replaced(start: Start, make_parent: MakeParent, namespace: str) -> None:
    make_parent()
    leader = start("leader")
    until(leader.leads, "the leader leads")
    standby = start("standby")
    until(standby.ready, "the standby is ready")
    time.sleep(2)
    leader.popen.kill()
    took = until(standby.leads, "the standby leads")
    print(f"taken over {took:.1f} s after the crash")
    until(lambda: standby.calls() == [f"{namespace}/demo"], "the key")


def test_a_leader_that_was_frozen_ends_as_soon_as_it_thaws_and_writes_nothing(
    start: Start, plane: ControlPlane, make_parent: MakeParent, namespace: str, audit: AuditLog
) -> None:
    make_parent()
    leader = start("leader")
    until(leader.leads, "the leader leads")
    standby = start("standby")
    until(standby.ready, "the standby is ready")
    leader.popen.send_signal(signal.SIGSTOP)
    until(standby.leads, "the standby leads")
    until(lambda: standby.calls() == [f"{namespace}/demo"], "the key")
    plane.kubectl("annotate", "-n", namespace, "axd/demo", "write-status=1")
    # Its last write is the Event.
    until(lambda: "Told" in plane.kubectl("get", "events", "-n", namespace), "the standby's work")
    audit.mark()
    leader.popen.send_signal(signal.SIGCONT)
    assert leader.popen.wait(HANG) == 3
    assert "the Lease is lost" in leader.log()
    time.sleep(1)
    assert [line for line in audit.ours(namespace) if "leases" not in line] == []
    assert standby.leads()


def test_without_the_definition_it_waits_and_says_so_and_then_works(tmp_path: Path) -> None:
    with ControlPlane() as bare:
        settings = tmp_path / "operator.yaml"
        place = {"namespace": "default"}
        settings.write_text(yaml.safe_dump({"servingImage": "x", "gateway": place, "lease": place, "port": 0}))
        process = Process(bare.kubeconfig, settings, tmp_path, "early")
        try:
            until(lambda: "the CustomResourceDefinition is missing: apply" in process.log(), "the sentence")
            assert process.get("/healthz")[0] == 200
            assert process.get("/readyz") == (503, "waiting for the CustomResourceDefinition\n")
            strange = yaml.safe_load(CRD.read_text())
            strange["metadata"]["annotations"]["serving.aixcoder.io/schema"] = "0123456789abcdef"
            bare.kubectl("apply", "--server-side", "-f", "-", stdin=yaml.safe_dump(strange))
            until(process.ready, "ready")
            assert "is not this operator's own (schema 0123456789abcdef, expected" in process.log()
            manifest = {
                "apiVersion": "serving.aixcoder.io/v1alpha1",
                "kind": "AixcoderDeployment",
                "metadata": {"name": "demo", "namespace": "default"},
                "spec": {"model": {"source": {"image": {"reference": "m:1"}}}, "engine": {"device": "cpu"}},
            }
            bare.kubectl("create", "-f", "-", stdin=json.dumps(manifest))
            until(lambda: process.calls() == ["default/demo"], "the key")
        finally:
            process.end()
