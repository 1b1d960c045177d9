"""What Ray Serve on a unit's head is told: the application, and how many replicas it is to run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from aixcoder_operator.api.serve import Application, DeploymentOptions
from aixcoder_operator.plan import names
from aixcoder_operator.plan.observed import UnitView
from aixcoder_operator.plan.revision import Revision
from aixcoder_operator.plan.rollout import Rollout
from aixcoder_operator.plan.sizing import serve_replicas


@dataclass(frozen=True, slots=True)
class ServeOrder:
    """What a unit's Ray Serve is told. `put` None where the application is there as it should be."""

    unit: UnitView
    put: Application | None
    replicas: int


def serve_orders(rollout: Rollout, known: Mapping[str, Revision]) -> Iterator[ServeOrder]:
    """For each wished unit whose Serve answered; `known`: the revisions by their names."""
    for name, wish in rollout.wishes.items():
        unit = rollout.units.get(name)
        if unit is None or unit.revision not in known or unit.replica_set is None:
            continue
        if unit.serve is None or unit.serve.details is None:
            continue
        wanted, told = known[unit.revision].templates.application, unit.serve.application
        replicas = serve_replicas(unit, wish)
        deployed = (told.deployed_app_config or {}) if told else {}
        as_it_should_be = (
            told is not None
            and deployed.get("import_path") == wanted.import_path
            and deployed.get("args") == wanted.args
            and told.status != "DEPLOY_FAILED"
        )
        if not as_it_should_be and replicas > 0:
            # A PUT sets the count: without the live one it would fall back to 1 and stop replicas.
            options = DeploymentOptions(name=names.SERVE_DEPLOYMENT, num_replicas=replicas)
            yield ServeOrder(unit, wanted.model_copy(update={"deployments": (options,)}), replicas)
        elif unit.serve.deployment is not None:
            yield ServeOrder(unit, None, replicas)
