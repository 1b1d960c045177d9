"""Alerts and dashboard: each names what the programs really export, and is whole in itself."""

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest

from aixcoder_serving.gateway import problems
from aixcoder_serving.gateway.account import Account
from tests.unit.chart.exported import Labels, exported
from tests.unit.chart.promql import names
from tests.unit.chart.render import CHART, EVERYTHING, Object, find, objects

ON: Object = {
    "podMonitor": {"enabled": True},
    "prometheusRule": {"enabled": True},
    "dashboard": {"enabled": True},
}
DOCUMENT = (CHART.parents[1] / "docs" / "monitoring.md").read_text()
# What the Prometheus operator puts on each series of a pod.
OF_A_TARGET = frozenset({"namespace", "pod", "container", "endpoint", "job", "instance"})


def alerts() -> dict[str, Object]:
    """Alert → rule, as rendered."""
    groups = find(objects(ON), "PrometheusRule", "aixcoder-alerts")["spec"]["groups"]
    return {rule["alert"]: rule for group in groups for rule in group["rules"]}


def dashboard() -> Object:
    return json.loads(find(objects(ON), "ConfigMap", "aixcoder-dashboard")["data"]["aixcoder.json"])  # type: ignore[no-any-return]


def graphs() -> list[Object]:
    return [panel for panel in dashboard()["panels"] if panel["type"] != "row"]


def targets() -> Iterator[tuple[str, Object]]:
    for panel in graphs():
        for target in panel["targets"]:
            yield f"{panel['title']} {target['refId']}", target


def relabelled() -> set[str]:
    monitor = find(objects(ON), "PodMonitor", "aixcoder-replica")
    return {rule["targetLabel"] for rule in monitor["spec"]["podMetricsEndpoints"][0]["relabelings"]}


def series() -> dict[str, Labels]:
    """Series → labels, as they are in Prometheus."""
    found: dict[str, Labels] = {}
    for program, samples in exported().items():
        added = OF_A_TARGET | (relabelled() if program == "replica" else set())
        for name, labels in samples.items():
            found[name] = dict.fromkeys(added, frozenset[str]()) | labels
    return found


ALERTS, SERIES = alerts(), series()
EXPRESSIONS = {f"alert {name}": rule["expr"] for name, rule in ALERTS.items()} | {
    f"panel {name}": target["expr"] for name, target in targets()
}
each_expression = pytest.mark.parametrize("expression", EXPRESSIONS.values(), ids=EXPRESSIONS.keys())


@each_expression
def test_every_series_is_exported_with_the_labels_that_are_asked_for(expression: str) -> None:
    named = names(expression)
    assert {selector.name for selector in named.selectors} <= SERIES.keys()
    assert named.selectors
    for selector in named.selectors:
        assert {label for label, _, _ in selector.matchers} <= SERIES[selector.name].keys()
    assert named.groupings <= set().union(*(SERIES[selector.name] for selector in named.selectors))


@each_expression
def test_a_bucket_that_is_asked_for_is_one_of_the_histogram(expression: str) -> None:
    for selector in names(expression).selectors:
        for label, _, value in selector.matchers:
            if label == "le":
                assert value in SERIES[selector.name]["le"], selector.name


@each_expression
def test_counters_and_histograms_are_read_as_what_they_are(expression: str) -> None:
    """A counter by its growth, a gauge never so; a suffix that the parser of pages does not know would pass else."""
    for selector in names(expression).selectors:
        grows = selector.name.endswith(("_total", "_bucket", "_sum", "_count"))
        asked = re.search(rf"(?:rate|increase)\({re.escape(selector.name)}\b", expression) is not None
        assert grows == asked, selector.name


def test_the_outcomes_that_are_asked_for_are_those_of_a_request() -> None:
    asked = {
        outcome
        for expression in EXPRESSIONS.values()
        for selector in names(expression).selectors
        for label, _, value in selector.matchers
        if label == "outcome"
        for outcome in value.split("|")
    }
    lost = Account("openai", {})
    lost.ended(problems.replica_lost())
    assert asked == {"completed", lost.outcome}


