"""What the chart renders, by the real helm program."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from aixcoder_operator.settings import read_settings
from tests.unit.chart.render import (
    CHART,
    EVERYTHING,
    VALUE_SETS,
    Object,
    find,
    helm,
    images,
    objects,
    pod_templates,
    template,
)

each_set = pytest.mark.parametrize("values", VALUE_SETS.values(), ids=VALUE_SETS.keys())


@each_set
def test_two_renders_are_the_same(values: Object) -> None:
    assert template(values) == template(values)


def test_lint_finds_nothing() -> None:
    done = helm("lint", "--strict", str(CHART))
    assert done.returncode == 0, done.stdout + done.stderr


@each_set
def test_one_registry_value_moves_every_image(values: Object) -> None:
    moved = {**values, "image": {**values.get("image", {}), "registry": "mirror.example/ai"}}
    found = list(images(objects(moved)))
    assert len(found) >= 4
    assert [image for image in found if not image.startswith("mirror.example/ai/aixcoder/")] == []


def test_a_digest_is_used_in_place_of_a_tag() -> None:
    digest = "sha256:" + "b" * 64
    found = set(images(objects({"image": {"control": {"digest": digest, "tag": "1"}, "serving": {"tag": "2"}}})))
    assert found == {f"aixcoder/control@{digest}", "aixcoder/serving:2"}


@pytest.mark.parametrize("values", [{}, EVERYTHING], ids=["default", "everything"])
def test_the_operator_reads_the_settings_that_the_chart_writes(values: Object, tmp_path: Path) -> None:
    file = tmp_path / "operator.yaml"
    file.write_text(find(objects(values), "ConfigMap", "aixcoder-operator")["data"]["operator.yaml"])
    settings = read_settings(file)
    assert settings.gateway.service == "aixcoder-gateway-internal"
    assert settings.gateway.namespace == settings.lease.namespace == "platform"
    mounts = pod_templates(objects(values))["Deployment/aixcoder-operator"]["spec"]["containers"][0]["volumeMounts"]
    folders = {mount["mountPath"] for mount in mounts}
    assert {str(settings.key_file.parent), str(settings.data_key_file.parent)} <= folders
    if values:
        assert settings.namespaces == ("team-a", "team-b")
        assert settings.cluster_domain == "corp.example"
        assert settings.metrics_peers == tuple(values["networkPolicy"]["metrics"])
        assert settings.serving_image == "mirror.example:5000/ai/aixcoder/serving@sha256:" + "a" * 64
        assert settings.serving.image_pull_secrets == ({"name": "mirror"}, {"name": "models"})
        assert settings.serving.env == ({"name": "NCCL_DEBUG", "value": "WARN"},)
        assert settings.serving.volumes[0]["name"] == settings.serving.volume_mounts[0]["name"] == "dependencies"
        assert (settings.workers, settings.resync_seconds, settings.log_level) == (8, 300, "debug")


def test_a_change_of_the_settings_restarts_the_operator_alone() -> None:
    before, after = pod_templates(objects()), pod_templates(objects({"image": {"serving": {"tag": "next"}}}))
    assert [name for name in before if before[name] != after[name]] == ["Deployment/aixcoder-operator"]


def test_a_new_version_of_the_chart_alone_restarts_nothing(tmp_path: Path) -> None:
    copy = tmp_path / "aixcoder"
    shutil.copytree(CHART, copy)
    description = yaml.safe_load((copy / "Chart.yaml").read_text())
    (copy / "Chart.yaml").write_text(yaml.safe_dump({**description, "version": "0.1.1"}))
    done = helm("template", "aixcoder", str(copy), "--namespace", "platform")
    assert done.returncode == 0, done.stderr
    after = [document for document in yaml.safe_load_all(done.stdout) if document]
    assert "aixcoder-0.1.1" in done.stdout
    deployments = {name: pod for name, pod in pod_templates(objects()).items() if name.startswith("Deployment/")}
    assert {name: pod_templates(after)[name] for name in deployments} == deployments


@each_set
def test_selectors_match_the_pods_and_nothing_of_a_deployment(values: Object) -> None:
    rendered = objects(values)
    worker = {"app.kubernetes.io/name": "aixcoder", "app.kubernetes.io/component": "worker"}
    pods = {name: pod["metadata"]["labels"] for name, pod in pod_templates(rendered).items()}
    for o in rendered:
        selector = o.get("spec", {}).get("selector") or o.get("spec", {}).get("podSelector")
        if not selector or o["metadata"]["name"] == "aixcoder-replica":  # that one is of the operator's pods
            continue
        wanted: dict[str, str] = selector.get("matchLabels", selector)
        matched = [name for name, labels in pods.items() if wanted.items() <= labels.items()]
        component = wanted["app.kubernetes.io/component"]
        assert matched == [f"Deployment/aixcoder-{component}"], o["metadata"]["name"]
        assert not wanted.items() <= worker.items()


def test_what_a_platform_adds_reaches_the_pods() -> None:
    pods = pod_templates(objects(EVERYTHING))
    for component in ("operator", "gateway"):
        pod = pods[f"Deployment/aixcoder-{component}"]
        [container] = pod["spec"]["containers"]
        added: dict[str, Any] = EVERYTHING[component]
        assert set(added["podAnnotations"].items()) <= set(pod["metadata"]["annotations"].items())
        assert container["env"] == added["env"]
        assert added["volumes"][0] in pod["spec"]["volumes"]
        assert added["volumeMounts"][0] in container["volumeMounts"]
        assert pod["spec"]["imagePullSecrets"] == [{"name": "mirror"}]
        assert container["imagePullPolicy"] == "Always"
    # The pods of the hook and of the test run where the operator may run.
    for name in ("Deployment/aixcoder-operator", "Job/aixcoder-create-key", "Pod/aixcoder-test"):
        spec = pods[name]["spec"]
        assert spec["priorityClassName"] == "system-cluster-critical"
        assert spec["nodeSelector"] == {"example.com/pool": "system"}
        assert spec["tolerations"] == [{"key": "system", "operator": "Exists"}]
        assert pods[name]["metadata"]["labels"]["example.com/pod"] == "operator"
    assert pods["Deployment/aixcoder-operator"]["spec"]["serviceAccountName"] == "operator-account"
    assert pods["Deployment/aixcoder-gateway"]["spec"]["serviceAccountName"] == "aixcoder-gateway"


def test_the_gateway_gets_its_flags_and_the_time_to_drain() -> None:
    spec = pod_templates(objects(EVERYTHING))["Deployment/aixcoder-gateway"]["spec"]
    [container] = spec["containers"]
    assert "--namespaces=team-a,team-b" in container["args"]
    assert "--api-keys=/etc/aixcoder/api-keys" in container["args"]
    assert "--drain-seconds=20" in container["args"]
    assert "--grace-seconds=100" in container["args"]
    assert spec["terminationGracePeriodSeconds"] > 120
    assert {"name": "api-keys", "mountPath": "/etc/aixcoder/api-keys", "readOnly": True} in container["volumeMounts"]
    [default] = pod_templates(objects())["Deployment/aixcoder-gateway"]["spec"]["containers"]
    assert "--api-keys=none" in default["args"]
    assert not [argument for argument in default["args"] if argument.startswith("--namespaces")]


def test_an_autoscaler_keeps_its_count_over_upgrades() -> None:
    rendered = objects(VALUE_SETS["gateway left to an autoscaler"])
    assert "replicas" not in find(rendered, "Deployment", "aixcoder-gateway")["spec"]
    assert find(rendered, "Deployment", "aixcoder-operator")["spec"]["replicas"] == 2


@each_set
def test_no_secret_is_an_environment_variable(values: Object) -> None:
    assert "secretKeyRef" not in json.dumps(pod_templates(objects(values)))


def test_the_key_is_no_part_of_the_release() -> None:
    rendered = objects()
    assert [o for o in rendered if o["kind"] == "Secret"] == []
    hook = find(rendered, "Job", "aixcoder-create-key")
    assert hook["metadata"]["annotations"]["helm.sh/hook"] == "pre-install,pre-upgrade"
    hooks = [o for o in rendered if o["metadata"]["name"] == "aixcoder-create-key"]
    assert {o["kind"] for o in hooks} == {"ServiceAccount", "Role", "RoleBinding", "Job"}
    assert all("hook-succeeded" in o["metadata"]["annotations"]["helm.sh/hook-delete-policy"] for o in hooks)


def keys_made(values: Object) -> list[str]:
    hook = pod_templates(objects(values))["Job/aixcoder-create-key"]
    return [argument for argument in hook["spec"]["containers"][0]["args"] if "/" in argument]


def key_volumes(values: Object, program: str) -> dict[str, tuple[str, str]]:
    """Volume → (Secret, key in it) of the keys that a program reads."""
    volumes = pod_templates(objects(values))[f"Deployment/aixcoder-{program}"]["spec"]["volumes"]
    secrets = {volume["name"]: volume["secret"] for volume in volumes if volume["name"].endswith("key")}
    return {name: (secret["secretName"], secret["items"][0]["key"]) for name, secret in secrets.items()}


def test_the_hook_makes_both_keys_and_the_gateway_gets_one_of_them() -> None:
    assert keys_made({}) == ["aixcoder-operator-key/key", "aixcoder-data-key/key"]
    data = ("aixcoder-data-key", "key")
    assert key_volumes({}, "operator") == {"key": ("aixcoder-operator-key", "key"), "data-key": data}
    assert key_volumes({}, "gateway") == {"data-key": data}


def test_a_key_of_ones_own_is_not_made() -> None:
    assert keys_made(VALUE_SETS["existing key"]) == ["aixcoder-data-key/key"]
    assert key_volumes(VALUE_SETS["existing key"], "operator")["key"] == ("our-key", "secret.bin")


def test_with_keys_of_ones_own_there_is_no_hook() -> None:
    rendered = objects(VALUE_SETS["existing keys"])
    assert [o for o in rendered if "create-key" in o["metadata"]["name"]] == []
    assert key_volumes(VALUE_SETS["existing keys"], "gateway") == {"data-key": ("data", "d")}


@pytest.mark.parametrize("release", ["aixcoder", "ai", "x" * 53], ids=["aixcoder", "ai", "longest"])
def test_names_fit_any_release(release: str) -> None:
    rendered = objects(release=release)
    for o in rendered:
        limit = 63 if o["kind"] in ("Service", "Job", "Pod") else 253
        assert len(o["metadata"]["name"]) <= limit
    assert len({(o["kind"], o["metadata"]["name"]) for o in rendered}) == len(rendered)


def test_releases_in_two_namespaces_share_no_cluster_wide_object() -> None:
    def names(namespace: str) -> set[tuple[str, str]]:
        rendered = objects({"crds": {"enabled": False}}, namespace=namespace)
        return {(o["kind"], o["metadata"]["name"]) for o in rendered if o["kind"].startswith("ClusterRole")}

    assert names("one")
    assert names("one") & names("two") == set()


def test_the_definition_is_the_generated_one_kept_at_uninstall() -> None:
    [generated] = [yaml.safe_load(path.read_text()) for path in (CHART / "files" / "crds").glob("*.yaml")]
    rendered = find(objects(), "CustomResourceDefinition", "aixcoderdeployments.serving.aixcoder.io")
    assert rendered["spec"] == generated["spec"]
    assert rendered["metadata"]["annotations"] == {
        **generated["metadata"].get("annotations", {}),
        "helm.sh/resource-policy": "keep",
    }
    assert not [o for o in objects({"crds": {"enabled": False}}) if o["kind"] == "CustomResourceDefinition"]


@pytest.mark.parametrize(
    ("service", "expected"),
    [
        ("ClusterIP", "port-forward -n platform service/aixcoder-gateway"),
        ("NodePort", "nodePort"),
        ("LoadBalancer", "loadBalancer"),
    ],
)
def test_the_notes_end_in_a_command_and_name_the_licence(service: str, expected: str) -> None:
    values = {"gateway": {"service": {"type": service}}}
    arguments = ("install", "aixcoder", str(CHART), "--namespace", "platform", "--dry-run=client")
    notes = helm(*arguments, values=values).stdout.split("NOTES:")[1]
    assert "commercial use needs an application" in notes
    assert "\nEOF\n" in notes, "pasted with a space before it, the shell would read on for ever"
    assert expected in notes
    last = notes.rstrip().splitlines()[-1].strip()
    assert last.startswith("curl ")
    body = last.split(" -d ")[1].strip("'")
    assert json.loads(body)["suffix"] == "\n"


def test_ways_from_outside_are_off_by_themselves() -> None:
    assert {o["kind"] for o in objects()} & {"Ingress", "HTTPRoute", "PodMonitor"} == set()


def test_ways_from_outside_lead_to_the_gateways_service() -> None:
    rendered = objects(EVERYTHING)
    service = find(rendered, "Service", "aixcoder-gateway")
    ingress = find(rendered, "Ingress", "aixcoder-gateway")["spec"]
    (rule,) = ingress["rules"]
    assert rule["http"]["paths"][0]["backend"]["service"] == {
        "name": service["metadata"]["name"],
        "port": {"name": service["spec"]["ports"][0]["name"]},
    }
    assert (rule["host"], ingress["tls"]) == (
        "complete.example",
        [{"secretName": "complete-tls", "hosts": ["complete.example"]}],
    )
    route = find(rendered, "HTTPRoute", "aixcoder-gateway")["spec"]
    assert route["rules"][0]["backendRefs"] == [{"name": service["metadata"]["name"], "port": 8000}]
