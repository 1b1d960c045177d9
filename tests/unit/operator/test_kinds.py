import pytest

from aixcoder_operator.cluster import kinds
from aixcoder_operator.cluster.kinds import Resource, resource_of

PATHS = [
    (kinds.POD, "n", "p", None, "/api/v1/namespaces/n/pods/p"),
    (kinds.POD, None, None, None, "/api/v1/pods"),
    (
        kinds.DEPLOYMENT,
        "n",
        "d",
        "status",
        "/apis/serving.aixcoder.io/v1alpha1/namespaces/n/aixcoderdeployments/d/status",
    ),
    (kinds.REPLICA_SET, "n", None, None, "/apis/apps/v1/namespaces/n/replicasets"),
    (
        kinds.CUSTOM_RESOURCE_DEFINITION,
        None,
        "x.y",
        None,
        "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/x.y",
    ),
    (kinds.POD, "n", "../secrets/s", None, "/api/v1/namespaces/n/pods/..%2Fsecrets%2Fs"),
]


@pytest.mark.parametrize(("resource", "namespace", "name", "subresource", "path"), PATHS)
def test_paths(resource: Resource, namespace: str | None, name: str | None, subresource: str | None, path: str) -> None:
    assert resource.path(namespace, name, subresource) == path


def test_every_child_kind_is_found_by_an_objects_own_words() -> None:
    for resource in (*kinds.CHILD_KINDS, kinds.SECRET, kinds.DEPLOYMENT):
        assert resource_of({"apiVersion": resource.api_version, "kind": resource.kind}) is resource
    with pytest.raises(KeyError):
        resource_of({"apiVersion": "v1", "kind": "Node"})
