"""Asks the real authorizer what a ServiceAccount may do."""

import json
from typing import Any

from support.cluster import ControlPlane

Rights = set[tuple[str, str]]
"""Pairs of resource (with group, and name where it is bound to one) and verb."""


def rights(control_plane: ControlPlane, account: str, namespace: str) -> Rights:
    """What a ServiceAccount may do in a namespace, besides asking who it is."""
    review = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectRulesReview",
        "spec": {"namespace": namespace},
    }
    impersonated = (
        f"--as=system:serviceaccount:{account}",
        "--as-group=system:serviceaccounts",
        "--as-group=system:authenticated",
    )
    answer: Any = json.loads(
        control_plane.kubectl(
            "create", *impersonated, "--validate=false", "-f", "-", "-o", "json", stdin=json.dumps(review)
        )
    )
    assert not answer["status"]["incomplete"]
    return {
        (qualified(resource, group, name), verb)
        for rule in answer["status"]["resourceRules"]
        for group in rule.get("apiGroups", [""])
        for resource in rule.get("resources", [])
        for name in rule.get("resourceNames", [""])
        for verb in rule["verbs"]
        if not resource.startswith("selfsubject")
    }


def qualified(resource: str, group: str, name: str) -> str:
    """`aiservices.aiservice.dev/status`, or `leases.coordination.k8s.io:NAME`."""
    kind, _, subresource = resource.partition("/")
    full = f"{kind}.{group}" if group else kind
    return full + (f"/{subresource}" if subresource else "") + (f":{name}" if name else "")
