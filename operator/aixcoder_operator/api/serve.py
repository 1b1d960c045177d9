"""Documents of Ray Serve's REST interface (Ray 2.60): what we PUT, and what we read of what GET answers.

What we write is closed (a mistyped field is an error here, not silently ignored there); what we read is open, so that a
newer Ray may add fields.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field


class _Written(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class _Read(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)


class RayActorOptions(_Written):
    """What a replica's actor asks of its Ray node."""

    num_cpus: float = Field(default=0, ge=0)
    num_gpus: float | None = Field(default=None, ge=0)
    resources: dict[str, float] = Field(default_factory=dict)
    """Custom resources; `{"replica": 1}` puts one replica on each worker pod."""


class DeploymentOptions(_Written):
    """Options of one deployment that override those in the code. Times in seconds."""

    name: str
    num_replicas: int | None = Field(default=None, ge=1)
    """A PUT cannot say 0: scale to it afterwards."""
    max_ongoing_requests: int | None = Field(default=None, ge=1)
    user_config: dict[str, Any] | None = None
    graceful_shutdown_wait_loop_s: float | None = Field(default=None, ge=0)
    graceful_shutdown_timeout_s: float | None = Field(default=None, ge=0)
    health_check_period_s: float | None = Field(default=None, gt=0)
    health_check_timeout_s: float | None = Field(default=None, gt=0)
    ray_actor_options: RayActorOptions | None = None
    placement_group_bundles: tuple[dict[str, float], ...] | None = None
    placement_group_strategy: Literal["PACK", "SPREAD", "STRICT_PACK", "STRICT_SPREAD"] | None = None


class Application(_Written):
    """One application. `route_prefix` is always None: Serve's proxies are off, the replica listens itself."""

    name: str
    import_path: str
    route_prefix: None = None
    args: dict[str, Any] = Field(default_factory=dict)
    deployments: tuple[DeploymentOptions, ...] = ()
    external_scaler_enabled: Literal[True] = True


class ServeConfig(_Written):
    """Body of `PUT /api/serve/applications/`: the full state; applications left out are deleted."""

    proxy_location: Literal["Disabled"] = "Disabled"
    applications: tuple[Application, ...]

    def document(self) -> dict[str, Any]:
        """As JSON; options that are None are left out, so that the code's own values apply."""
        document = self.model_dump(mode="json", exclude_none=True)
        for application in document["applications"]:
            application["route_prefix"] = None
        return document


class ReplicaDetails(_Read):
    """One replica. `state` is RUNNING once its constructor has returned and its health check passed."""

    replica_id: str
    state: str
    node_ip: str | None = None
    pid: int | None = None


class DeploymentDetails(_Read):
    """`status` is one of UPDATING, UPSCALING, DOWNSCALING, HEALTHY, UNHEALTHY, DEPLOY_FAILED."""

    name: str
    status: str
    message: str = ""
    target_num_replicas: int = 0
    replicas: tuple[ReplicaDetails, ...] = ()


class ApplicationDetails(_Read):
    """`status` is one of NOT_STARTED, DEPLOYING, RUNNING, UNHEALTHY, DEPLOY_FAILED, DELETING.

    While an application is being built `deployments` is empty, though replicas of the version before may serve.
    """

    name: str
    status: str
    message: str = ""
    deployed_app_config: dict[str, Any] | None = None
    """What was PUT, with only the fields that were."""
    deployments: dict[str, DeploymentDetails] = Field(default_factory=dict)


class ServeDetails(_Read):
    """Body of `GET /api/serve/applications/`. Empty where Serve was never started on that head."""

    applications: dict[str, ApplicationDetails] = Field(default_factory=dict)
