"""The rendered alerts by Prometheus' own promtool: they are valid, and each fires when it should and only then."""

import re
from pathlib import Path
from typing import Any

import pytest

from tests.component.chart.alert_cases import CASES, Case
from tests.component.chart.promtool import promtool, written
from tests.unit.chart.promql import names
from tests.unit.chart.test_monitoring import ALERTS, SERIES, targets

STEP_SECONDS = 30


@pytest.fixture
def rules(tmp_path: Path) -> Path:
    """The rendered rules in a file."""
    return written(tmp_path / "rules.json", {"groups": [{"name": "aixcoder", "rules": list(ALERTS.values())}]})


def test_the_alerts_are_valid(rules: Path) -> None:
    assert f"{len(ALERTS)} rules found" in promtool("check", "rules", "--lint=all", "--lint-fatal", rules)


def test_every_query_of_the_dashboard_is_valid(tmp_path: Path) -> None:
    """As recording rules, with Grafana's variables filled in."""
    queries = [re.sub(r"\$__rate_interval", "5m", target["expr"]) for _, target in targets()]
    recorded = [{"record": f"query_{number}", "expr": query} for number, query in enumerate(queries)]
    file = written(tmp_path / "queries.json", {"groups": [{"name": "dashboard", "rules": recorded}]})
    assert f"{len(recorded)} rules found" in promtool("check", "rules", file)


def test_every_alert_is_shown_to_fire_and_not_to() -> None:
    assert {case.alert for case in CASES.values() if case.fires is not None} == ALERTS.keys()
    assert {case.alert for case in CASES.values() if case.fires is None} == ALERTS.keys()


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_an_alert_fires_when_it_should_and_only_then(case: Case, rules: Path, tmp_path: Path) -> None:
    for series in case.series:
        [selector] = names(series).selectors
        assert {label for label, _, _ in selector.matchers} <= SERIES[selector.name].keys(), series
    firing: list[dict[str, Any]] = []
    if case.fires is not None:
        labels = {"alertname": case.alert, "alertstate": "firing", **ALERTS[case.alert]["labels"], **case.fires}
        told = ",".join(f'{label}="{value}"' for label, value in labels.items())
        firing = [{"labels": f"ALERTS{{{told}}}", "value": 1}]
    test = {
        "interval": f"{STEP_SECONDS}s",
        "input_series": [{"series": series, "values": samples} for series, samples in case.series.items()],
        "promql_expr_test": [
            {
                "expr": f'ALERTS{{alertname="{case.alert}",alertstate="firing"}}',
                "eval_time": f"{case.at}m",
                "exp_samples": firing,
            }
        ],
    }
    file = written(
        tmp_path / "test.json",
        {"rule_files": [str(rules)], "evaluation_interval": f"{STEP_SECONDS}s", "tests": [test]},
    )
    assert "SUCCESS" in promtool("test", "rules", file)
