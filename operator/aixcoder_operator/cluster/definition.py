"""Whether the CustomResourceDefinition in the cluster is the one that this operator was made with."""

from __future__ import annotations

from aixcoder_operator.api import objects
from aixcoder_operator.api.definition import NAME, definition
from aixcoder_operator.api.names import SCHEMA_ANNOTATION
from aixcoder_operator.api.objects import Object
from aixcoder_operator.cluster import kinds
from aixcoder_operator.cluster.client import Client, NotFound


async def read_definition(client: Client) -> Object | None:
    """The definition in the cluster, None where it is missing or not served yet."""
    try:
        found = await client.get(kinds.CUSTOM_RESOURCE_DEFINITION, None, NAME)
    except NotFound:
        return None
    return found if objects.is_true(found, "Established") else None


def strangeness(found: Object) -> str | None:
    """What is not ours about a definition, as a sentence with the way out; None where it is ours."""
    expected = objects.annotations_of(definition())[SCHEMA_ANNOTATION]
    actual = objects.annotations_of(found).get(SCHEMA_ANNOTATION)
    if actual == expected:
        return None
    return (
        f"the CustomResourceDefinition {NAME} in the cluster is not this operator's own (schema"
        f" {actual or 'unknown'}, expected {expected}): fields may be refused or unknown; upgrade the chart with"
        " its CRDs, or apply the file in crds/ of this version"
    )
