from pathlib import Path

import pytest

from localcluster import settings
from localcluster.errors import ClusterError
from localcluster.files import remove_tree, rotate, write_file
from localcluster.layout import Layout
from localcluster.network import Network
from localcluster.settings import Ports, Settings, load, provider_of, save, save_kind
from localcluster.status import Line, table


def test_logs_of_three_runs_are_kept(tmp_path: Path) -> None:
    logs = tmp_path / "logs"
    for number in range(5):
        rotate(logs)
        logs.mkdir()
        (logs / "etcd.log").write_text(f"run {number}")
    kept = {folder.name: (folder / "etcd.log").read_text() for folder in tmp_path.iterdir()}
    assert kept == {"logs": "run 4", "logs.1": "run 3", "logs.2": "run 2", "logs.3": "run 1"}


def test_remove_tree_keeps_what_it_is_told_and_never_follows_links(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    folder = tmp_path / "cluster"
    for path in (elsewhere, folder / "logs.1", folder / "node/containerd"):
        path.mkdir(parents=True)
    (elsewhere / "precious").touch()
    (folder / "link").symlink_to(elsewhere)
    remove_tree(folder, keep="logs")
    assert [entry.name for entry in folder.iterdir()] == ["logs.1"]
    remove_tree(folder)
    assert not folder.exists()
    assert (elsewhere / "precious").exists()


def test_file_that_says_the_same_is_not_touched(tmp_path: Path) -> None:
    path = tmp_path / "config/kube-proxy.json"
    write_file(path, "one")
    first = path.stat()
    write_file(path, "one")
    assert path.stat().st_ino == first.st_ino
    assert first.st_mode & 0o077 == 0
    write_file(path, "two")
    assert path.read_text() == "two"


def test_settings_come_back_as_they_were_saved(tmp_path: Path) -> None:
    layout = Layout("one", tmp_path)
    assert (load(layout), provider_of(layout)) == (None, None)
    for network in (None, Network(7)):
        saved = Settings("boot", Ports(1, 2, 3, 4, 5), network, gpus=2)
        save(layout, saved)
        assert (load(layout), provider_of(layout)) == (saved, "local")
    save_kind(layout)
    assert (load(layout), provider_of(layout)) == (None, "kind")


@pytest.mark.parametrize("content", ["", "[]", '{"provider": "local"}', '{"provider": "other"}'])
def test_damaged_settings_are_refused_with_their_path(tmp_path: Path, content: str) -> None:
    layout = Layout("one", tmp_path)
    layout.root.mkdir()
    layout.settings.write_text(content)
    with pytest.raises(ClusterError, match=r"cluster\.json is damaged"):
        assert provider_of(layout) != "local" or load(layout)


def test_lock_is_exclusive_and_may_be_removed_by_its_holder(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    with settings.locked(lock):
        lock.unlink()
        with settings.locked(lock):
            assert lock.exists()


@pytest.mark.parametrize("name", ["", "-a", "a-", "A", "a/b", "..", "a" * 41])
def test_names_that_would_not_do_as_folder_host_or_node(name: str) -> None:
    with pytest.raises(ClusterError, match="cannot name a cluster"):
        Layout(name)


def test_table() -> None:
    lines = [
        Line("etcd", 12, healthy=True, state="running", log=Path("/logs/etcd.log")),
        Line("Node one", None, healthy=False, state="not Ready"),
    ]
    assert table(lines).splitlines() == [
        "COMPONENT  PID  STATE      LOG",
        "etcd       12   running    /logs/etcd.log",
        "Node one   -    not Ready  -",
    ]
