"""The identity of serving pods: one without any right, whose token is not mounted."""

from __future__ import annotations

from kubernetes.aio import client

from aiservice_operator import names
from aiservice_operator.desired.common import controlled_by, metadata
from aiservice_operator.kinds import Kind
from aiservice_operator.observed import Meta


def service_account(owner: Meta) -> client.V1ServiceAccount:
    """Builds the ServiceAccount of an AIService."""
    return client.V1ServiceAccount(
        metadata=metadata(
            owner.name, owner.namespace, names.service_labels(owner.name), [controlled_by(Kind.AISERVICE, owner)]
        ),
        automount_service_account_token=False,
    )
