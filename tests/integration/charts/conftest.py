"""What the chart tests share: a namespace that takes only restricted pods, and Helm on the control plane."""

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from support.charts import CHARTS
from support.cluster import CommandError, ControlPlane, run, tool

Install = Callable[..., str]


@pytest.fixture
def restricted(control_plane: ControlPlane, namespace: str) -> str:
    """A fresh namespace whose Pod Security level refuses, and warns about, whatever is not restricted."""
    labels = [f"pod-security.kubernetes.io/{mode}=restricted" for mode in ("enforce", "warn")]
    control_plane.kubectl("label", "namespace", namespace, *labels)
    return namespace


@pytest.fixture
def helm(control_plane: ControlPlane, restricted: str) -> Iterator[Install]:
    """Runs Helm in the namespace; what it installed is uninstalled after the test.

    The CustomResourceDefinitions are the cluster's, and other tests have put them there by other means: Helm takes over
    the objects and their fields.
    """
    releases = set()

    def helm(
        command: str, release: str, part: str = "", values: Mapping[str, Any] | None = None, charts: Path = CHARTS
    ) -> str:
        connection = (f"--kubeconfig={control_plane.kubeconfig}", "--namespace", restricted)
        if not part:
            # No kubelet runs the Job of a hook here; test_charts_uninstall.py is about it.
            hooks = ("--no-hooks",) if command == "uninstall" else ()
            return run(tool("helm"), command, release, *connection, *hooks)
        releases.add(release)
        chart = charts / f"aiservice-{part}"
        options = ("--take-ownership", "--force-conflicts", "--values", "-")
        return run(tool("helm"), command, release, chart, *connection, *options, stdin=json.dumps(values or {}))

    yield helm
    for release in releases:
        with suppress(CommandError):  # the test has uninstalled it
            helm("uninstall", release)
