"""Settings: what stops the start, and with which sentence."""

from __future__ import annotations

import base64
import random
import string
import uuid
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import orjson
import pytest
import yaml

from aiservice_api.tasks import Task
from aiservice_gateway.errors import SettingsError
from aiservice_gateway.secret_strength import weakness
from aiservice_gateway.settings import DEFAULT_PRICES, DatabaseSettings, Settings, unknown_variables

CHARTS = Path(__file__).parents[2] / "data" / "charts"
SECRET = "Zk3vR8qLw1xT6bNf9sHd2mYc7pJg4aUe"


def load(**variables: str) -> Settings:
    return Settings.load({"JWT_SECRET": SECRET, **variables})


def test_defaults() -> None:
    settings = load(REDIS_URL="", DATABASE_URL="")
    assert (settings.host, settings.port) == ("0.0.0.0", 8000)
    assert settings.redis_url is None
    assert settings.database_url is None
    assert settings.rate_limit_per_hour == 100
    assert settings.prices == DEFAULT_PRICES
    assert set(settings.prices) == set(Task)
    assert settings.namespaces == ()


@pytest.mark.parametrize(
    ("secret", "says"),
    [
        ("", "JWT_SECRET is not set, and neither is GATEWAY_JWT_SECRETS or GATEWAY_JWKS_URL"),
        ("your_jwt_secret_here", "shorter than 32 bytes"),
        ("a" * 31, "shorter than 32 bytes"),
        ("a" * 64, "fewer than 8 different characters"),
        ("your_jwt_secret_here_your_jwt_secret_here", "placeholder"),
        ("your-super-secret-jwt-key-change-this-in-production", "placeholder"),
        ("please-change-me-please-change-me-0123", "placeholder"),
        ("development-secret-0123456789-0123456789", "placeholder"),
        ("a-string-secret-at-least-256-bits-long", "placeholder"),
        ("your-256-bit-secret-your-256-bit-secret", "placeholder"),
        ("your-256-bit-your-256-bit-your-256-bit", "placeholder"),
        ("my-256-bit-secret-my-256-bit-secret", "placeholder"),
        ("this-is-a-very-long-secret-key-123", "placeholder"),
        ("my-ultra-secure-and-ultra-long-secret", "placeholder"),
        ("some-long-random-secret-some-long-random", "placeholder"),
        ("jwt_secret_jwt_secret_jwt_secret_", "placeholder"),
        ("JWT_SECRET_MUST_BE_AT_LEAST_32_CHARACTERS", "placeholder"),
        ("reallyreallyreallyreallyverysafe", "placeholder"),
        ("thisisasecretthisisasecretthisisasecret", "placeholder"),
        ("passwordpasswordpasswordpassword1", "placeholder"),
        ("Zk3vR8qLw1xT6bNfZk3vR8qLw1xT6bNf", "placeholder"),
        ("0123456789abcdef0123456789abcdef", "placeholder"),
        ("0123456789abcdefghijklmnopqrstuv", "placeholder"),
        ("qwertyuiopasdfghjklzxcvbnm123456", "placeholder"),
        ("zyxwvutsrqponmlkjihgfedcba987654", "placeholder"),
        ("09d25e094faa6ca2556c818166b7a9563b93f7099f6f0f4caa6cf63b88e8d3e7", "placeholder"),
        ("09D25E094FAA6CA2556C818166B7A9563B93F7099F6F0F4CAA6CF63B88E8D3E7\n", "placeholder"),
        ("404E635266556A586E3272357538782F413F4428472B4B6250645367566B5970", "placeholder"),
        ("3EK6FD+o0+c7tzBNVfjpMkNDi2yARAAKzQlk8O2IKoxQu4nF7EdAh8s3TwpHwrdWT6R", "placeholder"),
        ("AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow", "placeholder"),
    ],
)
def test_a_weak_secret_stops_the_start_and_is_not_shown(secret: str, says: str) -> None:
    with pytest.raises(SettingsError, match=says) as caught:
        Settings.load({"JWT_SECRET": secret})
    assert not secret or secret not in str(caught.value)


@pytest.mark.parametrize(
    ("secrets", "says"),
    [
        ("[]", "GATEWAY_JWT_SECRETS: Input should be a valid dictionary"),
        ("{", "GATEWAY_JWT_SECRETS: not JSON"),
        ('{"new": "short-hunter2"}', "GATEWAY_JWT_SECRETS: new: it is shorter than 32 bytes"),
        (f'{{"old": "{SECRET}", "new": "change-me-hunter2-change-me-0123456"}}', "new: it looks like the placeholder"),
        (f'{{"": "{SECRET}"}}', "GATEWAY_JWT_SECRETS.*: String should have at least 1 character"),
        ('{"new": 7}', "GATEWAY_JWT_SECRETS.new: Input should be a valid string"),
        (orjson.dumps(dict.fromkeys(map(str, range(17)), SECRET)).decode(), "GATEWAY_JWT_SECRETS: .* at most 16 items"),
    ],
    ids=str,
)
def test_each_further_secret_must_be_strong_too(secrets: str, says: str) -> None:
    for jwt_secret in (SECRET, ""):
        with pytest.raises(SettingsError, match=says) as caught:
            Settings.load({"JWT_SECRET": jwt_secret, "GATEWAY_JWT_SECRETS": secrets})
        assert "hunter2" not in str(caught.value)
        assert SECRET not in str(caught.value)
        assert "is not set" not in str(caught.value)


