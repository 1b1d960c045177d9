"""PodMonitors: they find the pods there are, and give series the labels that alerts and dashboard rest on."""

import re

import pytest

from aixcoder_operator.api.deployment import read
from aixcoder_operator.api.names import DEPLOYMENT_LABEL
from aixcoder_operator.plan import names
from aixcoder_operator.plan.worker import worker_template
from tests.unit.chart.exported import exported
from tests.unit.chart.render import EVERYTHING, Object, find, objects, pod_templates
from tests.unit.plan.simulator import PLATFORM, spec_of

MONITORS: Object = {"podMonitor": {"enabled": True}}


def test_pod_monitors_scrape_ports_that_exist() -> None:
    rendered = objects(EVERYTHING)
    for component in ("operator", "gateway"):
        monitor = find(rendered, "PodMonitor", f"aixcoder-{component}")
        pod = pod_templates(rendered)[f"Deployment/aixcoder-{component}"]
        (endpoint,) = monitor["spec"]["podMetricsEndpoints"]
        assert endpoint["port"] in [port["name"] for port in pod["spec"]["containers"][0]["ports"]]
        assert monitor["spec"]["selector"]["matchLabels"].items() <= pod["metadata"]["labels"].items()
        assert monitor["metadata"]["labels"]["release"] == "prometheus"


@pytest.mark.parametrize(
    ("values", "expected"),
    [(MONITORS, {"any": True}), ({**MONITORS, "namespaces": ["a", "b"]}, {"matchNames": ["a", "b"]})],
    ids=["all namespaces", "listed namespaces"],
)
def test_replicas_are_scraped_where_deployments_are_served(values: Object, expected: Object) -> None:
    assert find(objects(values), "PodMonitor", "aixcoder-replica")["spec"]["namespaceSelector"] == expected


def test_replicas_are_scraped_at_the_port_and_by_the_labels_that_the_operator_gives_them() -> None:
    """By the operator's own templates; heads, operator and gateway are not meant."""
    deployment = read({"metadata": {"name": "fast", "namespace": "team", "uid": "1"}, "spec": spec_of()})
    spec = find(objects(MONITORS), "PodMonitor", "aixcoder-replica")["spec"]
    wanted = spec["selector"]["matchLabels"].items()
    (endpoint,) = spec["podMetricsEndpoints"]
    worker = names.unit_labels("fast", "fast-a", "fast-a", names.WORKER)
    assert wanted <= worker.items()
    assert not wanted <= names.unit_labels("fast", "fast-a", "fast-a", names.HEAD).items()
    container = worker_template(deployment, PLATFORM)["spec"]["containers"][0]
    assert endpoint["port"] in [port["name"] for port in container["ports"]]
    sources = {rule["sourceLabels"][0]: rule["targetLabel"] for rule in endpoint["relabelings"]}
    meta = {f"__meta_kubernetes_pod_label_{re.sub('[^a-zA-Z0-9_]', '_', label)}": label for label in worker}
    assert {meta[source]: target for source, target in sources.items()} == {
        DEPLOYMENT_LABEL: "name",
        names.REVISION_LABEL: "revision",
    }


def test_what_the_operator_tells_of_a_deployment_keeps_the_deployments_namespace() -> None:
    [endpoint] = find(objects(MONITORS), "PodMonitor", "aixcoder-operator")["spec"]["podMetricsEndpoints"]
    assert endpoint["honorLabels"] is True
    assert "namespace" in exported()["operator"]["aixcoder_operator_autoscaling_desired"]
