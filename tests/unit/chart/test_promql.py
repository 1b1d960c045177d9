"""The reader of expressions that the tests of alerts and dashboard rest on."""

import pytest

from tests.unit.chart.promql import Names, Selector, names

CASES: dict[str, tuple[str, Names]] = {
    "one series": ("up", Names((Selector("up"),), frozenset())),
    "matchers": (
        'a_total{x="1", y=~"b|c"}',
        Names((Selector("a_total", (("x", "=", "1"), ("y", "=~", "b|c"))),), frozenset()),
    ),
    "functions and numbers are none": (
        "histogram_quantile(0.99, rate(a:b_bucket[5m])) > 2e3",
        Names((Selector("a:b_bucket"),), frozenset()),
    ),
    "groupings": (
        "sum by (x, y) (a) / on (x) group_left (z) max without (pod) (b)",
        Names((Selector("a"), Selector("b")), frozenset({"x", "y", "z", "pod"})),
    ),
    "words between series": (
        "a == 0 and b > bool c or absent(d) unless on (x) e offset 5m",
        Names(tuple(map(Selector, "abcde")), frozenset({"x"})),
    ),
    "a range of a subquery": (
        "sum_over_time((a > bool b)[15m:30s])",
        Names((Selector("a"), Selector("b")), frozenset()),
    ),
    "a variable for a range": ("rate(a[$__rate_interval])", Names((Selector("a"),), frozenset())),
}


@pytest.mark.parametrize(("expression", "expected"), CASES.values(), ids=CASES.keys())
def test_names(expression: str, expected: Names) -> None:
    assert names(expression) == expected
