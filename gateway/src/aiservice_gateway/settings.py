"""Settings, from environment variables only. An empty variable counts as unset."""

from __future__ import annotations

import ipaddress
import re
import tempfile
from collections.abc import Iterable, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

import orjson
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    ValidationInfo,
    field_validator,
)
from pydantic_core import PydanticCustomError

from aiservice_api.tasks import Task
from aiservice_gateway.errors import SettingsError
from aiservice_gateway.secret_strength import MINIMUM_DISTINCT_CHARACTERS, PLACEHOLDER, weakness
from aiservice_gateway.webhook_signing import read_secret

METRICS_FOLDER = "PROMETHEUS_MULTIPROC_DIR"
"""The variable that makes prometheus_client keep its values where all processes see them. Read when it is imported."""

DEFAULT_PRICES: dict[Task, Decimal] = {
    Task.TEXT_TO_IMAGE: Decimal("0.003"),  # an image
    Task.IMAGE_TO_IMAGE: Decimal("0.003"),  # an image
    Task.IMAGE_TO_TEXT: Decimal("0.00075"),  # an image
    Task.TEXT_TO_SPEECH: Decimal("0.000005"),  # a character; a request of 110 characters: 0.00055
    Task.SPEECH_TO_TEXT: Decimal("0.00004"),  # a second of audio; a request of 31 s: 0.00125
}
"""Dollars for one unit: the middle of the deployment guide's per-request prices, over a usual request."""

_UNSET = "unset"
"""Type of the error that nothing checks tokens."""
_ORIGIN = re.compile(r"https?://[a-z0-9.\-\[\]:]+[a-z0-9\]]", re.ASCII)
"""As browsers write it: in lower case, without a path or a slash at the end."""

DEFAULT_RESERVED_UNITS: dict[Task, Decimal] = {
    Task.TEXT_TO_IMAGE: Decimal(1),  # an image
    Task.IMAGE_TO_IMAGE: Decimal(1),  # an image
    Task.IMAGE_TO_TEXT: Decimal(1),  # an image
    Task.TEXT_TO_SPEECH: Decimal(500),  # characters
    Task.SPEECH_TO_TEXT: Decimal(60),  # seconds of audio
}
"""Units that a request holds of its tenant's limits until they are measured: rather more than a usual request."""

_MOST_RESERVED_UNITS = 10**6
_HIGHEST_PRICE = 10**9
"""The services refuse a higher one (docs/inference.md)."""


def _demand_strength(secret: SecretStr, where: str = "") -> None:
    if problem := weakness(secret.get_secret_value()):
        raise ValueError(
            f"{where}{problem}, so anyone could make tokens. Set it to the secret of the application that issues them, "
            "made for example with: openssl rand -base64 48"
        )


def is_loopback(url: str) -> bool:
    """Whether an address is on this machine."""
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _from_json(value: object) -> object:
    """Reads a variable that holds JSON."""
    if isinstance(value, str):
        try:
            return orjson.loads(value)
        except orjson.JSONDecodeError as error:
            raise ValueError(f"not JSON: {error}") from error
    return value


def _from_list(value: object) -> object:
    """Reads a variable that holds names with commas between them."""
    return tuple(filter(None, map(str.strip, value.split(",")))) if isinstance(value, str) else value


class _Environment(BaseModel):
    """Base of the groups of settings: one field a variable, the variable's name as alias."""

    model_config = ConfigDict(frozen=True, extra="ignore", hide_input_in_errors=True)

    @classmethod
    def load(cls, environ: Mapping[str, str]) -> Self:
        """Reads the variables.

        Raises:
            SettingsError: one is missing or wrong; the message has a line for each.
        """
        given = {name: value for name, value in environ.items() if value != ""}
        try:
            return cls.model_validate(given)
        except ValidationError as error:
            raise SettingsError("\n".join(map(_explain, error.errors(include_url=False)))) from error


def _explain(problem: Mapping[str, Any]) -> str:
    """One line for one wrong variable. It never shows the value, which may be a secret."""
    name = ".".join(map(str, problem["loc"]))
    if problem["type"] == _UNSET:
        return str(problem["msg"])
    return f"{name}: {problem['msg'].removeprefix('Value error, ')}"


