"""The operator's configuration: one YAML file, camelCase, given with `run --config`; and the pod's identity.

Helm values become this file, so every field here is a value of the chart `aiservice-operator`.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic.alias_generators import to_camel

from aiservice_api.tasks import ENGINES
from aiservice_operator.errors import ConfigurationError
from aiservice_operator.quantities import parse


class _Section(BaseModel):
    """A part of the file. Unknown keys are refused: a misspelt option must not be ignored."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="forbid", frozen=True)


def _is_quantity(text: str) -> str:
    parse(text)
    return text


def _is_network(text: str) -> str:
    try:
        ipaddress.ip_network(text)
    except ValueError as error:
        raise ValueError(f"{error}: write a network in CIDR form, such as 2001:db8::/32 or 10.1.0.0/16") from error
    return text


_PROXY = re.compile(r"https?://(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9._-]+)(:[0-9]+)?/?")


def _usable_proxies(variables: dict[_DownloadVariable, str]) -> dict[_DownloadVariable, str]:
    for name in ("HTTP_PROXY", "HTTPS_PROXY"):
        if name in variables and _PROXY.fullmatch(variables[name]) is None:
            raise ValueError(
                f"{name} is no proxy's address: write it like http://proxy.corp.example:3128, without user and "
                "password, which everybody who may read Jobs would see"
            )
    return variables


def _known_engines(images: dict[str, str]) -> dict[str, str]:
    unknown = sorted(set(images) - set(ENGINES.values()))
    if unknown:
        raise ValueError(
            f"no engine is called {', '.join(unknown)}; engines are {', '.join(sorted(set(ENGINES.values())))}"
        )
    return images


