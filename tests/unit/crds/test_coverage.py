"""Every field and every rule of the kinds has a test: a good manifest that states it, a bad one that breaks it."""

from __future__ import annotations

import re

import pytest

from support.bad_manifests import CASES
from support.bad_manifests.updates import REFUSED
from support.crd_schema import KINDS, places, rules, spec_fields
from support.full_manifests import FULL

SENTENCES = frozenset(sentence for cases in (CASES, REFUSED) for case in cases for sentence in case.sentences)


@pytest.mark.parametrize("kind", KINDS)
def test_every_field_is_stated_in_a_good_manifest(kind: str) -> None:
    """`test_objects` sees that the API server keeps it, and `test_bounds` breaks its bounds."""
    manifests = [manifest for manifest in FULL if manifest["kind"] == kind]
    fields = spec_fields(kind)
    assert len(fields) > 10

    assert [path for path in fields if not any(places(manifest, path) for manifest in manifests)] == []


def quoted(rule: dict[str, str]) -> bool:
    """Whether a bad manifest expects the words of a rule; a message made from the value has fixed parts."""
    literals = re.findall(r"'([^']*)'", rule.get("messageExpression", ""))
    fixed = [part.strip(" :") for part in literals if len(part) > 20] or [rule["message"]]
    return any(part in sentence or sentence in part for part in fixed for sentence in SENTENCES)


@pytest.mark.parametrize("kind", KINDS)
def test_every_rule_is_broken_by_a_bad_manifest_that_quotes_it(kind: str) -> None:
    every = list(rules(kind))
    assert len(every) > 5

    assert sorted({rule["message"] for rule in every if not quoted(rule)}) == []
