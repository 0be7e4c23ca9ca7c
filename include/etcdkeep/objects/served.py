"""
What the API server adds between its storage and its answer: defaults that are younger than the stored bytes.

An object is stored with the defaults of its time, and read with those of today. Here are the ones that objects can
lack which nobody writes again for years; workloads are rewritten with every change of their status.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from etcdkeep.objects.crd import CRD_V1BETA1, crd_v1

if TYPE_CHECKING:
    from collections.abc import Callable

    Rule = Callable[[dict[str, Any], int], None]

_SELINUX_MOUNT_SINCE_MINOR = 27


def as_served(stored: dict[str, Any], kubernetes_minor: int) -> dict[str, Any]:
    """
    Return a stored object as the API server of Kubernetes 1.`kubernetes_minor` gives it.

    :param stored: May be changed.
    """
    if (stored["apiVersion"], stored["kind"]) == CRD_V1BETA1:
        return crd_v1(stored)
    rule = _RULES.get((stored["apiVersion"], stored["kind"]))
    if rule is not None:
        rule(stored, kubernetes_minor)
    return stored


def _stateful_set(stored: dict[str, Any], _: int) -> None:
    # Its inner claims name their kind in JSON, and the protobuf form has no place for that.
    for claim in stored["spec"].get("volumeClaimTemplates", ()):
        claim.update(apiVersion="v1", kind="PersistentVolumeClaim")


def _namespace(stored: dict[str, Any], _: int) -> None:
    metadata = stored["metadata"]
    if metadata.get("name"):
        metadata.setdefault("labels", {}).setdefault("kubernetes.io/metadata.name", metadata["name"])


def _service(stored: dict[str, Any], _: int) -> None:
    if stored["spec"].get("type") in ("ClusterIP", "NodePort", "LoadBalancer"):
        stored["spec"].setdefault("internalTrafficPolicy", "Cluster")


def _ingress_class(stored: dict[str, Any], _: int) -> None:
    parameters = stored["spec"].get("parameters")
    if parameters and parameters.get("scope") is None:
        parameters["scope"] = "Cluster"


def _csi_driver(stored: dict[str, Any], kubernetes_minor: int) -> None:
    if kubernetes_minor >= _SELINUX_MOUNT_SINCE_MINOR:
        stored["spec"].setdefault("seLinuxMount", False)


_RULES: dict[tuple[str, str], Rule] = {
    ("v1", "Namespace"): _namespace,
    ("v1", "Service"): _service,
    ("apps/v1", "StatefulSet"): _stateful_set,
    ("apps/v1beta1", "StatefulSet"): _stateful_set,
    ("apps/v1beta2", "StatefulSet"): _stateful_set,
    ("networking.k8s.io/v1", "IngressClass"): _ingress_class,
    ("storage.k8s.io/v1", "CSIDriver"): _csi_driver,
}