@pytest.mark.parametrize(
    "variables",
    [
        {"GATEWAY_JWKS_URL": "https://issuer.example/keys"},
        {"GATEWAY_JWKS_URL": "https://issuer.example/keys?tenant=a"},
        {"GATEWAY_JWKS_URL": "http://127.0.0.1:8080/keys"},
        {"GATEWAY_JWKS_URL": "http://127.1.2.3/keys"},
        {"GATEWAY_JWKS_URL": "http://[::1]/keys"},
        {"GATEWAY_JWKS_URL": "http://localhost/keys"},
        {"GATEWAY_JWT_SECRETS": f'{{"a": "{SECRET}"}}'},
    ],
    ids=str,
)
def test_tokens_can_be_checked_without_the_secret(variables: dict[str, str]) -> None:
    settings = Settings.load(variables)
    assert settings.jwt_secret is None
    assert SECRET not in repr(settings)


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("http://issuer.example/keys", "must be an https:// address"),
        ("http://127.0.0.1.example.com/keys", "must be an https:// address"),
        ("http://localhost.example.com/keys", "must be an https:// address"),
        ("http://10.0.0.1/keys", "must be an https:// address"),
        ("HTTP://issuer.example/keys", "must be an https:// address"),
        ("file:///etc/passwd", "must be an https:// address"),
        ("ftp://127.0.0.1/keys", "must be an https:// address"),
        ("https:///keys", "must be an https:// address"),
        ("issuer.example/keys", "must be an https:// address"),
        ("https://[::1/keys", "Invalid IPv6 URL"),
        ("https://me:hunter2@issuer.example/keys", "no user name, password"),
        ("http://127.0.0.1@issuer.example/keys", "must be an https:// address"),
        ("https://issuer.example/keys#a", "or #fragment"),
    ],
)
def test_keys_come_from_nowhere_that_can_be_forged(url: str, says: str) -> None:
    with pytest.raises(SettingsError, match=f"GATEWAY_JWKS_URL: {says}|GATEWAY_JWKS_URL: must.*{says}") as caught:
        Settings.load({"GATEWAY_JWKS_URL": url})
    assert "hunter2" not in str(caught.value)
    assert "JWT_SECRET is not set" not in str(caught.value)


def test_a_strong_secret_passes() -> None:
    assert weakness(SECRET) is None
    assert weakness("c2VjcmV0IGtleSBtYWRlIGJ5IG9wZW5zc2wgcmFuZAo=") is None
    assert weakness("unlit-scorch-9-vendetta-Prism-ottoman-gully") is None  # as password managers make them of words


_LETTERS = string.ascii_letters + string.digits


def _chosen(alphabet: str, length: int) -> Callable[[random.Random], str]:
    return lambda source: "".join(source.choices(alphabet, k=length))


@pytest.mark.parametrize(
    "make",
    [
        lambda source: source.randbytes(32).hex(),
        lambda source: source.randbytes(16).hex(),
        lambda source: base64.b64encode(source.randbytes(48)).decode(),
        lambda source: base64.urlsafe_b64encode(source.randbytes(32)).decode().rstrip("="),
        lambda source: str(uuid.UUID(bytes=source.randbytes(16), version=4)),
        _chosen(_LETTERS, 32),
        _chosen(_LETTERS + string.punctuation, 32),
        _chosen(string.ascii_lowercase, 40),
    ],
    ids=["hex 32", "hex 16", "base64 48", "base64url 32", "uuid", "letters", "signs", "lower case"],
)
def test_no_random_secret_is_refused(make: Callable[[random.Random], str]) -> None:
    source = random.Random(7)
    refused = [secret for _ in range(5000) if weakness(secret := make(source))]
    assert refused == []


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("GATEWAY_PORT", "many", "GATEWAY_PORT: Input should be a valid integer"),
        ("GATEWAY_PORT", "70000", "GATEWAY_PORT: Input should be less than or equal to 65535"),
        ("GATEWAY_RATE_LIMIT_PER_HOUR", "0", "GATEWAY_RATE_LIMIT_PER_HOUR: Input should be greater than"),
        ("REDIS_URL", "localhost:6379", "REDIS_URL: must start with redis://"),
        ("DATABASE_URL", "mysql://u:hunter2@h/d", "DATABASE_URL: must start with postgresql://"),
        ("GATEWAY_PRICES", "{", "GATEWAY_PRICES: not JSON"),
        ("GATEWAY_PRICES", '{"speech-to-text": -1}', "GATEWAY_PRICES: the price of speech-to-text must"),
        ("GATEWAY_PRICES", '{"speech-to-text": 2e9}', "GATEWAY_PRICES: the price of speech-to-text must"),
        ("GATEWAY_PRICES", '{"chess": 1}', r"GATEWAY_PRICES\.chess.*: Input should be"),
        ("GATEWAY_JWT_LEEWAY_SECONDS", "301", "GATEWAY_JWT_LEEWAY_SECONDS: Input should be less"),
        ("GATEWAY_REQUIRE_TENANT", "perhaps", "GATEWAY_REQUIRE_TENANT: Input should be a valid boolean"),
        ("GATEWAY_LOG_LEVEL", "loud", "GATEWAY_LOG_LEVEL: Input should be"),
        ("GATEWAY_UPSTREAM_TIMEOUT_SECONDS", "0", "GATEWAY_UPSTREAM_TIMEOUT_SECONDS: Input should be greater"),
    ],
)
def test_a_wrong_value_is_told_by_its_variable(name: str, value: str, says: str) -> None:
    with pytest.raises(SettingsError, match=says) as caught:
        load(**{name: value})
    assert "hunter2" not in str(caught.value)


