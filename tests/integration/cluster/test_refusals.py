import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.cluster import REPOSITORY, CommandError, cluster_command, own_cluster_name, run

NOBODY = 65534


@pytest.fixture
def unprivileged() -> Iterator[list[str]]:
    """The start of a command that runs as a user without rights and with an empty cache of its own."""
    with tempfile.TemporaryDirectory(prefix="aiservice-test-", dir="/tmp") as folder:
        Path(folder).chmod(0o777)
        environment = ["env", f"HOME={folder}", f"AISERVICE_CACHE={folder}/cache", "PATH=/usr/bin:/bin:/usr/sbin:/sbin"]
        drop = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"] if os.geteuid() == 0 else []
        yield [*drop, *environment]


def test_missing_packages_are_named_with_the_command_to_run(unprivileged: list[str]) -> None:
    script = f". {REPOSITORY}/scripts/lib/debian.sh; need_packages bash aiservice-no-such-package"
    with pytest.raises(CommandError) as failure:
        run(*unprivileged, "bash", "-c", script)
    assert failure.value.returncode == 1
    assert "apt-get install --no-install-recommends aiservice-no-such-package\n" in failure.value.stderr


def test_node_without_root_is_refused(unprivileged: list[str]) -> None:
    with pytest.raises(CommandError) as failure:
        run(*unprivileged, REPOSITORY / "scripts/cluster", "up", "--provider=local")
    assert failure.value.returncode == 1
    assert failure.value.stderr.startswith("error: a cluster with a node needs root")
    assert "--control-plane-only" in failure.value.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["kubeconfig"], "is not up: run `scripts/cluster --name"),
        (["address"], "is not up"),
        (["load", "/nonexistent.tar"], "is not up"),
        (["up", "--gpus", "two"], "'two' is no whole number"),
        (["up", "--provider", "kind", "--control-plane-only"], "use --provider local"),
    ],
)
def test_refusal_says_what_to_do(arguments: list[str], message: str) -> None:
    with pytest.raises(CommandError) as failure:
        cluster_command(own_cluster_name("c"), *arguments)
    assert failure.value.returncode in (1, 2)
    assert message in failure.value.stderr


def test_name_that_cannot_be_one() -> None:
    with pytest.raises(CommandError, match="'Not/A/Name' cannot name a cluster"):
        cluster_command("Not/A/Name", "up")


def test_status_of_nothing_fails() -> None:
    with pytest.raises(CommandError, match="is not up"):
        cluster_command(own_cluster_name("c"), "status")


def test_down_of_nothing_succeeds() -> None:
    cluster_command(own_cluster_name("c"), "down", "--purge")


def test_tool_that_does_not_exist() -> None:
    with pytest.raises(CommandError, match="no such tool: kubctl; known are: hyperkube kubectl"):
        run(REPOSITORY / "scripts/tool", "kubctl")
