"""The configuration files of what runs on the node. Paths are as the node sees them."""

import string
from pathlib import Path
from typing import Any

from localcluster.network import Network

CONTAINERD_SOCKET = "/run/containerd/containerd.sock"
VOLUMES = "/var/lib/volumes"
PAUSE_IMAGE = "localhost/pause:1"
KUBELET_HEALTH_PORT = 10248
PROXY_HEALTH_PORT = 10256
DNS_READY_PORT = 8181

# Understood by containerd 1.6, 1.7 and 2.x.
# restrict_oom_score_adj: a machine without CAP_SYS_RESOURCE cannot lower the score, and no pod would start.
# The "opt" plugin would make /opt/containerd on this machine; the snapshotters would complain of missing programs.
_CONTAINERD = string.Template("""\
version = 2
root = "/var/lib/containerd"
state = "/run/containerd"
disabled_plugins = [
  "io.containerd.internal.v1.opt",
  "io.containerd.snapshotter.v1.aufs",
  "io.containerd.snapshotter.v1.btrfs",
  "io.containerd.snapshotter.v1.devmapper",
  "io.containerd.snapshotter.v1.zfs",
]

[grpc]
  address = "$socket"

[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "$pause"
  restrict_oom_score_adj = true
  disable_apparmor = true

[plugins."io.containerd.grpc.v1.cri".cni]
  bin_dir = "/usr/lib/cni"
  conf_dir = "$cni"

[plugins."io.containerd.grpc.v1.cri".containerd]
  snapshotter = "overlayfs"
  default_runtime_name = "runc"

[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
  runtime_type = "io.containerd.runc.v2"

[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
  SystemdCgroup = false
""")

# Everything outside the cluster's own names does not exist: pods cannot reach anything out there either.
_COREFILE = string.Template("""\
cluster.local in-addr.arpa ip6.arpa {
    bind $address
    errors
    ready $address:$ready_port
    kubernetes cluster.local in-addr.arpa ip6.arpa {
        kubeconfig $kubeconfig
        ttl 5
    }
}
. {
    bind $address
    errors
    template ANY ANY . {
        rcode NXDOMAIN
    }
}
""")


def containerd(cni: Path) -> str:
    """The configuration of containerd; `cni` is the folder of the network's."""
    return _CONTAINERD.substitute(socket=CONTAINERD_SOCKET, pause=PAUSE_IMAGE, cni=cni)


def corefile(network: Network, kubeconfig: Path) -> str:
    """CoreDNS' configuration: it serves the cluster's names on the node's address."""
    return _COREFILE.substitute(address=network.node, ready_port=DNS_READY_PORT, kubeconfig=kubeconfig)


def cni(network: Network) -> dict[str, Any]:
    """Pods are on one bridge of the node. No address translation: this machine has a route to them."""
    bridge = {
        "type": "bridge",
        "bridge": "pods",
        "isGateway": True,
        "hairpinMode": True,
        "ipam": {
            "type": "host-local",
            "ranges": [[{"subnet": network.pods}]],
            "routes": [{"dst": "0.0.0.0/0"}],
        },
    }
    return {"cniVersion": "1.0.0", "name": "pods", "plugins": [bridge]}


def kubelet(
    network: Network, *, cgroup: str, authority: Path, certificate: Path, key: Path, resolv_conf: Path
) -> dict[str, Any]:
    """The kubelet's configuration."""
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "address": network.node,
        "healthzBindAddress": network.node,
        "healthzPort": KUBELET_HEALTH_PORT,
        "tlsCertFile": str(certificate),
        "tlsPrivateKeyFile": str(key),
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
            "x509": {"clientCAFile": str(authority)},
        },
        "authorization": {"mode": "Webhook"},
        "containerRuntimeEndpoint": f"unix://{CONTAINERD_SOCKET}",
        "volumePluginDir": "/var/lib/kubelet/volume-plugins",
        "resolvConf": str(resolv_conf),
        "clusterDNS": [network.dns_service],
        "clusterDomain": "cluster.local",
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": f"/{cgroup}",
        "failCgroupV1": False,
        "failSwapOn": False,
        "makeIPTablesUtilChains": False,  # kube-proxy uses nftables
        # The disk is the machine's own: only when it is all but full is it the cluster's business.
        "evictionHard": {"memory.available": "100Mi", "nodefs.available": "1%", "imagefs.available": "1%"},
        "imageGCHighThresholdPercent": 100,
        "imageGCLowThresholdPercent": 99,
        "serializeImagePulls": False,
    }


def kube_proxy(network: Network, kubeconfig: Path) -> dict[str, Any]:
    """kube-proxy's configuration. Connection tracking's limits belong to the whole machine and are left alone.

    Service traffic is masqueraded: a pod that calls its neighbour on the bridge through a service would otherwise be
    answered directly, from an address it never called.
    """
    return {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "mode": "nftables",
        "clusterCIDR": network.pods,
        "clientConnection": {"kubeconfig": str(kubeconfig)},
        "healthzBindAddress": f"{network.node}:{PROXY_HEALTH_PORT}",
        "metricsBindAddress": "127.0.0.1:10249",
        "nftables": {"masqueradeAll": True},
        "conntrack": {"maxPerCore": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"},
    }
