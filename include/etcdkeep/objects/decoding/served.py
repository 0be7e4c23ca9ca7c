"""
What the API server adds between its storage and its answer: defaults that are younger than the stored bytes.

An object is stored with the defaults of its time, and read with those of today. Here are the ones that objects can
lack which nobody writes again for years; workloads are rewritten with every change of their status.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from etcdkeep.objects.decoding.crd import CRD_V1BETA1, crd_v1

if TYPE_CHECKING:
    from collections.abc import Callable

    Rule = Callable[[dict[str, Any], int], None]

NAME_LABEL = "kubernetes.io/metadata.name"
_LENDABLE_SINCE_MINOR = 26
_SELINUX_MOUNT_SINCE_MINOR = 27
_POD_REPLACEMENT_SINCE_MINOR = 29
_TAINT_STATUS_SINCE_MINOR = 35


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


def _stateful_set(stored: dict[str, Any], kubernetes_minor: int) -> None:
    # Its inner claims name their kind in JSON, and the protobuf form has no place for that.
    for claim in stored["spec"].get("volumeClaimTemplates") or ():
        claim.update(apiVersion="v1", kind="PersistentVolumeClaim")
        _claim(claim, kubernetes_minor)


def _claim(stored: dict[str, Any], _: int) -> None:
    _set(stored, "status", phase="Pending")
    _set(stored, "spec", volumeMode="Filesystem")


def _volume(stored: dict[str, Any], _: int) -> None:
    _set(stored, "status", phase="Pending")
    _set(stored, "spec", persistentVolumeReclaimPolicy="Retain", volumeMode="Filesystem")


def _namespace(stored: dict[str, Any], _: int) -> None:
    metadata = stored["metadata"]
    if metadata.get("name"):  # whatever was stored: it cannot be changed
        metadata["labels"] = {**(metadata.get("labels") or {}), NAME_LABEL: metadata["name"]}


def _service(stored: dict[str, Any], _: int) -> None:
    spec = stored["spec"]
    if spec.get("type") not in ("ClusterIP", "NodePort", "LoadBalancer"):
        return
    _set(stored, "spec", internalTrafficPolicy="Cluster")
    if spec["type"] == "LoadBalancer":
        _set(stored, "spec", allocateLoadBalancerNodePorts=True)
    address = spec.get("clusterIP")
    if address and not spec.get("clusterIPs"):
        spec["clusterIPs"] = [address]
    if address and address != "None" and not spec.get("ipFamilies"):
        families = ["IPv6" if ":" in each else "IPv4" for each in spec["clusterIPs"]]
        spec["ipFamilies"] = families
        _set(stored, "spec", ipFamilyPolicy="SingleStack" if len(families) == 1 else "RequireDualStack")


def _ingress_class(stored: dict[str, Any], _: int) -> None:
    parameters = stored["spec"].get("parameters")
    if parameters and parameters.get("scope") is None:
        parameters["scope"] = "Cluster"


def _csi_driver(stored: dict[str, Any], kubernetes_minor: int) -> None:
    _set(
        stored,
        "spec",
        attachRequired=True,
        podInfoOnMount=False,
        storageCapacity=False,
        fsGroupPolicy="ReadWriteOnceWithFSType",
        requiresRepublish=False,
    )
    if not stored["spec"].get("volumeLifecycleModes"):
        stored["spec"]["volumeLifecycleModes"] = ["Persistent"]
    if kubernetes_minor >= _SELINUX_MOUNT_SINCE_MINOR:
        _set(stored, "spec", seLinuxMount=False)


def _autoscaler(stored: dict[str, Any], _: int) -> None:
    spec = stored["spec"]
    _set(stored, "spec", minReplicas=1)
    if not spec.get("metrics"):
        target = {"type": "Utilization", "averageUtilization": 80}
        spec["metrics"] = [{"type": "Resource", "resource": {"name": "cpu", "target": target}}]
    behavior = spec.get("behavior")
    if behavior is None:
        return
    percent = {"type": "Percent", "value": 100, "periodSeconds": 15}
    pods = {"type": "Pods", "value": 4, "periodSeconds": 15}
    up = {"stabilizationWindowSeconds": 0, "selectPolicy": "Max", "policies": [pods, percent]}
    down = {"selectPolicy": "Max", "policies": [percent]}
    for name, defaults in (("scaleUp", up), ("scaleDown", down)):
        own = {field: value for field, value in (behavior.get(name) or {}).items() if value is not None}
        behavior[name] = {**defaults, **own}


def _network_policy(stored: dict[str, Any], _: int) -> None:
    spec = stored["spec"]
    if not spec.get("policyTypes"):
        spec["policyTypes"] = ["Ingress", "Egress"] if spec.get("egress") else ["Ingress"]
    for rule in (*(spec.get("ingress") or ()), *(spec.get("egress") or ())):
        for port in rule.get("ports") or ():
            port.setdefault("protocol", "TCP")


def _job(stored: dict[str, Any], kubernetes_minor: int) -> None:
    _set(stored, "spec", completionMode="NonIndexed", suspend=False)
    if kubernetes_minor >= _POD_REPLACEMENT_SINCE_MINOR:
        policy = "Failed" if stored["spec"].get("podFailurePolicy") is not None else "TerminatingOrFailed"
        _set(stored, "spec", podReplacementPolicy=policy)


def _priority_class(stored: dict[str, Any], _: int) -> None:
    stored.setdefault("preemptionPolicy", "PreemptLowerPriority")


def _priority_level(stored: dict[str, Any], kubernetes_minor: int) -> None:
    limited = stored["spec"].get("limited")
    if limited is not None and kubernetes_minor >= _LENDABLE_SINCE_MINOR:
        limited.setdefault("lendablePercent", 0)


def _taint_rule(stored: dict[str, Any], kubernetes_minor: int) -> None:
    if kubernetes_minor < _TAINT_STATUS_SINCE_MINOR:
        stored.pop("status", None)


def _set(stored: dict[str, Any], part: str, **defaults: Any) -> None:
    """Fill in what is not there, and the part itself where it is missing."""
    holder = stored.get(part)
    if holder is None:
        holder = stored[part] = {}
    for name, value in defaults.items():
        if holder.get(name) in (None, ""):
            holder[name] = value


_RULES: dict[tuple[str, str], Rule] = {
    ("v1", "Namespace"): _namespace,
    ("v1", "PersistentVolume"): _volume,
    ("v1", "PersistentVolumeClaim"): _claim,
    ("v1", "Service"): _service,
    ("apps/v1", "StatefulSet"): _stateful_set,
    ("apps/v1beta1", "StatefulSet"): _stateful_set,
    ("apps/v1beta2", "StatefulSet"): _stateful_set,
    ("autoscaling/v2", "HorizontalPodAutoscaler"): _autoscaler,
    ("autoscaling/v2beta2", "HorizontalPodAutoscaler"): _autoscaler,
    ("batch/v1", "Job"): _job,
    ("extensions/v1beta1", "NetworkPolicy"): _network_policy,
    ("flowcontrol.apiserver.k8s.io/v1", "PriorityLevelConfiguration"): _priority_level,
    ("flowcontrol.apiserver.k8s.io/v1beta3", "PriorityLevelConfiguration"): _priority_level,
    ("networking.k8s.io/v1", "IngressClass"): _ingress_class,
    ("networking.k8s.io/v1", "NetworkPolicy"): _network_policy,
    ("resource.k8s.io/v1alpha3", "DeviceTaintRule"): _taint_rule,
    ("resource.k8s.io/v1beta2", "DeviceTaintRule"): _taint_rule,
    ("scheduling.k8s.io/v1", "PriorityClass"): _priority_class,
    ("storage.k8s.io/v1", "CSIDriver"): _csi_driver,
    ("storage.k8s.io/v1beta1", "CSIDriver"): _csi_driver,
}
