"""The CustomResourceDefinition of `AixcoderDeployment`, made from its types."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from pydantic import Field, create_model

from aixcoder_operator.api.base import GROUP, KIND, PLURAL, RULES, VERSION, Part, rule
from aixcoder_operator.api.deployment import MAX_NAME_LENGTH, DeploymentSpec
from aixcoder_operator.api.names import SCHEMA_ANNOTATION
from aixcoder_operator.api.schema import Schema, structural
from aixcoder_operator.api.status import DeploymentStatus

NAME = f"{PLURAL}.{GROUP}"

_DESCRIPTION = (
    "One code-completion service: an aiXcoder model on a number of replicas, behind the URL of the gateway. The "
    "weights are free for academic research; commercial use needs an application to the vendor (aiXcoder)."
)
_NAME_RULES = (
    rule(
        f"self.metadata.name.size() <= {MAX_NAME_LENGTH}",
        f"metadata.name: at most {MAX_NAME_LENGTH} characters, so that the names of its pods and Services fit 63",
    ),
    # The server holds names to letters, digits, '-' and '.' already; the whole DNS-1035 check would pass the budget.
    rule(
        "!self.metadata.name.contains('.') && !self.metadata.name.matches('^[0-9]')",
        "metadata.name: begin with a letter and use no dots, only lower-case letters, digits and '-': Services are "
        "named after it",
    ),
)


def schema() -> Schema:
    """The structural schema of the whole object."""
    parts = create_model(
        KIND,
        __base__=Part,
        spec=(DeploymentSpec, Field(description="What is wished for.")),
        status=(DeploymentStatus, Field(default=None, description="What the operator found and decided.")),
    )
    made = structural(parts)
    made["description"] = _DESCRIPTION
    made["properties"] = {
        "apiVersion": {"type": "string", "description": f"{GROUP}/{VERSION}"},
        "kind": {"type": "string", "description": KIND},
        "metadata": {"type": "object"},
        "spec": made["properties"]["spec"],
        # There from the first read on, so that no tool takes a resource for finished before the operator has looked.
        "status": made["properties"]["status"] | {"default": {"observedGeneration": -1}},
    }
    made["required"] = ["spec"]
    made[RULES] = list(_NAME_RULES)
    return made


def _column(name: str, path: str, kind: str, description: str, *, wide: bool = False) -> dict[str, Any]:
    made: dict[str, Any] = {"name": name, "jsonPath": path, "type": kind, "description": description}
    return made | ({"priority": 1} if wide else {})


_READY = '.status.conditions[?(@.type=="Ready")]'
COLUMNS = [
    _column("Model", ".spec.model.variant", "string", "Variant of the model; empty: aixcoder-7b."),
    _column("TP", ".spec.engine.tensorParallelSize", "integer", "GPUs that share one replica; empty: 1."),
    _column("Replicas", ".spec.replicas", "integer", "Replicas wished for; empty: 1, or as autoscaling decides."),
    _column("Autoscaled", ".status.autoscaling.desired", "integer", "Replicas that autoscaling has decided for."),
    _column("Ready", ".status.readyReplicas", "integer", "Worker pods that are ready."),
    _column("Status", f"{_READY}.reason", "string", "Reason of the condition Ready."),
    _column("Reason", f"{_READY}.message", "string", "Message of the condition Ready.", wide=True),
    _column("Age", ".metadata.creationTimestamp", "date", "Time since it was created."),
]


def definition() -> dict[str, Any]:
    """The CustomResourceDefinition as the API server takes it, with the digest of its own `spec` as an annotation."""
    spec = {
        "group": GROUP,
        "scope": "Namespaced",
        "names": {
            "kind": KIND,
            "listKind": f"{KIND}List",
            "plural": PLURAL,
            "singular": KIND.lower(),
            "shortNames": ["axd"],
            "categories": ["aixcoder"],
        },
        "versions": [
            {
                "name": VERSION,
                "served": True,
                "storage": True,
                "additionalPrinterColumns": COLUMNS,
                "subresources": {
                    "status": {},
                    "scale": {
                        "specReplicasPath": ".spec.replicas",
                        "statusReplicasPath": ".status.replicas",
                        "labelSelectorPath": ".status.selector",
                    },
                },
                "schema": {"openAPIV3Schema": schema()},
            }
        ],
    }
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": NAME, "annotations": {SCHEMA_ANNOTATION: digest(spec)}},
        "spec": spec,
    }


def digest(spec: dict[str, Any]) -> str:
    """Sixteen hexadecimal digits that change with any change of a CRD's `spec`."""
    return hashlib.sha256(json.dumps(spec, sort_keys=True, separators=(",", ":")).encode()).hexdigest()[:16]
