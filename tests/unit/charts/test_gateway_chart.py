"""The gateway's chart: where its settings come from, its migration and what it refuses."""

import json
import re
from collections.abc import Mapping
from typing import Any

import pytest

from support import charts
from support.charts import Case, Manifest, kinds, only, template
from support.cluster import REPOSITORY, CommandError

EXTERNAL = Case("aiservice-gateway", "external")
BUNDLED = Case("aiservice-gateway", "bundled")
EMBEDDED = Case("aiservice-gateway", "embedded")
FULL = Case("aiservice-gateway", "full")
BARE = Case("aiservice-gateway", "default")
KEY = "f0rChartTests-Wc7kQz2nVb9xLd4mT8"
WITHOUT_VALUE = {
    "GATEWAY_HOST": "probes and Service reach the pod's address",
    "GATEWAY_PORT": "the Service's port is what clients see: service.port",
    "GATEWAY_SERVICES_FILE": "services are AIServices",
    "KUBECONFIG": "a pod has its service account",
}
"""Settings of the gateway that the chart neither sets nor has a value for, and why."""
FIXED = {"GATEWAY_SQLITE_FILE": "/data/usage.sqlite3", "GATEWAY_SPOOL_DIR": "/data/spool"}
"""Settings that the chart itself states: where the pod has a volume."""


def environment(case: Case, values: Mapping[str, Any] | None = None) -> dict[str, Manifest]:
    """The variables of the gateway's container, by name."""
    gateway = only(template(case, values=values), "Deployment")["spec"]["template"]["spec"]["containers"][0]
    assert len({one["name"] for one in gateway["env"]}) == len(gateway["env"])
    return {one["name"]: one for one in gateway["env"]}


def secret_of(variable: Manifest) -> tuple[str, str]:
    """Name and key of the Secret that a variable comes from."""
    reference = variable["valueFrom"]["secretKeyRef"]
    return reference["name"], reference["key"]


def test_secrets_that_exist_are_referred_to_and_never_copied() -> None:
    variables = environment(EXTERNAL)
    assert secret_of(variables["JWT_SECRET"]) == ("aiservice-gateway-secrets", "JWT_SECRET")
    assert secret_of(variables["DATABASE_URL"]) == ("aiservice-gateway-secrets", "DATABASE_URL")
    assert secret_of(variables["REDIS_URL"]) == ("aiservice-gateway-secrets", "LIMITS_URL")
    assert kinds(template(EXTERNAL), "Secret", "StatefulSet") == []


def test_bundled_stores_are_reached_by_their_secrets() -> None:
    manifests = template(BUNDLED)
    variables = environment(BUNDLED)
    for store, variable in (("postgresql", "DATABASE_URL"), ("redis", "REDIS_URL")):
        name, key = secret_of(variables[variable])
        secret = only(manifests, "Secret", name)["stringData"]
        service = only(manifests, "Service", f"aiservice-gateway-{store}")
        host = f"{service['metadata']['name']}.{charts.NAMESPACE}.svc:{service['spec']['ports'][0]['port']}"
        assert f":{secret['password']}@{host}/" in secret[key]


def test_bundled_stores_without_a_stated_password_get_a_strong_one() -> None:
    values = {store: {"bundled": {"enabled": True}} for store in ("postgresql", "redis")} | {"auth": {"jwtSecret": KEY}}
    secrets = [
        one["stringData"] for one in kinds(template(BARE, values=values), "Secret") if "password" in one["stringData"]
    ]
    assert len({secret["password"] for secret in secrets}) == 2
    for secret in secrets:
        assert re.fullmatch("[A-Za-z0-9]{32}", secret["password"])
        assert f":{secret['password']}@" in secret.get("DATABASE_URL", secret.get("REDIS_URL"))


def test_embedded_has_no_urls_and_one_pod_at_a_time() -> None:
    variables = environment(EMBEDDED)
    assert not {"DATABASE_URL", "REDIS_URL"} & set(variables)
    assert variables["GATEWAY_SQLITE_FILE"]["value"].startswith("/data/")
    manifests = template(EMBEDDED)
    assert only(manifests, "Deployment")["spec"]["strategy"] == {"type": "Recreate"}
    assert kinds(manifests, "Job") == []


def test_every_variable_is_a_setting_and_every_setting_a_value_or_an_exception() -> None:
    source = (REPOSITORY / "gateway/src/aiservice_gateway/settings.py").read_text()
    known = set(re.findall(r'alias="([A-Z_]+)"', source))
    variables = environment(FULL)
    given = set(variables) - {"OTEL_SERVICE_NAME", "OTEL_EXPORTER_OTLP_ENDPOINT"}
    assert given | WITHOUT_VALUE.keys() == known
    assert not given & WITHOUT_VALUE.keys()
    assert {name: variables[name]["value"] for name in FIXED} == FIXED


def test_the_full_values_change_every_setting() -> None:
    """So that the file shows each, and a value that reaches no variable is found."""
    full, default = environment(FULL), environment(EXTERNAL)
    same = {name for name in full if full[name] == default.get(name)}
    assert same == {*FIXED, "GATEWAY_NAMESPACE"}


