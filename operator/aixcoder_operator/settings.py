"""The operator's settings: one YAML file, camelCase, read at start."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError
from pydantic.alias_generators import to_camel

from aixcoder_serving import protocol

DnsLabel = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", max_length=63)]


class SettingsError(ValueError):
    """The file cannot be used. The message names the file, the field and what to do."""


class _Settings(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, alias_generator=to_camel, populate_by_name=True)


class ServingSettings(_Settings):
    """What the platform adds to every Ray pod, heads too. Entries are Kubernetes objects, passed through."""

    env: tuple[dict[str, Any], ...] = ()
    volumes: tuple[dict[str, Any], ...] = ()
    volume_mounts: tuple[dict[str, Any], ...] = ()
    image_pull_secrets: tuple[dict[str, Any], ...] = ()


class GatewaySettings(_Settings):
    """Where the gateways are: the headless Service over their internal port, and the Service that clients use."""

    namespace: DnsLabel
    service: DnsLabel = "aixcoder-gateway-internal"
    port: int = Field(default=9090, ge=1, le=65535)
    public_service: DnsLabel = "aixcoder-gateway"
    """The Service that clients use; status tells its URL."""


class LeaseSettings(_Settings):
    """The Lease by which operator pods agree on who leads."""

    namespace: DnsLabel
    name: DnsLabel = "aixcoder-operator"


class OperatorSettings(_Settings):
    """All settings. Times in seconds."""

    namespaces: tuple[DnsLabel, ...] = ()
    """Namespaces to work in; empty means all."""
    serving_image: str = Field(min_length=1, max_length=1024)
    serving: ServingSettings = ServingSettings()
    gateway: GatewaySettings
    key_file: Path = Path("/var/run/aixcoder/key/key")
    data_key_file: Path = Path("/var/run/aixcoder/data-key/key")
    """Shared with the gateways: of it the tokens are made by which replicas know them."""
    lease: LeaseSettings
    metrics_peers: tuple[dict[str, Any], ...] = ()
    """Who else may reach replicas, for /metrics: NetworkPolicy peers, passed through."""
    cluster_domain: str = Field(default="cluster.local", min_length=1, max_length=253)
    port: int = Field(default=8081, ge=0, le=65535)
    """/healthz, /readyz and /metrics; 0 takes any free port."""
    workers: int = Field(default=4, ge=1, le=64)
    resync_seconds: float = Field(default=420, ge=10, le=86400)
    log_level: Literal["debug", "info", "warning", "error"] = "info"


def read_settings(path: Path) -> OperatorSettings:
    """Read and check `path`. Raises SettingsError."""
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError(f"{path}: cannot be read ({error.strerror}): give --config a readable YAML file") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path}: is not YAML: {error}") from error
    if not isinstance(content, dict):
        raise SettingsError(f"{path}: must hold a mapping of settings, such as `servingImage: …`")
    try:
        return OperatorSettings.model_validate(content)
    except ValidationError as error:
        raise SettingsError(f"{path}: " + "; ".join(_sentence(dict(entry)) for entry in error.errors())) from error


def _sentence(error: dict[str, Any]) -> str:
    field = ".".join(str(part) for part in error["loc"])
    match error["type"]:
        case "missing":
            return f"{field} is missing: set it"
        case "extra_forbidden":
            return f"{field} is not a setting: remove it or mend its spelling"
        case _:
            return f"{field}: {error['msg'][:1].lower()}{error['msg'][1:]}, mend its value"


def read_key(path: Path, what: str = "the operator's key") -> bytes:
    """A key from which tokens are derived: the file's bytes as they are, at least 32. Raises SettingsError."""
    try:
        return protocol.read_key(path, what)
    except protocol.UnusableKey as error:
        raise SettingsError(str(error)) from error
