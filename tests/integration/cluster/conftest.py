from collections.abc import Callable, Iterator

import pytest

from support.cluster import cluster_command, own_cluster_name, remove


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    """The name of a cluster that tests may ill-treat. It may be up, down or damaged; `up` brings it back."""
    name = own_cluster_name("a")
    yield name
    remove(name)


@pytest.fixture
def up(cluster: str) -> Callable[[], str]:
    def bring_up() -> str:
        cluster_command(cluster, "up", "--control-plane-only")
        return cluster

    return bring_up
