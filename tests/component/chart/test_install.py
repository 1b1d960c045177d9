"""The chart on a real API server with controllers: admission, rights, the life of a release.

There are no nodes, so no hook can run: releases bring keys of their own.
"""

import json
from itertools import product
from typing import Any

import pytest

from tests.component.chart.conftest import Release, until
from tests.unit.chart.render import EVERYTHING, VALUE_SETS, objects, pod_templates

KEYS = {"operatorKey": {"existingSecret": "our-key"}, "dataKey": {"existingSecret": "data-key"}}


def allowed(release: Release, user: str, groups: list[str], asked: list[dict[str, str]]) -> list[bool]:
    """The API server's own answers to whether a user may do each of what is asked (resourceAttributes)."""
    reviews = [
        {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SubjectAccessReview",
            "spec": {"user": user, "groups": groups, "resourceAttributes": attributes},
        }
        for attributes in asked
    ]
    stream = "\n---\n".join(map(json.dumps, reviews))
    answers = release.plane.kubectl(
        "create", "-f", "-", "-o", "jsonpath={.status.allowed}{'\\n'}", stdin=stream
    ).split()
    assert len(answers) == len(asked)
    return [answer == "true" for answer in answers]


@pytest.mark.parametrize("values", VALUE_SETS.values(), ids=VALUE_SETS.keys())
def test_every_object_and_every_pod_is_admitted(release: Release, values: dict[str, Any]) -> None:
    """Under Pod Security `restricted`, by the API server's own validation, with unknown fields refused."""
    values = {**values, "namespaces": [release.namespace] if values.get("namespaces") else []}
    rendered = objects(values, namespace=release.namespace)
    stream = "\n---\n".join(map(json.dumps, rendered))
    release.plane.kubectl("create", "--dry-run=server", "--validate=strict", "-f", "-", stdin=stream)
    for name, template in pod_templates(rendered).items():
        metadata = {"name": "probe", "namespace": release.namespace, "labels": template["metadata"]["labels"]}
        spec = {**template["spec"], "serviceAccountName": "default", "priorityClassName": ""}
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}
        said = release.plane.kubectl(
            "create", "--dry-run=server", "--validate=strict", "-f", "-", stdin=json.dumps(pod)
        )
        assert "created" in said, name


def test_install_upgrade_rollback_uninstall(release: Release) -> None:
    release.helm("install", "aixcoder", values=KEYS)
    pods = until(lambda: release.get("pods")["items"], lambda pods: len(pods) == 4)
    assert {pod["spec"]["serviceAccountName"] for pod in pods} == {"aixcoder-operator", "aixcoder-gateway"}
    first = {d["metadata"]["name"]: d for d in release.get("deployments")["items"]}

    # The same again changes nothing that runs.
    release.helm("upgrade", "aixcoder", values=KEYS)
    same = {d["metadata"]["name"]: d for d in release.get("deployments")["items"]}
    assert {n: d["metadata"]["generation"] for n, d in same.items()} == {
        n: d["metadata"]["generation"] for n, d in first.items()
    }

    release.helm(
        "upgrade", "aixcoder", values={**KEYS, "image": {"control": {"tag": "next"}}, "gateway": {"replicas": 3}}
    )
    changed = {d["metadata"]["name"]: d["spec"] for d in release.get("deployments")["items"]}
    assert changed["aixcoder-gateway"]["replicas"] == 3
    assert changed["aixcoder-operator"]["template"]["spec"]["containers"][0]["image"] == "aixcoder/control:next"

    release.helm("rollback", "aixcoder", "1")
    back = {d["metadata"]["name"]: d["spec"] for d in release.get("deployments")["items"]}
    assert back == {name: d["spec"] for name, d in first.items()}

    resource = {
        "apiVersion": "serving.aixcoder.io/v1alpha1",
        "kind": "AixcoderDeployment",
        "metadata": {"name": "completion", "namespace": release.namespace},
        "spec": {
            "model": {"source": {"image": {"reference": "weights.example/aixcoder-7b:1"}}},
            "engine": {"device": "cpu"},
        },
    }
    release.plane.kubectl("create", "-f", "-", stdin=json.dumps(resource))
    release.helm("uninstall", "aixcoder")
    assert (
        release.get("deployments,services,configmaps,roles,rolebindings,pdb", "-l", "app.kubernetes.io/name=aixcoder")[
            "items"
        ]
        == []
    )
    prefix = f"{release.namespace}-aixcoder"
    cluster_wide = json.loads(release.plane.kubectl("get", "clusterroles,clusterrolebindings", "-o", "json"))["items"]
    assert [o["metadata"]["name"] for o in cluster_wide if o["metadata"]["name"].startswith(prefix)] == []
    # Kept: the definition, and the deployments with it. A new installation takes them over.
    assert release.get("axd")["items"][0]["metadata"]["name"] == "completion"
    release.helm("install", "aixcoder", values=KEYS)
    assert release.get("axd")["items"][0]["metadata"]["name"] == "completion"


