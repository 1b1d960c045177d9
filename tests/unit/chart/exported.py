"""The series that the three programs really export, read from pages that their own registries make."""

from __future__ import annotations

import functools

from prometheus_client import CollectorRegistry
from prometheus_client.metrics import MetricWrapperBase
from prometheus_client.parser import text_string_to_metric_families

from aixcoder_operator.metrics import Metrics as OperatorMetrics
from aixcoder_serving.engine.interface import EngineStats
from aixcoder_serving.gateway.metrics import Metrics as GatewayMetrics
from aixcoder_serving.replica.metrics import EngineMetrics

Labels = dict[str, frozenset[str]]
"""Label → its values; of a label that a program fills as it goes they mean nothing."""


@functools.cache
def exported() -> dict[str, dict[str, Labels]]:
    """{program: {series, with the suffixes of its type: its labels}}."""
    operator, gateway = OperatorMetrics(), GatewayMetrics()
    for registry in (operator._registry, gateway.registry):
        _fill(registry)
    pages = {"operator": operator.page(), "gateway": gateway.page(), "replica": EngineMetrics(EngineStats).page()}
    return {program: _series(page.decode()) for program, page in pages.items()}


def _fill(registry: CollectorRegistry) -> None:
    """A metric with labels is on the page once it has values of them."""
    for collector in tuple(registry._collector_to_names):
        assert isinstance(collector, MetricWrapperBase)
        if collector._labelnames:
            collector.labels(*collector._labelnames)


def _series(page: str) -> dict[str, Labels]:
    found: dict[str, dict[str, set[str]]] = {}
    for family in text_string_to_metric_families(page):
        for sample in family.samples:
            labels = found.setdefault(sample.name, {})
            for label, value in sample.labels.items():
                labels.setdefault(label, set()).add(value)
    return {name: {label: frozenset(values) for label, values in labels.items()} for name, labels in found.items()}
