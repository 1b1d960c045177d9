"""What the roles of the chart grant."""

import pytest

from tests.unit.chart.render import EVERYTHING, VALUE_SETS, Object, objects, rules

each_set = pytest.mark.parametrize("values", VALUE_SETS.values(), ids=VALUE_SETS.keys())
READS = {"get", "list", "watch"}


@each_set
def test_no_role_has_a_wildcard(values: Object) -> None:
    for role, rule in rules(objects(values)):
        for part in ("apiGroups", "resources", "verbs"):
            assert "*" not in rule[part], role


@each_set
def test_no_role_reads_a_secret(values: Object) -> None:
    verbs = {verb for _, rule in rules(objects(values)) if "secrets" in rule["resources"] for verb in rule["verbs"]}
    assert not verbs & READS
    assert verbs <= {"create", "patch"}


def test_the_gateway_writes_nothing() -> None:
    granted = {verb for role, rule in rules(objects()) if role.endswith("-gateway") for verb in rule["verbs"]}
    assert granted
    assert granted <= READS


def test_all_namespaces_need_cluster_roles() -> None:
    kinds = {
        role.split("/")[0] for role, _ in rules(objects()) if role.endswith(("platform-aixcoder-operator", "gateway"))
    }
    assert kinds == {"ClusterRole"}


def test_listed_namespaces_get_a_role_each_and_the_cluster_none() -> None:
    rendered = objects({**EVERYTHING, "rbac": {"aggregate": False}})
    served = [o for o in rendered if o["kind"] == "Role" and o["metadata"]["name"].startswith("platform-aixcoder-")]
    assert {(o["metadata"]["namespace"], o["metadata"]["name"].rsplit("-", 1)[1]) for o in served} == {
        (namespace, component) for namespace in ("team-a", "team-b") for component in ("operator", "gateway")
    }
    # What is left for the whole cluster is to read one definition by its name.
    assert [rule for role, rule in rules(rendered) if role.startswith("ClusterRole/")] == [
        {
            "apiGroups": ["apiextensions.k8s.io"],
            "resources": ["customresourcedefinitions"],
            "resourceNames": ["aixcoderdeployments.serving.aixcoder.io"],
            "verbs": ["get"],
        }
    ]
    for o in rendered:
        if o["kind"] == "RoleBinding":
            assert {subject["namespace"] for subject in o["subjects"]} == {"platform"}


@each_set
def test_every_binding_names_a_role_and_an_account_that_are_there(values: Object) -> None:
    rendered = objects(values)
    present = {(o["kind"], o["metadata"].get("namespace"), o["metadata"]["name"]) for o in rendered}
    created = {name for kind, _, name in present if kind == "ServiceAccount"}
    brought = {values.get(component, {}).get("serviceAccount", {}).get("name") for component in ("operator", "gateway")}
    for o in rendered:
        if o["kind"].endswith("RoleBinding"):
            assert (o["roleRef"]["kind"], o["metadata"].get("namespace"), o["roleRef"]["name"]) in present
            assert {subject["name"] for subject in o["subjects"]} <= created | brought


def test_people_get_the_resource_with_the_clusters_own_roles() -> None:
    roles = {
        o["metadata"]["name"]: {label for label in o["metadata"]["labels"] if "aggregate-to" in label}
        for o in objects()
        if o["kind"] == "ClusterRole"
    }
    prefix = "rbac.authorization.k8s.io/aggregate-to-"
    assert roles["platform-aixcoder-view"] == {prefix + role for role in ("view", "edit", "admin")}
    assert roles["platform-aixcoder-edit"] == {prefix + role for role in ("edit", "admin")}
    assert not [o for o in objects(VALUE_SETS["no aggregation"]) if o["metadata"]["name"].endswith(("-view", "-edit"))]


def test_no_rbac_where_the_platform_brings_its_own() -> None:
    rendered = objects(
        {"rbac": {"create": False}, "operatorKey": {"existingSecret": "key"}, "dataKey": {"existingSecret": "data"}}
    )
    assert [o["kind"] for o in rendered if "Role" in o["kind"]] == []