class TokenSettings(_Environment):
    """How tokens are signed and what their claims mean."""

    jwt_secrets: Annotated[
        dict[Annotated[str, Field(min_length=1, max_length=128)], SecretStr],
        Field(alias="GATEWAY_JWT_SECRETS", max_length=16),
        BeforeValidator(_from_json),
    ] = {}
    """JSON object: further secrets that sign tokens (HS256), by the `kid` of the tokens. For changing secrets."""
    jwks_url: Annotated[str | None, Field(alias="GATEWAY_JWKS_URL")] = None
    """Address of the public keys of an issuer (RS256, PS256, ES256, EdDSA), https except on this machine."""
    jwt_secret: Annotated[SecretStr | None, Field(alias="JWT_SECRET", validate_default=True)] = None
    """Signs the tokens (HS256); the same as the application's that issues them."""
    issuers: Annotated[tuple[str, ...], Field(alias="GATEWAY_JWT_ISSUER"), BeforeValidator(_from_list)] = ()
    """What `iss` of a token must be, or be one of, with commas between them. Unset: not checked."""
    audiences: Annotated[tuple[str, ...], Field(alias="GATEWAY_JWT_AUDIENCE"), BeforeValidator(_from_list)] = ()
    """What `aud` of a token must name, or name one of, with commas between them. Unset: not checked."""
    leeway_seconds: Annotated[float, Field(alias="GATEWAY_JWT_LEEWAY_SECONDS", ge=0, le=300)] = 10.0
    """How far the clocks of the tokens' issuer and the gateway may differ."""
    tenant_claim: Annotated[str, Field(alias="GATEWAY_TENANT_CLAIM", min_length=1, max_length=256)] = "tenantId"
    """Claim that names the tenant, or a path with dots to it."""
    user_claim: Annotated[str, Field(alias="GATEWAY_USER_CLAIM", min_length=1, max_length=256)] = "sub"
    """Claim that names the user, or a path with dots to it."""
    role_claim: Annotated[str, Field(alias="GATEWAY_ROLE_CLAIM", min_length=1, max_length=256)] = "role"
    """Claim that holds the user's role, or a list of roles; or a path with dots to it."""
    admin_role: Annotated[str | None, Field(alias="GATEWAY_ADMIN_ROLE")] = None
    """The role whose holders see every tenant's usage. Unset: nobody does."""

    @field_validator("jwt_secrets")
    @classmethod
    def _all_strong(cls, value: dict[str, SecretStr]) -> dict[str, SecretStr]:
        for kid, secret in value.items():
            _demand_strength(secret, f"{kid}: ")
        return value

    @field_validator("jwks_url")
    @classmethod
    def _trustworthy(cls, value: str | None) -> str | None:
        if value is None:
            return None
        url = urlsplit(value)
        if not url.hostname or not (url.scheme == "https" or (url.scheme == "http" and is_loopback(value))):
            raise ValueError(
                "must be an https:// address: over plain HTTP anyone on the way could exchange the keys. http:// is "
                "only for an issuer on this machine"
            )
        if url.username is not None or url.password is not None or url.fragment:
            raise ValueError("must hold no user name, password or #fragment: public keys need none")
        return value

    @field_validator("jwt_secret")
    @classmethod
    def _strong(cls, value: SecretStr | None, info: ValidationInfo) -> SecretStr | None:
        if value is not None:
            _demand_strength(value)
        # Another one that is set and wrong is missing in `data`, and told on its own line.
        elif not info.data.get("jwt_secrets", True) and info.data.get("jwks_url", True) is None:
            raise PydanticCustomError(
                _UNSET,
                "JWT_SECRET is not set, and neither is GATEWAY_JWT_SECRETS or GATEWAY_JWKS_URL: the gateway could "
                "check no token, and API keys alone are not enough. docs/gateway.md describes every setting.",
            )
        return value


