"""What the operator's own settings put into the objects it makes: the same for every deployment."""

from __future__ import annotations

from dataclasses import dataclass

from aixcoder_operator.api.objects import Object


@dataclass(frozen=True, slots=True)
class Platform:
    """Image and additions of Ray pods, and who may talk to them. Lists hold parts of pods as Kubernetes writes them."""

    serving_image: str
    operator_namespace: str
    gateway_namespace: str
    gateway_url: str
    """Base URL that clients inside the cluster use."""
    metrics_peers: tuple[Object, ...] = ()
    """NetworkPolicy peers that read the replicas' metrics."""
    env: tuple[Object, ...] = ()
    volumes: tuple[Object, ...] = ()
    volume_mounts: tuple[Object, ...] = ()
    image_pull_secrets: tuple[Object, ...] = ()
