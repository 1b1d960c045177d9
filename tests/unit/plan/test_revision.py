"""Which change makes a revision, which stored one is taken, what is kept."""

from __future__ import annotations

from typing import Any

import pytest

from aixcoder_operator.api.deployment import RESTART_ANNOTATION, AixcoderDeployment, DeploymentSpec, read
from aixcoder_operator.api.objects import Object
from aixcoder_operator.plan import names
from aixcoder_operator.plan.head import head_template
from aixcoder_operator.plan.platform import Platform
from aixcoder_operator.plan.revision import (
    Revision,
    Templates,
    canonical,
    choose,
    controller_revision,
    history,
    stored,
)
from aixcoder_operator.plan.worker import application, worker_template
from tests.unit.plan.simulator import PLATFORM, spec_of


def deployment(restart: str | None = None, **spec: Any) -> AixcoderDeployment:
    annotations = {} if restart is None else {RESTART_ANNOTATION: restart}
    metadata = {"name": "demo", "namespace": "team", "uid": "1", "generation": 1, "annotations": annotations}
    return read({"metadata": metadata, "spec": spec_of(**spec)})


def rendered(of: AixcoderDeployment, platform: Platform = PLATFORM) -> Templates:
    return Templates(
        image=platform.serving_image,
        head=head_template(of, platform),
        worker=worker_template(of, platform),
        application=application(of),
        storage_class=of.spec.head.storage_class_name,
    )


def chosen(of: AixcoderDeployment, *revisions: Revision, current: str | None = None) -> Revision:
    return choose(of, revisions, current, lambda: rendered(of))


# Two specs and whether one revision serves both.
PAIRS: dict[str, tuple[Object, Object, bool]] = {
    "nothing": ({}, {}, True),
    "the model": ({}, {"model": "b"}, False),
    "the name for clients": (
        {},
        {"model": "a", "replicas": 3, "suspend": True, "completion": {"maxTokens": 3}, "rollout": {}},
        True,
    ),
    "dtype": ({}, {"engine": {"device": "cuda", "dtype": "float16"}}, False),
    "a default written out": ({}, {"engine": {"device": "cuda", "dtype": "bfloat16"}}, False),
    "memory": ({}, {"resources": {"gpu": {}, "memory": "1Gi"}}, False),
    "a quantity as number or text": (
        {"resources": {"gpu": {}, "cpu": 4}},
        {"resources": {"gpu": {}, "cpu": "4"}},
        True,
    ),
    "no GPU": ({"engine": {"device": "cpu"}}, {"engine": {"device": "cpu"}, "resources": {}}, False),
    "empty parts": ({}, {"worker": {"env": [], "labels": {}}, "head": {"resources": {}}, "scheduling": {}}, True),
    "an empty affinity": ({}, {"scheduling": {"affinity": {}}}, True),
    "a storage class": ({}, {"head": {"storageClassName": "fast"}}, False),
    "a label": ({}, {"worker": {"labels": {"team": "x"}}}, False),
    "an empty value": ({"worker": {"env": [{"name": "A"}]}}, {"worker": {"env": [{"name": "A", "value": ""}]}}, False),
    "a selector that selects everything": (
        {"scheduling": {"affinity": {"podAntiAffinity": {"x": [{"topologyKey": "zone"}]}}}},
        {"scheduling": {"affinity": {"podAntiAffinity": {"x": [{"topologyKey": "zone", "namespaceSelector": {}}]}}}},
        False,
    ),
    "an empty folder by its word": (
        {"worker": {"volumes": [{"name": "x", "emptyDir": {}}]}},
        {"worker": {"volumes": [{"name": "x", "emptyDir": {"medium": "Memory"}}]}},
        False,
    ),
}


@pytest.mark.parametrize("case", PAIRS)
def test_what_makes_a_revision(case: str) -> None:
    one, other, same = PAIRS[case]
    specs = [DeploymentSpec.model_validate(spec_of(**spec)) for spec in (one, other)]
    assert (canonical(specs[0]) == canonical(specs[1])) is same


def test_the_name_for_clients_is_no_part_of_a_revision() -> None:
    spec = spec_of()
    named = spec_of() | {"model": spec["model"] | {"servedName": "x"}}
    assert canonical(DeploymentSpec.model_validate(named)) == canonical(DeploymentSpec.model_validate(spec))


def test_a_first_revision() -> None:
    found = chosen(deployment())
    assert (found.number, found.restart) == (1, "")
    assert found.name == f"demo-{names.digest([found.spec, ''])}"


def test_equal_fields_are_the_stored_revision_whatever_would_be_rendered_now() -> None:
    first = chosen(deployment())

    def never() -> Templates:
        raise AssertionError("nothing is rendered for a stored revision")

    assert choose(deployment(), (first,), first.name, never) is not None
    assert choose(deployment(), (first,), first.name, never).templates is first.templates


def test_another_spec_gets_the_next_number_and_going_back_the_one_after() -> None:
    first = chosen(deployment())
    second = chosen(deployment(model="b"), first)
    assert (second.number, second.name != first.name) == (2, True)
    back = chosen(deployment(), first, second)
    assert (back.name, back.number) == (first.name, 3)
    assert chosen(deployment(), second, back) == back


RESTARTS: dict[str, tuple[str | None, str | None, str]] = {
    # annotation, revision that the rollout goes to → revision chosen, of those of restarts "", "x" and "y"
    "never set": (None, "", ""),
    "taken away": (None, "x", "x"),
    "emptied": ("", "x", "x"),
    "taken away, status lost": (None, None, "y"),
    "set as it was": ("x", "x", "x"),
    "set back": ("x", "y", "x"),
}


@pytest.mark.parametrize("case", RESTARTS)
def test_restart(case: str) -> None:
    annotation, current, expected = RESTARTS[case]
    revisions: dict[str, Revision] = {}
    for value in ("", "x", "y"):
        revisions[value] = chosen(deployment(value), *revisions.values())
    found = chosen(
        deployment(annotation), *revisions.values(), current=None if current is None else revisions[current].name
    )
    assert found.name == revisions[expected].name


def test_a_new_restart_is_a_new_revision() -> None:
    first = chosen(deployment())
    found = chosen(deployment("x"), first)
    assert (found.number, found.restart, found.name != first.name) == (2, "x", True)


def test_a_name_that_is_taken_is_passed_over() -> None:
    wanted = chosen(deployment("x"))
    taken = Revision(wanted.name, 1, {"another": "spec"}, "", wanted.templates)
    found = chosen(deployment("x"), taken)
    assert found.name == f"demo-{names.digest([found.spec, 'x'], 1)}"


@pytest.mark.parametrize(
    ("needed", "limit", "kept"),
    [("", 0, ""), ("", 2, "de"), ("", 9, "abcde"), ("a", 0, "a"), ("ae", 1, "ade"), ("e", 2, "cde")],
)
def test_history(needed: str, limit: int, kept: str) -> None:
    template = rendered(deployment())
    revisions = tuple(Revision(letter, number, {}, "", template) for number, letter in enumerate("abcde"))
    assert "".join(found.name for found in history(revisions, frozenset(needed), limit)) == kept


@pytest.mark.parametrize("head", [{}, {"storageClassName": "fast"}])
def test_what_is_stored_is_read_back(head: Object) -> None:
    first = chosen(deployment("x", head=head))
    second = chosen(deployment(model="b"), first)
    objects = [controller_revision(found, {"namespace": "team"}) for found in (second, first)]
    assert stored(objects) == (first, second)