def test_the_rights_of_each_account_as_the_api_server_sees_them(release: Release) -> None:
    values = KEYS
    release.helm("install", "aixcoder", values=values)
    namespace = release.namespace

    def rights(account: str, group: str, resource: str, *verbs: str, where: str = "elsewhere") -> list[bool]:
        asked = [{"namespace": where, "group": group, "resource": resource, "verb": verb} for verb in verbs]
        return allowed(release, f"system:serviceaccount:{namespace}:{account}", ["system:authenticated"], asked)

    every = ("get", "list", "watch", "create", "update", "patch", "delete")
    may = rights("aixcoder-operator", "", "secrets", *every)
    assert may == [False, False, False, True, False, True, False]
    assert all(rights("aixcoder-operator", "", "pods", "list", "watch", "create", "patch", "delete"))
    assert not any(
        rights("aixcoder-operator", "serving.aixcoder.io", "aixcoderdeployments", "create", "update", "delete")
    )
    assert not any(rights("aixcoder-operator", "rbac.authorization.k8s.io", "clusterroles", *every))
    assert not any(rights("aixcoder-operator", "", "nodes", "create", "patch", "delete"))
    assert all(rights("aixcoder-operator", "coordination.k8s.io", "leases", "create", where=namespace))
    assert not any(rights("aixcoder-operator", "coordination.k8s.io", "leases", *every))
    assert (
        rights("aixcoder-gateway", "serving.aixcoder.io", "aixcoderdeployments", *every)
        == [False, True, True] + [False] * 4
    )
    for resource in ("secrets", "pods", "services", "configmaps"):
        assert not any(rights("aixcoder-gateway", "", resource, *every))


def test_people_see_and_change_deployments_with_the_clusters_own_roles(release: Release) -> None:
    release.helm("install", "aixcoder", values=KEYS)
    for role in ("view", "edit", "admin"):
        binding = f"--namespace={release.namespace}"
        release.plane.kubectl("create", "rolebinding", role, f"--clusterrole={role}", f"--user=person-{role}", binding)
    verbs = ("get", "list", "watch", "create", "update", "patch", "delete")
    resources = (("aixcoderdeployments", ""), ("aixcoderdeployments", "status"), ("aixcoderdeployments", "scale"))
    asked = [
        {"namespace": release.namespace, "group": "serving.aixcoder.io", "resource": r, "subresource": s, "verb": verb}
        for (r, s), verb in product(resources, verbs)
    ]

    def may(role: str) -> dict[str, set[str]]:
        answers = allowed(release, f"person-{role}", ["system:authenticated"], asked)
        granted: dict[str, set[str]] = {"": set(), "status": set(), "scale": set()}
        for attributes, answer in zip(asked, answers, strict=True):
            if answer:
                granted[attributes["subresource"]].add(attributes["verb"])
        return granted

    reads, writes = {"get", "list", "watch"}, {"create", "update", "patch", "delete"}
    # The controller manager copies the rules into the cluster's roles a moment later.
    until(lambda: may("view"), lambda granted: granted == {"": reads, "status": reads, "scale": reads})
    for role in ("edit", "admin"):
        expected = {"": reads | writes, "status": reads, "scale": reads | {"update", "patch"}}
        until(lambda role=role: may(role), lambda granted, expected=expected: granted == expected)  # type: ignore[misc]


def test_listed_namespaces_bind_the_operator_to_them(release: Release) -> None:
    values = {**EVERYTHING, **KEYS, "namespaces": [release.namespace]}
    release.helm("install", "aixcoder", values={**values, "gateway": {}})
    user = f"system:serviceaccount:{release.namespace}:operator-account"
    asked = [{"namespace": where, "resource": "pods", "verb": "create"} for where in (release.namespace, "default")]
    assert allowed(release, user, ["system:authenticated"], asked) == [True, False]


def test_the_deployment_in_the_notes_is_accepted(release: Release) -> None:
    notes = release.helm("install", "aixcoder", values=KEYS)
    manifest = "\n".join(line[3:] for line in notes.split("<<EOF\n")[1].split("EOF")[0].splitlines())
    said = release.plane.kubectl("create", "--dry-run=server", "--validate=strict", "-f", "-", stdin=manifest)
    assert "aixcoderdeployment.serving.aixcoder.io/completion created" in said