@pytest.mark.parametrize("name", ALERTS)
def test_an_alert_has_a_sentence_and_says_what_to_do(name: str) -> None:
    rule = ALERTS[name]
    assert set(rule["annotations"]) == {"summary", "runbook"}
    assert all(text.endswith(".") and "\n" not in text for text in rule["annotations"].values())
    assert rule["labels"]["severity"] in ("critical", "warning")
    told = set(re.findall(r"\$labels\.(\w+)", " ".join(rule["annotations"].values())))
    assert told <= names(rule["expr"]).groupings
    assert f"`{name}`" in DOCUMENT


def test_the_document_tells_of_no_other_alert() -> None:
    assert set(re.findall(r"`(Aixcoder\w+)`", DOCUMENT)) - {"AixcoderDeployment"} == ALERTS.keys()


def test_labels_of_ones_own_are_on_every_alert_and_may_replace_the_severity() -> None:
    values = {"prometheusRule": {"enabled": True, "alertLabels": {"team": "ai", "severity": "page"}}}
    groups = find(objects(values), "PrometheusRule", "aixcoder-alerts")["spec"]["groups"]
    labels = [rule["labels"] for group in groups for rule in group["rules"]]
    assert labels == [{"team": "ai", "severity": "page"}] * len(ALERTS)


def test_monitoring_is_off_by_itself() -> None:
    rendered = objects()
    assert {o["kind"] for o in rendered} & {"PodMonitor", "PrometheusRule"} == set()
    assert [o for o in rendered if "dashboard" in o["metadata"]["name"]] == []


def test_rules_and_dashboard_carry_what_they_are_found_by() -> None:
    rendered = objects(EVERYTHING)
    rules = find(rendered, "PrometheusRule", "aixcoder-alerts")["metadata"]
    shown = find(rendered, "ConfigMap", "aixcoder-dashboard")["metadata"]
    assert rules["labels"].items() >= EVERYTHING["prometheusRule"]["labels"].items()
    assert shown["labels"]["grafana_dashboard"] == "1"
    assert shown["annotations"] == EVERYTHING["dashboard"]["annotations"]


def test_panels_have_ids_of_their_own_and_cover_each_other_nowhere() -> None:
    panels: list[Object] = dashboard()["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    assert len({panel["title"] for panel in panels}) == len(panels)
    cells = [
        (x, y)
        for place in (panel["gridPos"] for panel in panels)
        for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    ]
    assert len(set(cells)) == len(cells)
    assert max(x for x, _ in cells) < 24


def test_every_query_asks_the_data_source_that_one_chooses() -> None:
    shown = dashboard()
    variables = {variable["name"]: variable for variable in shown["templating"]["list"]}
    assert variables["datasource"]["type"] == "datasource"
    asking: list[Any] = [variable for name, variable in variables.items() if name != "datasource"]
    for panel in graphs():
        asking += [panel, *panel["targets"]]
    assert {one["datasource"]["uid"] for one in asking} == {"${datasource}"}
    used = set(re.findall(r"\$\{?(\w+)", json.dumps(shown))) - {"__rate_interval", "__all"}
    assert used == variables.keys()


def test_variables_list_values_of_series_that_are_exported() -> None:
    for variable in dashboard()["templating"]["list"][1:]:
        [(expression, label)] = re.findall(r"label_values\((.+), (\w+)\)", variable["query"]["query"])
        wanted = dict(re.findall(r'(\w+)=~"([^"]*)"', expression))
        # By pattern: replicas that are there, and deployments that are scaled and may have none.
        for series in wanted.pop("__name__", expression).split("|"):
            assert {label, *wanted} <= SERIES[series].keys()


@pytest.mark.parametrize(("target"), [target for _, target in targets()], ids=[name for name, _ in targets()])
def test_a_legend_names_labels_that_are_left(target: Object) -> None:
    assert set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"])) <= names(target["expr"]).groupings
