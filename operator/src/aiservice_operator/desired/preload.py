"""Imports what builders need, before anybody waits for it."""

from __future__ import annotations

from kubernetes.aio import client

_BUILT = (
    "V1Deployment",
    "V1Job",
    "V1NetworkPolicy",
    "V1PersistentVolumeClaim",
    "V1PodDisruptionBudget",
    "V1Service",
    "V1ServiceAccount",
    "V2HorizontalPodAutoscaler",
)


def preload() -> None:
    """Imports the models of all that is built.

    The client imports each at its first use, which takes seconds: the first AIService would wait for them, and while
    they are imported nothing else runs.
    """
    for name in _BUILT:
        getattr(client, name)