def test_values_are_written_as_the_gateway_reads_them() -> None:
    variables = environment(FULL)
    written = {name: variables[name].get("value") for name in variables}
    assert written["GATEWAY_FOLLOW_PODS"] == "false"
    assert written["GATEWAY_CORS_ORIGINS"] == "https://app.example.com,http://localhost:3000"
    assert written["GATEWAY_JOB_CONCURRENCY"] == "0"
    assert written["GATEWAY_JOB_RETENTION_SECONDS"] == "31622400"
    assert written["GATEWAY_WEBHOOK_RETRY_SECONDS"] == "0.5,86400"
    assert written["GATEWAY_LEASE_SECONDS"] == "7.5"
    assert secret_of(variables["GATEWAY_WEBHOOK_SECRET"]) == ("nextjs", "HOOKS")
    assert json.loads(variables["GATEWAY_RESERVED_UNITS"]["value"]) == {"text-to-speech": 2000, "text-to-image": 1.5}


def test_without_a_secret_there_are_no_webhooks() -> None:
    assert "GATEWAY_WEBHOOK_SECRET" not in environment(EXTERNAL)


def test_several_workers_only_need_redis() -> None:
    values = {"workers": 2, "redis": {"bundled": {"enabled": True}}}
    assert environment(EMBEDDED, values)["GATEWAY_WORKERS"]["value"] == "2"


def test_an_issuers_keys_are_enough() -> None:
    case, url = EXTERNAL, "https://login.example.com/keys"
    variables = environment(case, {"auth": {"existingSecret": "", "jwksUrl": url, "audiences": ["a", "b"]}})
    assert "JWT_SECRET" not in variables
    assert variables["GATEWAY_JWKS_URL"]["value"] == url
    assert variables["GATEWAY_JWT_AUDIENCE"]["value"] == "a,b"


def test_tenants_are_those_of_the_pods_namespace() -> None:
    source = environment(EXTERNAL)["GATEWAY_NAMESPACE"]["valueFrom"]
    assert source == {"fieldRef": {"fieldPath": "metadata.namespace"}}


def test_numbers_are_written_out() -> None:
    variables = environment(FULL)
    assert variables["GATEWAY_RATE_LIMIT_PER_HOUR"]["value"] == "1000000"
    assert variables["GATEWAY_MAX_BODY_BYTES"]["value"] == "1073741824"
    assert json.loads(variables["GATEWAY_PRICES"]["value"]) == {"speech-to-text": 0.00005, "image-to-text": 0}


def test_a_pod_has_time_to_drain() -> None:
    spec = only(template(EXTERNAL, values={"drainSeconds": 90, "drainDelaySeconds": 7}), "Deployment")["spec"]
    assert spec["template"]["spec"]["terminationGracePeriodSeconds"] > 90 + 7


def job_name(case: Case, **values: Any) -> str:
    return str(only(template(case, values=values), "Job")["metadata"]["name"])


def test_the_migration_is_replaced_when_what_it_runs_changes_and_only_then() -> None:
    assert job_name(EXTERNAL) == job_name(EXTERNAL, replicas=3, rateLimitPerHour=5)
    different = [
        job_name(EXTERNAL),
        job_name(EXTERNAL, image={"tag": "2"}),
        job_name(EXTERNAL, postgresql={"secretKey": "OTHER"}),
        job_name(EXTERNAL, nodeSelector={"a": "b"}),
        job_name(EXTERNAL, migration={"backoffLimit": 1}),
    ]
    assert len(set(different)) == len(different)


def test_a_stated_secret_that_changes_makes_new_pods() -> None:
    def checksum(secret: str) -> str:
        pod = only(template(EMBEDDED, values={"auth": {"jwtSecret": secret}}), "Deployment")["spec"]["template"]
        return str(pod["metadata"]["annotations"]["checksum/secrets"])

    assert checksum(KEY) != checksum(KEY[::-1])


