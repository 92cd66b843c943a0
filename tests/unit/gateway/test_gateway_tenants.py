"""Tenants: their policies, their keys, and who is let in."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from aiservice_api.tasks import Task
from aiservice_api.v1alpha1 import AITenant
from aiservice_gateway.discovery.tenants import verdict
from aiservice_gateway.errors import (
    GatewayError,
    TenantSuspendedError,
    UnauthenticatedError,
    UnavailableError,
    UnknownTenantError,
)
from aiservice_gateway.factory import authenticator
from aiservice_gateway.models import Identity, Limit, Measure, Policy, Service
from aiservice_gateway.services.api_keys import PREFIX, ApiKey, key_hash, make_key
from aiservice_gateway.services.claims import claim
from aiservice_gateway.services.tenants import Tenant, Tenants, may_use
from aiservice_gateway.settings import TokenSettings

SECRET = "Zk3vR8qLw1xT6bNf9sHd2mYc7pJg4aUe"
NOW = datetime(2026, 11, 29, 12, tzinfo=UTC)
STT, TTI = Task.SPEECH_TO_TEXT, Task.TEXT_TO_IMAGE


def requests(maximum: int, task: Task | None = None, window: int = 3600) -> Limit:
    return Limit(Measure.REQUESTS, Decimal(maximum), task, window)


def tenant(name: str, *limits: Limit, key: str | None = None, **more: Any) -> Tenant:
    """An AITenant; `more` are the other fields of its policy, or of itself."""
    own = {field: more.pop(field) for field in ("keys", "created") if field in more}
    return Tenant(key or f"ns/{name}", name, Policy(limits, **more), **own)


def tenants(*listed: Tenant, required: bool = False) -> Tenants:
    made = Tenants(100, required=required)
    made.replace(listed)
    return made


def limits_of(*stated: Limit) -> set[Limit]:
    """The limits that hold for a tenant that states these."""
    held = tenants(tenant("acme", *stated)).policy("acme").limits
    assert len(set(held)) == len(held)
    return set(held)


DEFAULTS = {requests(100, task) for task in Task}


def test_a_tenant_that_nobody_knows_has_the_defaults() -> None:
    assert set(tenants(tenant("other", suspended=True)).policy("acme").limits) == DEFAULTS
    assert tenants().policy("acme") == Policy(tenants().policy("acme").limits)


def test_a_tenant_without_limits_has_the_defaults() -> None:
    assert limits_of() == DEFAULTS


def test_requests_of_a_task_replace_the_default_of_that_task_alone() -> None:
    own = requests(7, STT, 60)
    assert limits_of(own) == DEFAULTS - {requests(100, STT)} | {own}
    two = {requests(7, STT, 60), requests(50, STT, 86400)}
    assert limits_of(*two) == DEFAULTS - {requests(100, STT)} | two


def test_requests_of_all_tasks_together_replace_every_default() -> None:
    assert limits_of(requests(1000)) == {requests(1000)}
    both = {requests(1000), requests(7, STT)}
    assert limits_of(*both) == both


@pytest.mark.parametrize(
    "limit",
    [
        Limit(Measure.UNITS, Decimal(5), STT, 3600),
        Limit(Measure.CONCURRENCY, Decimal(2)),
        Limit(Measure.SPEND, Decimal("9.5")),
    ],
)
def test_other_measures_come_on_top(limit: Limit) -> None:
    assert limits_of(limit) == DEFAULTS | {limit}


def test_of_two_that_count_the_same_the_lower_holds() -> None:
    assert limits_of(requests(9), requests(5), requests(7)) == {requests(5)}
    spend = [Limit(Measure.SPEND, Decimal(amount)) for amount in (3, 2)]
    assert limits_of(*spend) == DEFAULTS | {spend[1]}


def test_policies_change_live() -> None:
    known = tenants()
    known.put(tenant("acme", requests(5)))
    assert set(known.policy("acme").limits) == {requests(5)}
    known.put(tenant("acme", suspended=True))
    assert known.policy("acme").suspended
    known.remove("ns/acme")
    known.remove("ns/never-was")
    assert not known.policy("acme").suspended
    known.put(tenant("old", key="ns/a"))
    known.put(tenant("new", requests(3), key="ns/a"))
    assert set(known.policy("new").limits) == {requests(3)}
    assert set(known.policy("old").limits) == DEFAULTS


def test_of_two_for_one_tenant_the_older_counts() -> None:
    young = tenant("acme", requests(1), key="ns/a", created=NOW, keys=(ApiKey("k", key_hash("ais_young")),))
    older = tenant("acme", requests(2), key="ns/b", created=NOW - timedelta(days=1))
    same_age = tenant("acme", requests(3), key="ns/c", created=NOW - timedelta(days=1))
    known = tenants(young, same_age, older)
    assert set(known.policy("acme").limits) == {requests(2)}
    with pytest.raises(UnauthenticatedError):
        known.holder("ais_young", NOW.timestamp())
    known.remove("ns/b")
    assert set(known.policy("acme").limits) == {requests(3)}
    known.remove("ns/c")
    assert known.holder("ais_young", NOW.timestamp()).tenant == "acme"


def refused(kind: type[GatewayError], known: Tenants, name: str) -> GatewayError:
    with pytest.raises(kind) as caught:
        known.check(name)
    return caught.value


def test_who_is_let_in() -> None:
    known = tenants(tenant("acme"), tenant("late", suspended=True), required=True)
    known.check("acme")
    suspended = refused(TenantSuspendedError, known, "late")
    assert suspended.status == 403
    assert suspended.body("id-1") == {"error": suspended.message, "code": "tenant_suspended", "request_id": "id-1"}
    unknown = refused(UnknownTenantError, known, "Acme")
    assert unknown.status == 403
    assert unknown.body("id-1") == {"error": unknown.message, "code": "unknown_tenant", "request_id": "id-1"}
    tenants(tenant("acme")).check("Acme")


def test_before_the_tenants_are_known_nobody_is_let_in() -> None:
    known = Tenants(100)
    known.put(tenant("acme", keys=(ApiKey("ci", key_hash("ais_a")),)))
    assert refused(UnavailableError, known, "acme").status == 503
    with pytest.raises(UnavailableError):
        known.holder("ais_a", 0)


def service(**more: Any) -> Service:
    return Service(name="whisper", namespace="team-a", tasks=(STT,), endpoints={}, **more)


@pytest.mark.parametrize(
    ("allowed", "admitted", "may"),
    [
        (None, None, True),
        (None, {"acme"}, True),
        (None, {"other"}, False),
        (None, set(), False),
        ({"whisper"}, None, True),
        ({"team-a/whisper"}, None, True),
        ({"team-b/whisper", "stt"}, None, False),
        (set(), None, False),
        ({"whisper"}, {"acme"}, True),
        ({"whisper"}, {"other"}, False),
        ({"sdxl"}, {"acme"}, False),
    ],
)
def test_tenant_and_service_must_agree(allowed: set[str] | None, admitted: set[str] | None, *, may: bool) -> None:
    policy = Policy(services=None if allowed is None else frozenset(allowed))
    found = service(aliases=("stt",), tenants=None if admitted is None else frozenset(admitted))
    assert may_use(policy, "acme", found) is may


def test_keys_are_long_and_never_the_same() -> None:
    keys = {make_key() for _ in range(100)}
    assert len(keys) == 100
    assert all(key.startswith(PREFIX) and len(key) == len(PREFIX) + 43 for key in keys)
    assert key_hash("abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # FIPS 180-4


async def test_a_key_is_as_good_as_a_token() -> None:
    key, other, old, root = (make_key() for _ in range(4))
    known = tenants(
        tenant(
            "acme",
            keys=(
                ApiKey("ci", key_hash(key), user="pipeline"),
                ApiKey("root", key_hash(root), admin=True),
                ApiKey("old", key_hash(old), expires=NOW),
            ),
        ),
        tenant("globex", keys=(ApiKey("ci", key_hash(other)),)),
    )
    moment = NOW.timestamp() - 1
    auth = authenticator(TokenSettings.load({"JWT_SECRET": SECRET}), None, known, lambda: moment)

    async def ask(sent: str) -> Identity:
        return await auth.identify([f"Bearer {sent}"])

    assert await ask(key) == Identity("acme", "pipeline")
    assert await ask(root) == Identity("acme", "root", admin=True)
    assert await ask(other) == Identity("globex", "ci")
    assert await ask(old) == Identity("acme", "old")
    moment += 1
    wrong = [old, key[:-1], key + "a", key.upper(), key.removeprefix(PREFIX), PREFIX, key_hash(key), PREFIX + "é\x00"]
    for sent in wrong:
        with pytest.raises(UnauthenticatedError) as caught:
            await ask(sent)
        assert (caught.value.status, caught.value.code) == (401, "unauthenticated")
        assert sent == PREFIX or sent not in caught.value.message
    with pytest.raises(UnauthenticatedError, match="has expired"):
        await ask(old)


async def test_withdrawn_keys_and_suspended_tenants_are_refused_at_once() -> None:
    key = make_key()
    with_key = tenant("acme", keys=(ApiKey("ci", key_hash(key)),))
    known = tenants(with_key)
    auth = authenticator(TokenSettings.load({"JWT_SECRET": SECRET}), None, known)
    sent = [f"Bearer {key}"]
    assert (await auth.identify(sent)).tenant == "acme"
    known.put(tenant("acme", suspended=True, keys=with_key.keys))
    with pytest.raises(TenantSuspendedError):
        await auth.identify(sent)
    known.put(tenant("acme"))
    with pytest.raises(UnauthenticatedError, match="withdrawn"):
        await auth.identify(sent)


def test_one_hash_at_two_tenants_is_the_older_ones() -> None:
    keys = (ApiKey("ci", key_hash("ais_a")),)
    known = tenants(tenant("b", keys=keys, created=NOW), tenant("a", keys=keys, created=NOW - timedelta(1)))
    assert known.holder("ais_a", 0).tenant == "a"


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("a", {"b": 2, "b.c": 3, "x": {"y": 6}}),
        ("a.b", 1),
        ("a.b.c", 3),
        ("a.x.y", 6),
        ("a.d", None),
        ("a.b.d", None),
        ("a.x.y.z", None),
        ("https://example.com/app", {"org": 4}),
        ("https://example.com/app.org", 4),
        ("https://example.com/flat", 5),
        ("https://example.org/flat", None),
        (".", None),
        ("a.", None),
        (".a", None),
        ("a..b", None),
        ("", None),
    ],
)
def test_a_claim_that_is_there_by_its_name_wins_over_a_path(name: str, found: object) -> None:
    claims = {
        "a": {"b": 2, "b.c": 3, "x": {"y": 6}},
        "a.b": 1,
        "https://example.com/app": {"org": 4},
        "https://example.com/flat": 5,
    }
    assert claim(claims, name) == found


@pytest.mark.parametrize("claims", [None, [], "a", 7, {"a": None}, {"a": []}, {"a": "b"}])
def test_a_path_into_nothing_finds_nothing(claims: object) -> None:
    assert claim(claims, "a.b") is None


def resource(name: str, day: int, *, generation: int = 1, status: dict[str, Any] | None = None) -> AITenant:
    return AITenant.model_validate(
        {
            "metadata": {
                "name": name,
                "namespace": "ns",
                "generation": generation,
                "creationTimestamp": f"2026-11-{day:02}T00:00:00Z",
            },
            "spec": {"tenant": "acme"},
            "status": status or {},
        }
    )


def test_the_verdict_on_two_for_one_tenant() -> None:
    known = tenants(
        tenant("acme", key="ns/first", created=datetime(2026, 11, 1, tzinfo=UTC)),
        tenant("acme", key="ns/second", created=datetime(2026, 11, 2, tzinfo=UTC)),
    )
    first, second = (verdict(resource(name, day), known, NOW) for day, name in [(1, "first"), (2, "second")])
    assert first is not None
    assert second is not None
    assert (first["status"], first["reason"]) == ("True", "Counts")
    assert (second["status"], second["reason"]) == ("False", "TenantTaken")
    assert second["message"].startswith("first is about tenant acme too, and older: this object changes nothing.")
    assert second["lastTransitionTime"] == "2026-11-29T12:00:00Z"

    kept = resource("second", 2, status={"conditions": [{**second, "message": "in other words"}]})
    assert verdict(kept, known, NOW + timedelta(1)) is None, "what is there already is not written again"
    edited = verdict(resource("second", 2, generation=2, status={"conditions": [second]}), known, NOW + timedelta(1))
    assert edited is not None
    assert edited["observedGeneration"] == 2
    assert edited["lastTransitionTime"] == second["lastTransitionTime"], "the status has not changed"
    known.remove("ns/first")
    freed = verdict(resource("second", 2, status={"conditions": [second]}), known, NOW + timedelta(1))
    assert freed is not None
    assert (freed["status"], freed["lastTransitionTime"]) == ("True", "2026-11-30T12:00:00Z")
