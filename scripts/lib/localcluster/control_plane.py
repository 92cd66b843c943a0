"""The control plane: etcd, API server, controller manager, scheduler, as processes of this machine."""

import http.client
import json
import ssl
from pathlib import Path

from localcluster.files import write_file
from localcluster.layout import Layout
from localcluster.network import CONTROL_PLANE_SERVICES
from localcluster.pki import Certificate, Pki
from localcluster.processes import Component
from localcluster.settings import Settings

NAMES = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler")
PACKAGES = ("etcd-server", "openssl")
LOOPBACK = "127.0.0.1"


class ControlPlane:
    """Command lines and checks of the components of one cluster."""

    def __init__(self, layout: Layout, settings: Settings, programs: Path) -> None:
        """`programs` is the folder that has hyperkube under the name of each component."""
        self._layout = layout
        self._ports = settings.ports
        self._network = settings.network
        self._controller_qps = settings.controller_qps
        self._programs = programs
        self._pki = Pki(layout.pki)

    @property
    def server(self) -> str:
        """The API server as this machine reaches it."""
        return f"https://{LOOPBACK}:{self._ports.apiserver}"

    def certificates(self) -> list[Certificate]:
        """Every certificate that the control plane and its clients on this machine need."""
        service = self._network.kubernetes_service if self._network else "10.96.0.1"
        names = ("kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local")
        own = (self._network.host,) if self._network else ()
        return [
            Certificate("etcd", "etcd", hosts=(LOOPBACK, "localhost")),
            Certificate("kube-apiserver", "kube-apiserver", hosts=(LOOPBACK, "localhost", service, *own, *names)),
            Certificate("apiserver-to-kubelet", "kube-apiserver-kubelet-client", groups=("system:masters",)),
            Certificate("front-proxy", "front-proxy-client", authority="front-proxy-ca"),
            Certificate("kube-controller-manager", "system:kube-controller-manager"),
            Certificate("kube-scheduler", "system:kube-scheduler"),
            Certificate("admin", "cluster-admin", groups=("system:masters",)),
        ]

    def write_files(self) -> None:
        """Write the kubeconfigs and configuration files that the components read."""
        for name in ("kube-controller-manager", "kube-scheduler"):
            self._pki.write_kubeconfig(self._kubeconfig(name), name, self.server)
        self._pki.write_kubeconfig(self._layout.kubeconfig, "admin", self.server)
        client = {"kubeconfig": str(self._kubeconfig("kube-scheduler")), "qps": 500, "burst": 1000}
        scheduler = {
            "apiVersion": "kubescheduler.config.k8s.io/v1",
            "kind": "KubeSchedulerConfiguration",
            "leaderElection": {"leaderElect": False},
            "clientConnection": client,
        }
        write_file(self._scheduler_configuration, json.dumps(scheduler, indent=2))

    def components(self) -> list[list[Component]]:
        """Groups that start together, each when the one before is ready. The API server itself waits for etcd."""
        return [[self._etcd(), self._apiserver()], [self._controller_manager(), self._scheduler()]]

    def _etcd(self) -> Component:
        client, peer = (f"https://{LOOPBACK}:{port}" for port in (self._ports.etcd, self._ports.etcd_peer))
        tls = {
            "cert-file": self._pki.certificate("etcd"),
            "key-file": self._pki.key("etcd"),
            "trusted-ca-file": self._pki.certificate("ca"),
        }
        flags: dict[str, object] = {
            "data-dir": self._layout.etcd,
            "listen-client-urls": client,
            "advertise-client-urls": client,
            "listen-peer-urls": peer,
            "initial-advertise-peer-urls": peer,
            "initial-cluster": f"default={peer}",
            "client-cert-auth": "true",
            "peer-client-cert-auth": "true",
            **tls,
            **{f"peer-{name}": value for name, value in tls.items()},
            # The cluster is thrown away with the machine's memory, so nothing has to survive a power cut.
            "unsafe-no-fsync": "true",
            "quota-backend-bytes": 4 << 30,
            "logger": "zap",
            "log-level": "warn",
        }
        program = "/usr/bin/etcd"
        return self._component("etcd", _command(program, flags), self._ports.etcd, "/health")

    def _apiserver(self) -> Component:
        ca = self._pki.certificate("ca")
        flags: dict[str, object] = {
            "secure-port": self._ports.apiserver,
            # Pods reach the API server through the link, which is not there yet when it starts; clients without a
            # certificate or token are refused whichever way they come.
            "bind-address": "0.0.0.0" if self._network else LOOPBACK,  # noqa: S104 - as said above
            "advertise-address": self._network.host if self._network else LOOPBACK,
            "etcd-servers": f"https://{LOOPBACK}:{self._ports.etcd}",
            "etcd-cafile": ca,
            "etcd-certfile": self._pki.certificate("etcd"),
            "etcd-keyfile": self._pki.key("etcd"),
            "tls-cert-file": self._pki.certificate("kube-apiserver"),
            "tls-private-key-file": self._pki.key("kube-apiserver"),
            "client-ca-file": ca,
            "authorization-mode": "Node,RBAC",
            "enable-admission-plugins": "NodeRestriction",
            "allow-privileged": "true",
            "service-cluster-ip-range": self._network.services if self._network else CONTROL_PLANE_SERVICES,
            "service-account-issuer": "https://kubernetes.default.svc.cluster.local",
            "service-account-key-file": self._pki.folder / "service-accounts.pub",
            "service-account-signing-key-file": self._pki.key("service-accounts"),
            "kubelet-certificate-authority": ca,
            "kubelet-client-certificate": self._pki.certificate("apiserver-to-kubelet"),
            "kubelet-client-key": self._pki.key("apiserver-to-kubelet"),
            "kubelet-preferred-address-types": "InternalIP",
            "requestheader-client-ca-file": self._pki.certificate("front-proxy-ca"),
            "requestheader-allowed-names": "front-proxy-client",
            "requestheader-username-headers": "X-Remote-User",
            "requestheader-group-headers": "X-Remote-Group",
            "requestheader-extra-headers-prefix": "X-Remote-Extra-",
            "proxy-client-cert-file": self._pki.certificate("front-proxy"),
            "proxy-client-key-file": self._pki.key("front-proxy"),
            "profiling": "false",
        }
        if not self._network:
            flags["endpoint-reconciler-type"] = "none"  # a loopback address may not be an endpoint
        return self._kubernetes("kube-apiserver", flags, self._ports.apiserver, "/readyz")

    def _controller_manager(self) -> Component:
        kubeconfig = self._kubeconfig("kube-controller-manager")
        flags: dict[str, object] = {
            "kubeconfig": kubeconfig,
            "authentication-kubeconfig": kubeconfig,
            "authorization-kubeconfig": kubeconfig,
            "bind-address": LOOPBACK,
            "secure-port": self._ports.controller_manager,
            "tls-cert-file": self._pki.certificate("kube-apiserver"),
            "tls-private-key-file": self._pki.key("kube-apiserver"),
            "leader-elect": "false",
            "use-service-account-credentials": "true",
            "service-account-private-key-file": self._pki.key("service-accounts"),
            "root-ca-file": self._pki.certificate("ca"),
            "cluster-signing-cert-file": self._pki.certificate("ca"),
            "cluster-signing-key-file": self._pki.key("ca"),
            # Kubernetes' default, 20 requests a second, would be what tests with hundreds of objects measure.
            "kube-api-qps": self._controller_qps,
            "kube-api-burst": self._controller_qps * 3 // 2,
            "flex-volume-plugin-dir": self._layout.config / "volume-plugins",  # else it makes one under /usr
            "profiling": "false",
        }
        if not self._network:
            flags["node-monitor-grace-period"] = "1h"  # nodes are plain objects here; no kubelet renews their leases
        return self._kubernetes("kube-controller-manager", flags, self._ports.controller_manager, "/healthz")

    def _scheduler(self) -> Component:
        kubeconfig = self._kubeconfig("kube-scheduler")
        flags: dict[str, object] = {
            "config": self._scheduler_configuration,
            "authentication-kubeconfig": kubeconfig,
            "authorization-kubeconfig": kubeconfig,
            "bind-address": LOOPBACK,
            "secure-port": self._ports.scheduler,
            "tls-cert-file": self._pki.certificate("kube-apiserver"),
            "tls-private-key-file": self._pki.key("kube-apiserver"),
        }
        return self._kubernetes("kube-scheduler", flags, self._ports.scheduler, "/readyz")

    def _kubernetes(self, name: str, flags: dict[str, object], port: int, health: str) -> Component:
        return self._component(name, _command(str(self._programs / name), flags), port, health)

    def _component(self, name: str, argv: tuple[str, ...], port: int, health: str) -> Component:
        return Component(name, argv, ready=lambda: self._answers(port, health), port=port, timeout=90)

    def _answers(self, port: int, path: str) -> bool:
        context = ssl.create_default_context(cafile=str(self._pki.certificate("ca")))
        context.load_cert_chain(self._pki.certificate("etcd"), self._pki.key("etcd"))
        connection = http.client.HTTPSConnection(LOOPBACK, port, timeout=5, context=context)
        try:
            connection.request("GET", path)
            return connection.getresponse().status == http.HTTPStatus.OK
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    @property
    def _scheduler_configuration(self) -> Path:
        return self._layout.config / "kube-scheduler.json"

    def _kubeconfig(self, name: str) -> Path:
        return self._layout.config / f"{name}.kubeconfig"


def _command(program: str, flags: dict[str, object]) -> tuple[str, ...]:
    return (program, *(f"--{name}={value}" for name, value in flags.items()))