class DatabaseSettings(_Environment):
    """Where usage is kept for good."""

    database_url: Annotated[SecretStr | None, Field(alias="DATABASE_URL")] = None
    """PostgreSQL, as postgresql://user:password@host:port/database; Prisma's ?schema= is understood. Unset: SQLite."""
    sqlite_file: Annotated[Path, Field(alias="GATEWAY_SQLITE_FILE")] = Path("aiservice-usage.sqlite3")
    """The SQLite file that is used when DATABASE_URL is unset."""

    @field_validator("database_url")
    @classmethod
    def _postgresql(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and urlsplit(value.get_secret_value()).scheme not in {"postgresql", "postgres"}:
            raise ValueError("must start with postgresql:// or postgres://")
        return value


class JobSettings(_Environment):
    """What is kept of jobs, of their webhooks and of answers to requests with idempotency keys."""

    idempotency_seconds: Annotated[float, Field(alias="GATEWAY_IDEMPOTENCY_SECONDS", ge=1, le=31 * 86400)] = 86400.0
    """How long an idempotency key and its answer are kept."""
    idempotency_max_bytes: Annotated[int, Field(alias="GATEWAY_IDEMPOTENCY_MAX_BYTES", ge=1024)] = 32 * 1024 * 1024
    """Largest answer that is kept for its idempotency key."""

    job_concurrency: Annotated[int, Field(alias="GATEWAY_JOB_CONCURRENCY", ge=0, le=1000)] = 8
    """Jobs that one gateway process works on at once; 0: none, others do."""
    job_input_bytes: Annotated[int, Field(alias="GATEWAY_JOB_INPUT_BYTES", ge=1024, le=1024**3)] = 32 * 1024 * 1024
    """Largest input of a job."""
    job_output_bytes: Annotated[int, Field(alias="GATEWAY_JOB_OUTPUT_BYTES", ge=1024, le=1024**3)] = 64 * 1024 * 1024
    """Largest result of a job."""
    job_retention_seconds: Annotated[float, Field(alias="GATEWAY_JOB_RETENTION_SECONDS", ge=1, le=366 * 86400)] = (
        86400.0
    )
    """How long a job and its result are kept after its end."""
    job_deadline_seconds: Annotated[float, Field(alias="GATEWAY_JOB_DEADLINE_SECONDS", ge=1, le=31 * 86400)] = 86400.0
    """Longest time from when a job is handed in to its answer; jobs may ask for less."""
    job_attempts: Annotated[int, Field(alias="GATEWAY_JOB_ATTEMPTS", ge=1, le=100)] = 3
    """How often a job is begun, where gateways die of it or in the middle of it."""
    job_max_open: Annotated[int, Field(alias="GATEWAY_JOB_MAX_OPEN", ge=1)] = 1000
    """Jobs of one tenant that are not over."""
    webhook_secret: Annotated[SecretStr | None, Field(alias="GATEWAY_WEBHOOK_SECRET")] = None
    """What the tenants' own secrets for webhooks are made from: whsec_ and 24 to 64 bytes in base64. Unset: no
    webhooks."""
    webhook_allow_http: Annotated[bool, Field(alias="GATEWAY_WEBHOOK_ALLOW_HTTP")] = False
    """Whether webhooks may go to http:// addresses, in a closed network."""
    webhook_allow_private: Annotated[bool, Field(alias="GATEWAY_WEBHOOK_ALLOW_PRIVATE")] = False
    """Whether webhooks may go to addresses that are not public, in a closed network."""
    webhook_retry_seconds: Annotated[
        tuple[Annotated[float, Field(gt=0, le=86400)], ...],
        Field(alias="GATEWAY_WEBHOOK_RETRY_SECONDS", max_length=20),
        BeforeValidator(_from_list),
    ] = (5, 60, 300, 1800, 7200, 18000, 36000)
    """Seconds before the second, third and further tries of a webhook, with commas between them."""

    @field_validator("webhook_secret")
    @classmethod
    def _webhook_key(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None:
            key = read_secret(value.get_secret_value())
            if len(set(key)) < MINIMUM_DISTINCT_CHARACTERS or PLACEHOLDER.search(key.decode("latin-1")):
                raise ValueError("is too easily guessed, so anyone could sign webhooks: make one with openssl rand")
        return value


class Settings(TokenSettings, DatabaseSettings, JobSettings):
    """Everything that `serve` needs."""

    redis_url: Annotated[SecretStr | None, Field(alias="REDIS_URL")] = None
    """Redis for the limits, as redis:// or rediss://. Unset: the limits are counted in this process."""
    host: Annotated[str, Field(alias="GATEWAY_HOST")] = "0.0.0.0"  # noqa: S104 - a server in a container
    """Address to listen on."""
    port: Annotated[int, Field(alias="GATEWAY_PORT", ge=0, le=65535)] = 8000
    """Port to listen on; 0 takes a free one."""
    workers: Annotated[int, Field(alias="GATEWAY_WORKERS", ge=1, le=64)] = 1
    """Processes that serve the port, for machines with more cores than one process can use; needs REDIS_URL."""
    namespaces: Annotated[tuple[str, ...], Field(alias="GATEWAY_NAMESPACES"), BeforeValidator(_from_list)] = ()
    """Namespaces whose AIServices are offered, with commas between them. Unset: all."""
    kubeconfig: Annotated[str | None, Field(alias="KUBECONFIG")] = None
    """How to reach Kubernetes from outside of it. Unset: ~/.kube/config. In a pod its service account is used."""
    services_file: Annotated[Path | None, Field(alias="GATEWAY_SERVICES_FILE")] = None
    """YAML file that lists the services and tenants, where there is no Kubernetes."""
    namespace: Annotated[str | None, Field(alias="GATEWAY_NAMESPACE", min_length=1, max_length=63)] = None
    """Namespace whose AITenants count. Unset: the pod's own; outside of a pod `default`."""
    require_tenant: Annotated[bool, Field(alias="GATEWAY_REQUIRE_TENANT")] = False
    """Whether tenants without an AITenant are refused."""
    follow_pods: Annotated[bool, Field(alias="GATEWAY_FOLLOW_PODS")] = True
    """Whether requests go to pods, as EndpointSlices tell them, or to Services, where Kubernetes picks the pod."""
    rate_limit_per_hour: Annotated[int, Field(alias="GATEWAY_RATE_LIMIT_PER_HOUR", ge=1, le=1_000_000)] = 100
    """Requests a tenant may make to each service within any 3,600 s, where no AITenant says otherwise."""
    max_body_bytes: Annotated[int, Field(alias="GATEWAY_MAX_BODY_BYTES", ge=1024)] = 100 * 1024 * 1024
    """Largest request body."""
    held_upload_bytes: Annotated[int, Field(alias="GATEWAY_HELD_UPLOAD_BYTES", ge=1024)] = 1024**3
    """Most bytes that all requests of /v1 together hold, on disk but for the first of each: files before `model`."""
    upstream_timeout_seconds: Annotated[float, Field(alias="GATEWAY_UPSTREAM_TIMEOUT_SECONDS", gt=0)] = 300.0
    """Longest time for one request, from its first byte to the answer's last."""
    header_timeout_seconds: Annotated[float, Field(alias="GATEWAY_HEADER_TIMEOUT_SECONDS", gt=0)] = 10.0
    """Longest time for a request's line and headers to arrive, and for a new connection to send some."""
    body_timeout_seconds: Annotated[float, Field(alias="GATEWAY_BODY_TIMEOUT_SECONDS", gt=0)] = 30.0
    """Longest time without a byte of a request's body; and, beside a second for each KiB, for all of it."""
    cors_origins: Annotated[tuple[str, ...], Field(alias="GATEWAY_CORS_ORIGINS"), BeforeValidator(_from_list)] = ()
    """Origins whose pages may call the gateway from a browser, with commas between them; * for all. Unset: none."""
    drain_seconds: Annotated[float, Field(alias="GATEWAY_DRAIN_SECONDS", ge=0)] = 30.0
    """After SIGTERM, longest time for requests in flight to finish."""
    drain_delay_seconds: Annotated[float, Field(alias="GATEWAY_DRAIN_DELAY_SECONDS", ge=0)] = 2.0
    """After SIGTERM, time during which requests are still accepted while /readyz already says no."""
    spool_dir: Annotated[Path, Field(alias="GATEWAY_SPOOL_DIR")] = (
        Path(tempfile.gettempdir()) / "aiservice-gateway-spool"
    )
    """Folder for usage records that neither Redis nor the database could take yet."""
    usage_retention_days: Annotated[int | None, Field(alias="GATEWAY_USAGE_RETENTION_DAYS", ge=31, le=36500)] = None
    """Days for which single usage records are kept; a whole month at least, which the application's own queries read.
    Then their sums by day stay. Unset: for ever."""
    usage_daily_days: Annotated[int, Field(alias="GATEWAY_USAGE_DAILY_DAYS", ge=31, le=36500)] = 400
    """Days after which the sums by day that retention made become sums by month. Not before the rows went."""
    prices: Annotated[dict[Task, Decimal], Field(alias="GATEWAY_PRICES"), BeforeValidator(_from_json)] = DEFAULT_PRICES
    """JSON object: dollars for one unit, by task. Tasks that it leaves out keep their default."""
    reserved_units: Annotated[
        dict[Task, Decimal], Field(alias="GATEWAY_RESERVED_UNITS"), BeforeValidator(_from_json)
    ] = DEFAULT_RESERVED_UNITS
    """JSON object: units that a request holds of limits of units and of spend until they are measured, by task. Tasks
    that it leaves out keep their default."""
    lease_seconds: Annotated[float, Field(alias="GATEWAY_LEASE_SECONDS", ge=1, le=3600)] = 15.0
    """Time after which a gateway that does not say anything is taken for dead, and its requests for interrupted."""
    log_level: Annotated[
        Literal["DEBUG", "INFO", "WARNING", "ERROR"], Field(alias="GATEWAY_LOG_LEVEL"), BeforeValidator(str.upper)
    ] = "INFO"
    """Least severe log lines that are written."""

    @field_validator("cors_origins")
    @classmethod
    def _origins(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if "*" in value and len(value) > 1:
            raise ValueError("write either * or origins, not both")
        for origin in value:
            if origin != "*" and not _ORIGIN.fullmatch(origin):
                raise ValueError("an origin is a scheme, a host and perhaps a port, such as https://app.example.com")
        return value

    @field_validator("redis_url")
    @classmethod
    def _redis(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and urlsplit(value.get_secret_value()).scheme not in {"redis", "rediss", "unix"}:
            raise ValueError("must start with redis://, rediss:// or unix://")
        return value

    @field_validator("workers")
    @classmethod
    def _share_limits(cls, value: int, info: ValidationInfo) -> int:
        if value > 1 and info.data.get("redis_url", True) is None:
            raise ValueError(
                "several workers need REDIS_URL: without it each of them would count the limits of tenants by itself, "
                "and together they would let pass as many times as much"
            )
        return value

    @field_validator("prices")
    @classmethod
    def _complete_prices(cls, value: dict[Task, Decimal]) -> dict[Task, Decimal]:
        for task, price in value.items():
            if not price.is_finite() or not 0 <= price <= _HIGHEST_PRICE:
                raise ValueError(f"the price of {task} must be a number from 0 to {_HIGHEST_PRICE}")
        return DEFAULT_PRICES | value

    @field_validator("reserved_units")
    @classmethod
    def _complete_units(cls, value: dict[Task, Decimal]) -> dict[Task, Decimal]:
        for task, units in value.items():
            if not units.is_finite() or not 0 <= units <= _MOST_RESERVED_UNITS:
                raise ValueError(f"the units of {task} must be a number from 0 to {_MOST_RESERVED_UNITS}")
        return DEFAULT_RESERVED_UNITS | value


def unknown_variables(names: Iterable[str]) -> list[str]:
    """Names that start with GATEWAY_ and that no setting has: probably misspelt."""
    known = {field.alias for field in Settings.model_fields.values()}
    return sorted(name for name in names if name.startswith("GATEWAY_") and name not in known)
