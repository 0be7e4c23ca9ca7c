"""What is not made anew unless somebody asks for it: the cluster makes it by itself, or it has had its time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

_MADE_ANEW = {
    ("", "Event"): "describes a past event",
    ("events.k8s.io", "Event"): "describes a past event",
    ("", "Node"): "the kubelet registers its node itself",
    ("storage.k8s.io", "CSINode"): "the kubelet makes it",
    ("storage.k8s.io", "VolumeAttachment"): "the attach controller makes it",
    ("storage.k8s.io", "CSIStorageCapacity"): "the storage driver makes it",
    ("coordination.k8s.io", "Lease"): "the leader takes a new one",
    ("coordination.k8s.io", "LeaseCandidate"): "the leader takes a new one",
    ("certificates.k8s.io", "CertificateSigningRequest"): "its client makes a new request",
    ("certificates.k8s.io", "PodCertificateRequest"): "the kubelet makes it",
    ("networking.k8s.io", "IPAddress"): "the API server makes it with its Service",
    ("resource.k8s.io", "ResourceSlice"): "the device's driver makes it",
    ("internal.apiserver.k8s.io", "StorageVersion"): "the API server makes it",
}
_CONTROLLERS = {
    *(("apps", kind) for kind in ("Deployment", "ReplicaSet", "StatefulSet", "DaemonSet")),
    *(("batch", kind) for kind in ("Job", "CronJob")),
    *(("", kind) for kind in ("ReplicationController", "Service", "Pod", "Node")),
}
"""Kinds of Kubernetes' own that make what they own anew, from their spec alone."""
_ROOT_CERTIFICATES = ("kube-root-ca.crt", "openshift-service-ca.crt")
_SLICE_CONTROLLER = "endpointslice.kubernetes.io/managed-by"


def controller_of(manifest: dict[str, Any]) -> dict[str, Any] | None:
    """Return the reference to the owner that makes an object anew by itself, or None."""
    for reference in manifest["metadata"].get("ownerReferences") or ():
        group = str(reference.get("apiVersion")).rpartition("/")[0]
        if reference.get("controller") and (group, reference.get("kind")) in _CONTROLLERS:
            return dict(reference)
    return None


def why_left_out(manifest: dict[str, Any]) -> str:
    """Say why an object is not made anew unless somebody wants it all the same; nothing when it is."""
    group, kind, metadata = str(manifest["apiVersion"]).rpartition("/")[0], manifest["kind"], manifest["metadata"]
    if (group, kind) in _MADE_ANEW:
        return _MADE_ANEW[group, kind]
    if metadata.get("deletionTimestamp"):
        return "it was being deleted when the backup was taken"
    rule = _LEFT_OUT.get((group, kind))
    return rule(manifest, metadata.get("labels") or {}, metadata.get("annotations") or {}) if rule else ""


def _why_pod(manifest: dict[str, Any], _: dict[str, str], annotations: dict[str, str]) -> str:
    if "kubernetes.io/config.mirror" in annotations:
        return "the kubelet makes it from a file on its node"
    phase = (manifest.get("status") or {}).get("phase")
    return f"it had ended ({phase})" if phase in ("Succeeded", "Failed") else ""


def _why_job(manifest: dict[str, Any], _: dict[str, str], __: dict[str, str]) -> str:
    conditions = (manifest.get("status") or {}).get("conditions") or ()
    ended = [
        each["type"]
        for each in conditions
        if each.get("type") in ("Complete", "Failed") and each.get("status") == "True"
    ]
    return f"it had ended ({ended[0]}), and would run again" if ended else ""


def _why_config_map(manifest: dict[str, Any], _: dict[str, str], __: dict[str, str]) -> str:
    return "the cluster puts it into every namespace" if manifest["metadata"]["name"] in _ROOT_CERTIFICATES else ""


def _why_endpoints(_: dict[str, Any], labels: dict[str, str], annotations: dict[str, str]) -> str:
    marks = {"endpoints.kubernetes.io/last-change-trigger-time", "endpoints.kubernetes.io/managed-by"}
    made = marks & (labels.keys() | annotations.keys()) or "service.kubernetes.io/headless" in labels
    return "the cluster makes it with its Service" if made else ""


def _why_slice(_: dict[str, Any], labels: dict[str, str], __: dict[str, str]) -> str:
    return "the cluster makes it with its Service" if labels.get(_SLICE_CONTROLLER, "").endswith(".k8s.io") else ""


def _why_api_service(_: dict[str, Any], labels: dict[str, str], __: dict[str, str]) -> str:
    return "the API server makes it" if "kube-aggregator.kubernetes.io/automanaged" in labels else ""


_LEFT_OUT: dict[tuple[str, str], Callable[[dict[str, Any], dict[str, str], dict[str, str]], str]] = {
    ("", "ConfigMap"): _why_config_map,
    ("", "Endpoints"): _why_endpoints,
    ("", "Pod"): _why_pod,
    ("apiregistration.k8s.io", "APIService"): _why_api_service,
    ("batch", "Job"): _why_job,
    ("discovery.k8s.io", "EndpointSlice"): _why_slice,
}
