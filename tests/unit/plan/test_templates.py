"""The pods that are made: what Pod Security `restricted` asks of them, and every field of one head and one worker.

A change of a template restarts nobody, since a revision keeps its own; it is seen here. `AIXCODER_WRITE_GOLDEN=1 pytest
tests/unit/plan/test_templates.py` writes the golden files again: read the difference.
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from aixcoder_operator.api.deployment import AixcoderDeployment, read
from aixcoder_operator.api.objects import Object, labels
from aixcoder_operator.plan import names
from aixcoder_operator.plan.head import head_template
from aixcoder_operator.plan.worker import application, worker_template
from tests.unit.plan.simulator import PLATFORM, Simulator, spec_of
from tests.unit.plan.story import ready

GOLDEN = Path(__file__).parent / "golden"

FULL: Object = {
    "engine": {"device": "cuda", "tensorParallelSize": 2, "maxModelLength": 4096},
    "resources": {"gpu": {"resourceName": "example.com/gpu"}, "cpu": 7, "memory": "31Gi"},
    "head": {"resources": {"cpu": "250m", "memory": "3Gi"}},
    "scheduling": {
        "nodeSelector": {"pool": "gpu"},
        "tolerations": [{"key": "gpu", "operator": "Exists", "effect": "NoSchedule"}],
        "topologySpreadConstraints": [
            {"maxSkew": 1, "topologyKey": "kubernetes.io/hostname", "whenUnsatisfiable": "ScheduleAnyway"}
        ],
        "affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": []}}},
        "priorityClassName": "completion",
        "schedulerName": "other",
        "runtimeClassName": "nvidia",
    },
    "worker": {
        "labels": {"cost-centre": "7"},
        "annotations": {"note": "of the platform"},
        "env": [{"name": "HTTPS_PROXY", "value": "http://proxy:3128"}],
        "volumes": [{"name": "ca", "configMap": {"name": "ca"}}],
        "volumeMounts": [{"name": "ca", "mountPath": "/mnt/ca", "readOnly": True}],
        "imagePullSecrets": [{"name": "pull"}],
    },
}

ADDED = replace(
    PLATFORM,
    env=({"name": "PYTHONPATH", "value": "/opt/aixcoder/code"},),
    volumes=({"name": "dependencies", "persistentVolumeClaim": {"claimName": "aixcoder-dependencies"}},),
    volume_mounts=({"name": "dependencies", "mountPath": "/opt/aixcoder/dependencies", "readOnly": True},),
    image_pull_secrets=({"name": "of-the-platform"},),
)


METADATA = {"name": "demo", "namespace": "team", "uid": "1"}


def deployment(**spec: Any) -> AixcoderDeployment:
    return read({"metadata": METADATA, "spec": spec_of(**spec)})


CLAIM = {"model": {"source": {"persistentVolumeClaim": {"claimName": "weights", "path": "aixcoder-7b"}}}}

TEMPLATES: dict[str, Object] = {
    "head": head_template(deployment(), PLATFORM),
    "worker": worker_template(deployment(), PLATFORM),
    "head-full": head_template(deployment(**FULL), ADDED),
    "worker-full": worker_template(deployment(**FULL), ADDED),
}


@pytest.mark.parametrize("template", TEMPLATES)
def test_golden(template: str) -> None:
    file = GOLDEN / f"{template}.yaml"
    if os.environ.get("AIXCODER_WRITE_GOLDEN"):
        file.parent.mkdir(exist_ok=True)
        file.write_text("---\n" + yaml.safe_dump(TEMPLATES[template], sort_keys=True, width=110), encoding="utf-8")
    assert TEMPLATES[template] == yaml.safe_load(file.read_text(encoding="utf-8"))


RESTRICTED_VOLUMES = {"configMap", "emptyDir", "ephemeral", "image", "persistentVolumeClaim", "projected", "secret"}


@pytest.mark.parametrize("template", [*TEMPLATES, "worker-claim", "head-claim"])
def test_pod_security_restricted(template: str) -> None:
    made = TEMPLATES | {
        "worker-claim": worker_template(read({"metadata": METADATA, "spec": spec_of() | CLAIM}), PLATFORM),
        "head-claim": head_template(deployment(head={"storageClassName": "fast"}), PLATFORM),
    }
    spec = made[template]["spec"]
    assert not {"hostNetwork", "hostPID", "hostIPC", "initContainers"} & spec.keys()
    pod = spec["securityContext"]
    assert pod["runAsNonRoot"] is True
    assert pod["runAsUser"] > 0
    assert pod["seccompProfile"] == {"type": "RuntimeDefault"}
    assert not {"sysctls", "seLinuxOptions", "windowsOptions"} & pod.keys()
    for container in spec["containers"]:
        security = container["securityContext"]
        assert security["allowPrivilegeEscalation"] is False
        assert security["capabilities"] == {"drop": ["ALL"]}
        assert security["readOnlyRootFilesystem"] is True
        assert not {"privileged", "runAsUser", "procMount", "seccompProfile"} & security.keys()
        assert not any("hostPort" in port for port in container["ports"])
    for volume in spec["volumes"]:
        assert len(volume) == 2
        assert volume.keys() & RESTRICTED_VOLUMES
    assert spec["automountServiceAccountToken"] is False


@pytest.mark.parametrize("template", [*TEMPLATES])
def test_every_mount_has_its_volume_and_every_volume_its_mount(template: str) -> None:
    spec = TEMPLATES[template]["spec"]
    mounted = {mount["name"] for container in spec["containers"] for mount in container["volumeMounts"]}
    assert mounted == {volume["name"] for volume in spec["volumes"]}


def test_no_secret_stands_in_a_template() -> None:
    demo = ready()
    token = "0" * 64
    for (kind, _), obj in demo.world.objects.items():
        assert kind == "Secret" or token not in str(obj)


def test_selectors_find_their_own_pods_and_no_others() -> None:
    demo = ready(replicas=2)
    demo.change(model="b")
    demo.wait(8)
    pods = demo.world.of_kind("Pod")
    for service in demo.world.of_kind("Service"):
        selector = service["spec"]["selector"].items()
        found = [pod for pod in pods if selector <= labels(pod).items()]
        unit, component = labels(service)[names.UNIT_LABEL], labels(service)[names.COMPONENT_LABEL]
        assert found == demo.world.pods(unit, component)
        assert found
    budget = demo.world.of_kind("PodDisruptionBudget")[0]["spec"]["selector"]["matchLabels"].items()
    assert {labels(pod)[names.COMPONENT_LABEL] for pod in pods if budget <= labels(pod).items()} == {names.WORKER}


def test_spread_counts_the_unit_where_the_user_names_no_selector() -> None:
    own = {"labelSelector": {}, "maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule"}
    demo = Simulator()
    demo.create(scheduling={"topologySpreadConstraints": [FULL["scheduling"]["topologySpreadConstraints"][0], own]})
    demo.run()
    worker = demo.workers()[0]
    filled, kept = worker["spec"]["topologySpreadConstraints"]
    assert filled["labelSelector"]["matchLabels"].items() <= labels(worker).items()
    assert kept["labelSelector"] == {}


def test_a_claims_folder_is_the_model_path() -> None:
    of_claim = read({"metadata": METADATA, "spec": spec_of() | CLAIM})
    assert application(of_claim).args["model_path"] == "/models/aixcoder-7b"
    volumes = worker_template(of_claim, PLATFORM)["spec"]["volumes"]
    assert {"claimName": "weights", "readOnly": True} in [volume.get("persistentVolumeClaim") for volume in volumes]


def test_a_name_that_platform_and_user_both_give_stands_once() -> None:
    twice = replace(
        PLATFORM,
        env=({"name": "HTTPS_PROXY", "value": "of the platform"},),
        image_pull_secrets=({"name": "pull"},),
    )
    spec = worker_template(deployment(**FULL), twice)["spec"]
    assert spec["imagePullSecrets"] == [{"name": "pull"}]
    proxies = [entry["value"] for entry in spec["containers"][0]["env"] if entry["name"] == "HTTPS_PROXY"]
    assert proxies == ["of the platform"]