def test_every_wrong_value_is_told_at_once() -> None:
    with pytest.raises(SettingsError) as caught:
        Settings.load({"GATEWAY_PORT": "x", "GATEWAY_DRAIN_SECONDS": "y"})
    assert len(str(caught.value).splitlines()) == 3


def test_values() -> None:
    settings = load(
        GATEWAY_NAMESPACES=" team-a, team-b ,",
        GATEWAY_PRICES='{"speech-to-text": 0.1}',
        GATEWAY_LOG_LEVEL="debug",
        REDIS_URL="rediss://:pw@redis:6380/1",
    )
    assert settings.namespaces == ("team-a", "team-b")
    assert settings.prices[Task.SPEECH_TO_TEXT] == Decimal("0.1")
    assert settings.prices[Task.TEXT_TO_IMAGE] == DEFAULT_PRICES[Task.TEXT_TO_IMAGE]
    assert settings.log_level == "DEBUG"
    assert "pw" not in repr(settings)


def test_migrating_needs_no_secret() -> None:
    assert DatabaseSettings.load({"DATABASE_URL": "postgres://u@h/d"}).database_url is not None


def test_misspelt_variables_are_found() -> None:
    assert unknown_variables(["GATEWAY_PORT", "GATEWAY_PROT", "PATH"]) == ["GATEWAY_PROT"]


def rendered(case: str) -> dict[str, str]:
    """What the chart puts into the gateway's container, with something in place of what is in Secrets."""
    manifests: list[Any] = list(yaml.safe_load_all((CHARTS / f"gateway-{case}.yaml").read_text()))
    [pod] = [one["spec"]["template"]["spec"] for one in manifests if one["kind"] == "Deployment"]
    secret = {
        "DATABASE_URL": "postgresql://db/app",
        "REDIS_URL": "redis://limits",
        "GATEWAY_JWT_SECRETS": orjson.dumps({"old": SECRET}).decode(),
        "GATEWAY_WEBHOOK_SECRET": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
    }
    return {one["name"]: one.get("value", secret.get(one["name"], SECRET)) for one in pod["containers"][0]["env"]}


@pytest.mark.parametrize("case", ["embedded", "bundled"])
def test_the_charts_examples_sign_with_what_the_gateway_takes(case: str) -> None:
    manifests: list[Any] = list(yaml.safe_load_all((CHARTS / f"gateway-{case}.yaml").read_text()))
    [key] = [one["stringData"]["JWT_SECRET"] for one in manifests if "JWT_SECRET" in one.get("stringData", {})]
    assert weakness(key) is None


def test_the_charts_defaults_are_the_gateways() -> None:
    given = {name: value for name, value in rendered("external").items() if name != "GATEWAY_NAMESPACE"}
    chart, own = Settings.load(given).model_dump(), load(DATABASE_URL="postgresql://db/app", REDIS_URL="redis://limits")
    different = {name for name, value in own.model_dump().items() if chart[name] != value}
    # The files are on the pod's volume; a Service takes longer to leave a pod out than a load balancer of one's own.
    assert different == {"sqlite_file", "spool_dir", "drain_delay_seconds"}


def test_the_gateway_takes_what_the_chart_writes() -> None:
    variables = rendered("full")
    settings = Settings.load(variables)
    assert unknown_variables(variables) == []
    assert (settings.job_concurrency, settings.job_max_open, settings.workers) == (0, 2_000_000, 4)
    assert list(settings.webhook_retry_seconds) == [0.5, 86400]
    assert settings.webhook_allow_private
    assert settings.lease_seconds == 7.5
    assert settings.reserved_units[Task.TEXT_TO_SPEECH] == 2000