_DownloadVariable = Literal["HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "HF_HUB_DISABLE_XET"]
"""Not any: others would change where files go, or what is checked."""
Quantities = dict[str, Annotated[str, AfterValidator(_is_quantity)]]


class ContainerResources(_Section):
    """Requests and limits of a container, by resource name."""

    requests: Quantities = {}
    limits: Quantities = {}


class Toleration(_Section):
    """A toleration, as in a Pod."""

    key: str | None = None
    operator: Literal["Exists", "Equal"] | None = None
    value: str | None = None
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = None
    toleration_seconds: int | None = None


class Gpu(_Section):
    """The accelerator of a profile."""

    resource: str = "nvidia.com/gpu"
    count: Annotated[int, Field(ge=1)] = 1
    memory_gi_b: Annotated[Decimal | None, Field(gt=0)] = None
    """Memory of one, to compare with what a model needs. Unset: as the name of a MIG resource says, else not
    compared. The scheduler goes by resource and selector."""


class Price(_Section):
    """What the hardware of a profile costs."""

    hourly: Annotated[Decimal, Field(ge=0)]
    """Of one pod, for an hour."""
    currency: Annotated[str, Field(min_length=1, max_length=8)] = "USD"


class Profile(_Section):
    """Hardware under a name: what `spec.profile` of an AIService chooses."""

    resources: ContainerResources = ContainerResources()
    gpu: Gpu | None = None
    node_selector: dict[str, str] = {}
    tolerations: list[Toleration] = []
    runtime_class_name: str | None = None
    priority_class_name: str | None = None
    price: Price | None = None
    """Shown by `kubectl ais plan`; nothing is decided by it."""


_LABEL_KEY = r"^([a-z0-9]([a-z0-9.-]*[a-z0-9])?/)?[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?$"
_LABEL_VALUE = r"^([A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?)?$"


class Watch(_Section):
    """What the operator looks at."""

    namespaces: list[str] = []
    """Namespaces that are served. Empty: all."""
    labels: dict[
        Annotated[str, Field(pattern=_LABEL_KEY, max_length=317)], Annotated[str, Field(pattern=_LABEL_VALUE)]
    ] = {}
    """Labels of the AIServices and ModelCaches that are served. Empty: all. Operators with different values of one
    label can share a namespace."""

    @property
    def selector(self) -> str:
        """The label selector of what is served; empty: all."""
        return ",".join(f"{name}={value}" for name, value in sorted(self.labels.items()))


class Download(_Section):
    """The Job that fills a ModelCache."""

    image: str = "localhost/aiservice/model-downloader:0.1.0"
    backoff_limit: Annotated[int, Field(ge=0, le=100)] = 5
    """Quick retries of one Job. When they are used up a new Job follows, later and later."""
    resources: ContainerResources = ContainerResources(
        requests={"cpu": "100m", "memory": "256Mi"}, limits={"memory": "1Gi"}
    )
    progress_interval_seconds: Annotated[float, Field(gt=0)] = 5
    verify_interval_hours: Annotated[int, Field(ge=1)] = 24
    """How often the files of a cache with `verify: Always` are compared with their digests."""
    allowed_hosts: list[str] = []
    """Hosts (`minio.storage.svc`, `*.corp.example`) and networks (`10.1.0.0/16`) that downloads may reach besides
    public addresses. They win over `denied_networks`."""
    denied_networks: list[Annotated[str, AfterValidator(_is_network)]] = []
    """Networks on public addresses that downloads may not reach: pods, Services or servers of one's own."""
    env: Annotated[dict[_DownloadVariable, str], AfterValidator(_usable_proxies)] = {}
    """Environment variables of the download container: a proxy, and whether the Hub's chunk storage is used."""


class Peer(_Section):
    """Pods, by labels of theirs and of their namespaces; empty: of all namespaces."""

    namespace_labels: dict[str, str] = {}
    pod_labels: Annotated[dict[str, str], Field(min_length=1)]


class Network(_Section):
    """The NetworkPolicies of serving pods."""

    enabled: bool = True
    """Whether there are any; where not, `spec.network` does nothing and a condition says so."""
    allow_from: list[Peer] = []
    """Who may reach every service: the chart states the gateway, the operator and Prometheus, each in its namespace.
    Empty: nobody but whom `spec.network` names."""


class Monitoring(_Section):
    """The PodMonitors of serving pods, where the Prometheus Operator's API is served."""

    enabled: bool = True
    labels: dict[str, str] = {}
    """Added to them: Prometheus selects them by labels."""
    interval: Annotated[str, Field(pattern=r"^[0-9]+(ms|s|m)$")] = "30s"


class LeaderElection(_Section):
    """The Lease that lets one of several replicas act. Needs POD_NAMESPACE; POD_NAME is the identity."""

    enabled: bool = True
    name: str = "aiservice-operator"
    lease_seconds: Annotated[int, Field(ge=2)] = 15
    """How long a leader that went silent is waited for."""
    renew_seconds: Annotated[float, Field(ge=1)] = 10
    """How long a leader tries to renew before it gives up and exits. Below leaseSeconds, so that two never act."""
    retry_seconds: Annotated[float, Field(ge=1)] = 2

    @model_validator(mode="after")
    def _in_order(self) -> LeaderElection:
        if not self.lease_seconds > self.renew_seconds > 1.2 * self.retry_seconds:
            raise ValueError("leaseSeconds must be above renewSeconds, and renewSeconds above 1.2 x retrySeconds")
        return self


class Probes(_Section):
    """/healthz, /readyz and /metrics."""

    port: Annotated[int, Field(ge=0, le=65535)] = 8080
    """0 takes a free port; the log says which."""


class Log(_Section):
    """What the process says on standard error."""

    level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    format: Literal["json", "text"] = "json"


class Settings(_Section):
    """The whole configuration."""

    watch: Watch = Watch()
    images: Annotated[dict[str, str], AfterValidator(_known_engines)] = {}
    """Image of each engine, by engine name. A task whose engine has none needs `spec.engine.image`."""
    image_pull_policy: Literal["IfNotPresent", "Always", "Never"] = "IfNotPresent"
    image_pull_secrets: list[str] = []
    """Names of Secrets, put on serving and download pods. They must exist in the pods' namespaces."""
    profiles: dict[str, Profile] = {}
    download: Download = Download()
    roll_on_config_change: bool = True
    """Whether pods are replaced when a Secret or ConfigMap that they take values from changes, and a failed download is
    tried again when its Secret does. Needs the right to get them; where not set none is read."""
    network: Network = Network()
    monitoring: Monitoring = Monitoring()
    leader_election: LeaderElection = LeaderElection()
    probes: Probes = Probes()
    log: Log = Log()


class Identity(BaseModel):
    """Who this replica is."""

    name: str
    namespace: str


def load(path: Path) -> Settings:
    """Reads the configuration file.

    Raises:
        ConfigurationError: it cannot be read, is no YAML, or holds something that no option takes.
    """
    try:
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"cannot read the configuration {path}: {error}") from error
    return read(text, str(path))


def read(text: str, source: str) -> Settings:
    """Reads a configuration.

    Args:
        text: The YAML.
        source: Where it is from, for messages.

    Raises:
        ConfigurationError: it is no YAML, or holds something that no option takes.
    """
    try:
        content: Any = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigurationError(f"cannot read the configuration {source}: {error}") from error
    try:
        return Settings.model_validate({} if content is None else content)
    except ValidationError as error:
        wrong = "; ".join(
            f"{'.'.join(str(part) for part in item['loc']) or 'the file'}: {item['msg']}" for item in error.errors()
        )
        raise ConfigurationError(f"the configuration {source} is wrong: {wrong}") from error


def identity(environment: Mapping[str, str]) -> Identity:
    """Reads POD_NAME and POD_NAMESPACE.

    Raises:
        ConfigurationError: one is missing.
    """
    missing = [name for name in ("POD_NAME", "POD_NAMESPACE") if not environment.get(name)]
    if missing:
        raise ConfigurationError(
            f"leader election needs {' and '.join(missing)} in the environment (the chart sets them through the "
            "downward API); for one process outside a cluster set leaderElection.enabled to false"
        )
    return Identity(name=environment["POD_NAME"], namespace=environment["POD_NAMESPACE"])
