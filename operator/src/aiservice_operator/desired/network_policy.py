"""The NetworkPolicy of an AIService: who may connect to its pods."""

from __future__ import annotations

from kubernetes.aio import client

from aiservice_api.tasks import PORTS
from aiservice_api.v1alpha1 import AIServiceSpec
from aiservice_api.v1alpha1 import Peer as StatedPeer
from aiservice_operator import names
from aiservice_operator.desired.common import as_in_a_pod, controlled_by, metadata
from aiservice_operator.kinds import Kind
from aiservice_operator.observed import Meta
from aiservice_operator.settings import Peer, Settings


def network_policy(owner: Meta, spec: AIServiceSpec, settings: Settings) -> client.V1NetworkPolicy | None:
    """Builds the policy that lets the configured and the stated peers reach every port of the pods, and nobody else.

    None where the operator makes none, or the spec asks for none. The kubelet's probes pass in any case.
    """
    if not settings.network.enabled or not spec.network.restrict:
        return None
    peers = [_configured(peer) for peer in settings.network.allow_from]
    peers += [_stated(peer) for peer in spec.network.allow_from]
    return client.V1NetworkPolicy(
        metadata=metadata(
            owner.name, owner.namespace, names.service_labels(owner.name), [controlled_by(Kind.AISERVICE, owner)]
        ),
        spec=client.V1NetworkPolicySpec(
            pod_selector=client.V1LabelSelector(match_labels=names.workload_selector(owner.name)),
            policy_types=["Ingress"],
            # A rule without peers would let everybody in; no rule lets nobody in.
            ingress=[_rule(peers, spec)] if peers else [],
        ),
    )


def _rule(peers: list[client.V1NetworkPolicyPeer], spec: AIServiceSpec) -> client.V1NetworkPolicyIngressRule:
    # By its name on the wire: the client drops the argument that it declares for it, var_from, without a word.
    return client.V1NetworkPolicyIngressRule.model_validate({"from": peers, "ports": _ports(spec)})


def _configured(peer: Peer) -> client.V1NetworkPolicyPeer:
    return client.V1NetworkPolicyPeer(
        namespace_selector=client.V1LabelSelector(match_labels=peer.namespace_labels or None),
        pod_selector=client.V1LabelSelector(match_labels=peer.pod_labels),
    )


def _stated(peer: StatedPeer) -> client.V1NetworkPolicyPeer:
    return as_in_a_pod(client.V1NetworkPolicyPeer, peer)


def _ports(spec: AIServiceSpec) -> list[client.V1NetworkPolicyPort]:
    """The tasks' ports, and those of sidecars: who states one wants it to be reached, by Prometheus for example."""
    numbers = [PORTS[task] for task in spec.tasks]
    numbers += [port.container_port for sidecar in (spec.pod.sidecars if spec.pod else []) for port in sidecar.ports]
    return [client.V1NetworkPolicyPort(port=number, protocol="TCP") for number in numbers]
