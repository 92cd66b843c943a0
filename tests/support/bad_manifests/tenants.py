"""Bad AITenants: limits, services and keys that they must not state."""

from __future__ import annotations

from typing import Any

from support.bad_manifests.cases import Case, bad
from support.manifests import Manifest, ai_tenant


def limits(*listed: dict[str, Any]) -> Manifest:
    """A tenant with these limits, each on ten requests but for what it states."""
    return ai_tenant(("spec.limits", [{"measure": "requests", "maximum": 10, **limit} for limit in listed]))


def key(**fields: Any) -> Manifest:
    """A tenant with a good key, with some of its fields replaced."""
    return ai_tenant(("spec.apiKeys", [{"name": "ci", "sha256": "0" * 64, **fields}]))


_WHOLE = "requests and concurrency are counted whole: write maximum without a fraction"
_WINDOW = "window is for requests and units: remove it. concurrency counts what runs now, spend a calendar month"
_DIGEST = (
    "write the SHA-256 of the key, 64 lower-case hex digits, as `python -m aiservice_gateway key` prints it, never the "
    "key itself"
)

TENANTS: tuple[Case, ...] = (
    bad(
        "limit-of-what", limits({"measure": "tokens"}), 'supported values: "requests", "units", "concurrency", "spend"'
    ),
    bad("limit-zero", limits({"maximum": 0}), "spec.limits[0].maximum in body should be greater than 0"),
    bad("limit-as-text", limits({"maximum": "10"}), "spec.limits[0].maximum in body must be of type number"),
    *(
        bad(f"half-a-{measure}", limits({"measure": measure, "maximum": 1.5}), _WHOLE)
        for measure in ("requests", "concurrency")
    ),
    *(
        bad(f"window-of-{measure}", limits({"measure": measure, "window": "1h"}), _WINDOW)
        for measure in ("concurrency", "spend")
    ),
    bad(
        "more-requests-than-are-remembered",
        limits({"maximum": 1_000_001}),
        "each request of a window is remembered, so at most 1000000 can be: lower maximum and shorten window",
    ),
    *(
        bad(f"window-{case}", limits({"window": window}), "write a number and a unit, at most 99d: 90s, 30m, 24h or 7d")
        for case, window in [("zero", "0s"), ("without-unit", "60"), ("too-long", "100d"), ("two-units", "1h30m")]
    ),
    *(
        bad(
            f"limit-twice-{case}",
            limits({**same, "maximum": 5}, {"measure": "spend", "maximum": 1.5}, same),
            "two limits count the same measure, task and window: keep the one that is to hold",
        )
        for case, same in [("bare", {}), ("with-everything", {"task": "image-to-text", "window": "1m"})]
    ),
    bad("service-in-words", ai_tenant(("spec.services", ["my whisper"])), "write a name of letters, digits, dots"),
    bad("service-twice", ai_tenant(("spec.services", ["a", "a"])), "Duplicate value"),
    bad("tenant-empty", ai_tenant(("spec.tenant", "")), "spec.tenant in body should be at least 1 chars"),
    bad("key-itself", key(sha256="ais_" + "x" * 43), _DIGEST),
    bad("key-digest-upper-case", key(sha256="AB" * 32), _DIGEST),
    bad("key-name-bad", key(name="my key"), "write lower-case letters, digits and dashes"),
    bad("key-expires-some-day", key(expires="2027-01-01"), "spec.apiKeys[0].expires in body must be of type date-time"),
    bad(
        "key-name-twice",
        ai_tenant(("spec.apiKeys", [{"name": "ci", "sha256": "0" * 64}, {"name": "ci", "sha256": "1" * 64}])),
        'Duplicate value: {"name":"ci"}',
    ),
)
