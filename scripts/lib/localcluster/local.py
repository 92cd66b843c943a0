"""The local provider: every component a process of this machine."""

import dataclasses
import os
import time
from collections.abc import Callable
from pathlib import Path

from localcluster import addons, control_plane, node
from localcluster.commands import need_packages, tool
from localcluster.control_plane import ControlPlane
from localcluster.errors import ClusterError
from localcluster.files import check_filesystem, remove_tree, rotate
from localcluster.gpus import offer_gpus
from localcluster.kubectl import Kubectl
from localcluster.layout import Layout, cache_root, existing
from localcluster.machine import claim_network, claimed_network, release_machine, save_sysctls
from localcluster.network import Network, free_ports
from localcluster.node import Node, answers_dns, remove_from_machine
from localcluster.pki import Pki
from localcluster.processes import kill, log_end, start
from localcluster.progress import say
from localcluster.settings import Ports, Settings, boot_id, load, locked, save
from localcluster.status import Line, component_line

_KNOWN_NAME = "kubernetes.default.svc.cluster.local"


class LocalCluster:
    """One cluster of local processes, up or not."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout

    def up(self, *, with_node: bool, gpus: int | None, controller_qps: int | None) -> None:
        """Bring the cluster up, or whatever of it is missing.

        None leaves the number of GPUs, and of requests a second that the controller manager may send, as it is.
        """
        settings = load(self._layout)
        if settings and settings.boot != boot_id():
            say("this machine was restarted since the cluster was made: making it anew")
            self.down()
            settings = None
        if settings and (settings.network is not None) != with_node:
            kind = "with a node" if settings.network else "as a control plane only"
            raise ClusterError(
                f"cluster {self._layout.name} is up {kind}: run `scripts/cluster down` first to change that"
            )
        self._check_requirements(with_node)
        programs = tool("hyperkube").parent
        settings = settings or self._settle(with_node)
        if gpus is not None:
            settings = dataclasses.replace(settings, gpus=gpus)
            save(self._layout, settings)
        if controller_qps is not None and controller_qps != settings.controller_qps:
            settings = dataclasses.replace(settings, controller_qps=controller_qps)
            save(self._layout, settings)
            kill(self._layout, "kube-controller-manager")  # started again below
        started = self._start(settings, programs)
        say(f"cluster {self._layout.name} is {'up' if started else 'already up'}")

    def _check_requirements(self, with_node: bool) -> None:
        if with_node and os.geteuid() != 0:
            raise ClusterError(
                "a cluster with a node needs root: it makes namespaces and control groups. "
                "Without root, `scripts/cluster up --control-plane-only` works"
            )
        need_packages(*control_plane.PACKAGES, *(node.PACKAGES if with_node else ()))
        if with_node:
            check_filesystem(cache_root())

    def _settle(self, with_node: bool) -> Settings:
        """Decide and remember what a new cluster needs, while no other cluster does the same."""
        self.down()  # something may be left of one whose settings are gone
        rotate(self._layout.logs)
        with locked(cache_root() / "clusters" / ".ports.lock"):
            others = [settings for other in existing() if (settings := load(other))]
            taken = {port for other in others for port in other.ports.all()}
            network = claim_network(self._layout) if with_node else None
            settings = Settings(boot_id(), Ports(*free_ports(5, taken)), network)
            save(self._layout, settings)
        return settings

    def _start(self, settings: Settings, programs: Path) -> list[str]:
        plane = ControlPlane(self._layout, settings, programs)
        machine = Node(self._layout, settings.network, programs) if settings.network else None
        Pki(self._layout.pki).make([*plane.certificates(), *(machine.certificates() if machine else ())])
        plane.write_files()
        started = []
        for group in plane.components():
            say("control plane: " + " and ".join(component.name for component in group))
            started += start(self._layout, group)
        if machine and settings.network:
            kubectl = Kubectl(programs / "kubectl", self._layout.kubeconfig)
            started += self._start_node(
                machine, settings.network, f"https://{settings.network.host}:{settings.ports.apiserver}", kubectl
            )
            if settings.gpus:
                say(f"node: {settings.gpus} GPUs that exist on paper only")
                offer_gpus(kubectl, machine.name, settings.gpus)
        return started

    def _start_node(self, machine: Node, network: Network, server: str, kubectl: Kubectl) -> list[str]:
        pause, coredns = tool("pause"), tool("coredns")
        say("node: namespaces, network and control groups")
        machine.write_files(server)
        started = machine.start_machine(pause)
        say("node: containerd")
        started += machine.start_runtime(pause)
        kubectl.apply(addons.objects(network))
        save_sysctls()
        components = machine.components(coredns)
        say("node: " + ", ".join(component.name for component in components))
        started += start(self._layout, components)
        self._wait("the node is not Ready", "kubelet", lambda: kubectl.node_is_ready(machine.name))
        self._wait("cluster DNS does not answer", "coredns", lambda: answers_dns(network, _KNOWN_NAME))
        return started

    def _wait(self, problem: str, component: str, happened: Callable[[], bool], timeout: float = 60) -> None:
        deadline = time.monotonic() + timeout
        while not happened():
            if time.monotonic() > deadline:
                raise ClusterError(f"{problem} after {timeout:.0f} s\n{log_end(self._layout, component)}")
            time.sleep(0.1)

    def load(self, archive: Path) -> list[str]:
        """Load images into the node and return their names."""
        return Node(self._layout, self._network("to load images into"), tool("hyperkube").parent).load(archive)

    def address(self) -> str:
        """The node's end of its link to this machine."""
        return self._network("that had an address").node

    def _network(self, purpose: str) -> Network:
        settings = load(self._layout)
        if settings is None or settings.network is None:
            raise ClusterError(f"cluster {self._layout.name} has no node {purpose}: run `scripts/cluster up`")
        return settings.network

    def status(self) -> list[Line]:
        """The state of every part; empty where there is no cluster."""
        settings = load(self._layout)
        if settings is None:
            return []
        programs = tool("hyperkube").parent
        plane = ControlPlane(self._layout, settings, programs)
        lines = [component_line(self._layout, component) for group in plane.components() for component in group]
        if settings.network:
            machine = Node(self._layout, settings.network, programs)
            lines += self._node_status(
                machine, settings.network, Kubectl(programs / "kubectl", self._layout.kubeconfig)
            )
        return lines

    def _node_status(self, machine: Node, network: Network, kubectl: Kubectl) -> list[Line]:
        components = machine.all_components(tool("pause"), tool("coredns"))
        lines = [component_line(self._layout, component) for component in components]
        ready = kubectl.node_is_ready(machine.name)
        lines.append(Line(f"Node {machine.name}", None, healthy=ready, state="Ready" if ready else "not Ready"))
        answers = answers_dns(network, _KNOWN_NAME)
        return [*lines, Line("cluster DNS", None, healthy=answers, state="answers" if answers else "does not answer")]

    def down(self) -> None:
        """End every process, remove every file but the logs, and put the machine back as it was."""
        network = claimed_network(self._layout)
        kill(self._layout)
        if network:
            remove_from_machine(network)
        remove_tree(self._layout.root, keep="logs")
        release_machine(self._layout)
