"""What a deployment has once, whatever its revisions: the Secret with the Ray token, the PodDisruptionBudget."""

from __future__ import annotations

import base64

from aixcoder_operator.api.names import DEPLOYMENT_LABEL
from aixcoder_operator.api.objects import Object
from aixcoder_operator.plan import names


def ray_secret(deployment: str, token: str, metadata: Object) -> Object:
    """The Secret that head and workers mount. `data`, not `stringData`: what is applied is then what is stored."""
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": metadata | {"name": names.secret_name(deployment)},
        "type": "Opaque",
        "data": {"token": base64.b64encode(token.encode()).decode()},
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