def test_roles_follow_the_namespaces() -> None:
    services = {"apiGroups": ["aiservice.dev"], "resources": ["aiservices"], "verbs": ["list", "watch"]}
    pods = {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": ["list", "watch"]}
    rules = [services, pods]
    assert only(template(EXTERNAL, values={"followPods": False}), "ClusterRole")["rules"] == [services]
    assert only(template(EXTERNAL), "ClusterRole")["rules"] == rules
    some = template(EXTERNAL, values={"namespaces": ["team-a", charts.NAMESPACE]})
    assert kinds(some, "ClusterRole", "ClusterRoleBinding") == []
    tenants = [
        {"apiGroups": ["aiservice.dev"], "resources": ["aitenants"], "verbs": ["list", "watch"]},
        {"apiGroups": ["aiservice.dev"], "resources": ["aitenants/status"], "verbs": ["patch"]},
    ]
    granted = {(one["metadata"]["namespace"], one["metadata"]["name"]): one["rules"] for one in kinds(some, "Role")}
    assert granted == {
        ("team-a", "aiservice-gateway"): rules,
        (charts.NAMESPACE, "aiservice-gateway"): rules,
        (charts.NAMESPACE, "aiservice-gateway-tenants"): tenants,
    }
    assert [one["rules"] for one in kinds(template(EXTERNAL), "Role")] == [tenants]
    for binding in kinds(some, "RoleBinding"):
        assert binding["subjects"] == [
            {"kind": "ServiceAccount", "name": "aiservice-gateway", "namespace": charts.NAMESPACE}
        ]


@pytest.mark.parametrize(
    ("case", "values", "sentence"),
    [
        (BARE, {}, "the gateway needs the key that signs JWTs"),
        (
            BARE,
            {"auth": {"jwtSecret": KEY}},
            "the gateway needs PostgreSQL for usage records: set postgresql.existingSecret",
        ),
        (
            EXTERNAL,
            {"redis": {"existingSecret": ""}},
            "the gateway needs Redis for tenant limits: set redis.existingSecret",
        ),
        (EXTERNAL, {"auth": {"jwtSecret": KEY}}, "set auth.existingSecret or auth.jwtSecret, not both"),
        (EMBEDDED, {"auth": {"moreSecretsKey": "OLD"}}, "auth.moreSecretsKey is a key of auth.existingSecret"),
        (EXTERNAL, {"auth": {"jwksUrl": "login.example.com"}}, "at '/auth/jwksUrl'"),
        (EXTERNAL, {"auth": {"audiences": ["a,b"]}}, "at '/auth/audiences/0'"),
        (EXTERNAL, {"auth": {"leewaySeconds": 301}}, "at '/auth/leewaySeconds'"),
        (EMBEDDED, {"auth": {"jwtSecret": "short"}}, "HS256 needs at least 32 characters"),
        (EXTERNAL, {"redis": {"url": "redis://x"}}, "set only one of redis.existingSecret, redis.url and"),
        (EMBEDDED, {"replicas": 2}, "replicas is 2 but postgresql is embedded"),
        (EMBEDDED, {"workers": 2}, "workers is 2 but redis is embedded"),
        (EXTERNAL, {"workers": 0}, "at '/workers'"),
        (EXTERNAL, {"leaseSeconds": 0.5}, "at '/leaseSeconds'"),
        (EXTERNAL, {"reservedUnits": {"text-to-image": 1000001}}, "at '/reservedUnits/text-to-image'"),
        (EXTERNAL, {"jobs": {"concurrency": 1001}}, "at '/jobs/concurrency'"),
        (EXTERNAL, {"jobs": {"deadlineSeconds": "1d"}}, "at '/jobs/deadlineSeconds': got string, want integer"),
        (EXTERNAL, {"webhooks": {"secret": "whsec_x"}}, "at '/webhooks': additional properties 'secret' not allowed"),
        (EXTERNAL, {"webhooks": {"retrySeconds": []}}, "at '/webhooks/retrySeconds': minItems"),
        (EXTERNAL, {"webhooks": {"retrySeconds": [0]}}, "at '/webhooks/retrySeconds/0'"),
        (EXTERNAL, {"idempotency": {"retentionSeconds": 2678401}}, "at '/idempotency/retentionSeconds'"),
        (
            EXTERNAL,
            {"extraEnv": [{"name": "GATEWAY_JOB_ATTEMPTS", "value": "4"}]},
            "extraEnv states GATEWAY_JOB_ATTEMPTS, which a value of this chart sets",
        ),
        (EXTERNAL, {"ingress": {"enabled": True}}, "set ingress.hosts"),
        (EXTERNAL, {"service": {"nodePort": 30000}}, "set service.type to NodePort"),
        (EXTERNAL, {"serviceAccount": {"create": False}}, "set serviceAccount.name"),
        (EXTERNAL, {"replicaCount": 2}, "additional properties 'replicaCount' not allowed"),
        (EXTERNAL, {"rateLimitPerHour": 0}, "at '/rateLimitPerHour'"),
        (EXTERNAL, {"prices": {"text-to-video": 1}}, "at '/prices': additional properties 'text-to-video' not allowed"),
        (EXTERNAL, {"prices": {"text-to-image": -1}}, "at '/prices/text-to-image'"),
        (EMBEDDED, {"postgresql": {"url": "mysql://x"}}, "at '/postgresql/url'"),
        (BUNDLED, {"redis": {"bundled": {"password": "short"}}}, "at '/redis/bundled/password'"),
        (BUNDLED, {"redis": {"bundled": {"password": "quote'd-and-longer"}}}, "at '/redis/bundled/password'"),
        (BUNDLED, {"redis": {"bundled": {"persistence": {"size": "big"}}}}, "at '/redis/bundled/persistence/size'"),
        (EXTERNAL, {"service": {"type": "ExternalName"}}, "at '/service/type'"),
    ],
    ids=str,
)
def test_wrong_values_are_refused(case: Case, values: dict[str, Any], sentence: str) -> None:
    with pytest.raises(CommandError) as refused:
        template(case, values=values)
    assert sentence in refused.value.stderr
