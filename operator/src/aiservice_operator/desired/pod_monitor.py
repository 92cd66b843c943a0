"""The PodMonitor of an AIService: how the Prometheus Operator finds the metrics of its pods.

Its API is a CRD of the Prometheus Operator, for which the client has no types.
"""

from __future__ import annotations

from aiservice_api.v1alpha1 import AIServiceSpec
from aiservice_operator import names
from aiservice_operator.desired.common import controlled_by, metadata
from aiservice_operator.kinds import Json, Kind
from aiservice_operator.observed import Meta
from aiservice_operator.settings import Settings


def pod_monitor(owner: Meta, spec: AIServiceSpec, settings: Settings) -> Json | None:
    """Builds the PodMonitor of an AIService; None where the operator makes none.

    A pod shows the metrics of all its tasks on each port, so the first is read.
    """
    monitoring = settings.monitoring
    if not monitoring.enabled:
        return None
    labels = {**monitoring.labels, **names.service_labels(owner.name)}
    described = metadata(owner.name, owner.namespace, labels, [controlled_by(Kind.AISERVICE, owner)])
    return {
        "metadata": described.model_dump(mode="json", by_alias=True, exclude_none=True),
        "spec": {
            "selector": {"matchLabels": names.workload_selector(owner.name)},
            # The series get the name of the service.
            "podTargetLabels": [names.INSTANCE_LABEL],
            "podMetricsEndpoints": [{"port": spec.tasks[0].value, "path": "/metrics", "interval": monitoring.interval}],
        },
    }
