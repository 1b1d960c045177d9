"""What a deployment has once, whatever its revisions: the Secret with its tokens, the PodDisruptionBudget."""

from __future__ import annotations

import base64
from dataclasses import dataclass, fields

from aixcoder_operator.api.names import DEPLOYMENT_LABEL
from aixcoder_operator.api.objects import Object
from aixcoder_operator.plan import names


@dataclass(frozen=True, slots=True, repr=False)
class Tokens:
    """Of one deployment. `ray` guards its Ray clusters, `replica` its replicas: it is how they know a gateway."""

    ray: str
    replica: str


def tokens_secret(deployment: str, tokens: Tokens, metadata: Object) -> Object:
    """The Secret that head and workers mount. `data`, not `stringData`: what is applied is then what is stored."""
    data = {field.name: getattr(tokens, field.name) for field in fields(tokens)}
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": metadata | {"name": names.secret_name(deployment)},
        "type": "Opaque",
        "data": {name: base64.b64encode(token.encode()).decode() for name, token in data.items()},
    }


def disruption_budget(deployment: str, metadata: Object) -> Object:
    """One worker at a time may be evicted, and one that is not ready always; the head is not counted."""
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": metadata | {"name": deployment},
        "spec": {
            "maxUnavailable": 1,
            "unhealthyPodEvictionPolicy": "AlwaysAllow",
            "selector": {"matchLabels": {DEPLOYMENT_LABEL: deployment, names.COMPONENT_LABEL: names.WORKER}},
        },
    }
