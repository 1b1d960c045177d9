"""Labels and annotations that stand in the cluster and that more than one layer needs. A rename here is a new API."""

from __future__ import annotations

from aixcoder_operator.api.base import GROUP

MANAGER = "aixcoder-operator"
"""Field manager of every write, and value of `MANAGED_BY_LABEL` on every child."""
MANAGED_BY_LABEL = "app.kubernetes.io/managed-by"
DEPLOYMENT_LABEL = f"{GROUP}/deployment"
"""On every child: the name of the AixcoderDeployment that it belongs to."""
APPLIED_ANNOTATION = f"{GROUP}/applied"
"""On every child: digest of what was applied last, so that what is already there is not written again."""
SCHEMA_ANNOTATION = f"{GROUP}/schema"
"""On the CustomResourceDefinition: digest of the `spec` it was installed with."""
