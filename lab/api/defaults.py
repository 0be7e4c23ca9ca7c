"""What the API server itself fills into an object that is created or updated."""

from __future__ import annotations

import base64
import random
import re
import string
import uuid
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from lab.api.status import bad_request, invalid

if TYPE_CHECKING:
    from lab.api.resources import Resource

NAME = re.compile(r"[a-z0-9]([-a-z0-9.:]*[a-z0-9])?")
OWNED = ("uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds", "generation")
NO_STATUS_SUBRESOURCE = {"ConfigMap", "Secret", "Endpoints", "Event", "ServiceAccount", "Lease", "Role", "RoleBinding"}


def now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def prepare_create(resource: Resource, namespace: str, obj: dict[str, Any]) -> dict[str, Any]:
    """Check a new object and return it as it will be stored."""
    check_kind(resource, obj)
    meta = dict(obj.get("metadata") or {})
    if not meta.get("name") and meta.get("generateName"):
        meta["name"] = meta["generateName"] + "".join(random.choices(string.ascii_lowercase + string.digits, k=5))
    name = meta.get("name", "")
    if not name:
        raise invalid(resource, "", "metadata.name", "Required value: name or generateName is required")
    if not NAME.fullmatch(name) and resource.group != "rbac.authorization.k8s.io":
        message = f'Invalid value: "{name}": a lowercase RFC 1123 subdomain must consist of lower case alphanumerics'
        raise invalid(resource, name, "metadata.name", message)
    if resource.namespaced:
        if meta.setdefault("namespace", namespace) != namespace:
            raise bad_request("the namespace of the provided object does not match the namespace sent on the request")
    else:
        meta.pop("namespace", None)
    for field in ("resourceVersion", "selfLink", "deletionTimestamp", "deletionGracePeriodSeconds"):
        meta.pop(field, None)
    meta["uid"] = str(uuid.uuid4())
    meta["creationTimestamp"] = now()
    if "spec" in obj:
        meta["generation"] = 1
    body = {key: value for key, value in obj.items() if key not in ("kind", "apiVersion", "metadata")}
    stored = {"kind": resource.kind, "apiVersion": resource.api_version, "metadata": meta, **body}
    _BY_KIND.get(resource.kind, lambda _: None)(stored)
    return stored


def prepare_update(resource: Resource, old: dict[str, Any], new: dict[str, Any], subresource: str) -> dict[str, Any]:
    """Return `new` with what a client may not change taken from `old`."""
    check_kind(resource, new)
    meta = dict(new.get("metadata") or {})
    for field in OWNED:
        meta.pop(field, None)
        if field in old["metadata"]:
            meta[field] = old["metadata"][field]
    meta["name"], meta.pop("resourceVersion", None)
    if resource.namespaced:
        meta["namespace"] = old["metadata"]["namespace"]
    body = {key: value for key, value in new.items() if key not in ("kind", "apiVersion", "metadata")}
    if subresource == "status":
        body = {**{key: value for key, value in old.items() if key != "status"}, "status": new.get("status", {})}
        body = {key: value for key, value in body.items() if key not in ("kind", "apiVersion", "metadata")}
        meta = {**old["metadata"]}
    elif resource.kind not in NO_STATUS_SUBRESOURCE and "status" in old:
        body["status"] = old["status"]
    meta.pop("resourceVersion", None)
    if body.get("spec") != old.get("spec") and "generation" in meta:
        meta["generation"] += 1
    stored = {"kind": resource.kind, "apiVersion": resource.api_version, "metadata": meta, **body}
    if resource.kind == "Secret":
        _secret(stored)
    return stored


def check_kind(resource: Resource, obj: dict[str, Any]) -> None:
    kind, version = obj.get("kind", resource.kind), obj.get("apiVersion", resource.api_version)
    if kind != resource.kind:
        raise bad_request(f"{kind} in version {version!r} cannot be handled as a {resource.kind}")


def _namespace(obj: dict[str, Any]) -> None:
    obj["metadata"].setdefault("labels", {})["kubernetes.io/metadata.name"] = obj["metadata"]["name"]
    obj["spec"] = {"finalizers": ["kubernetes"]}
    obj["status"] = {"phase": "Active"}


def _secret(obj: dict[str, Any]) -> None:
    for key, value in (obj.pop("stringData", None) or {}).items():
        obj.setdefault("data", {})[key] = base64.b64encode(value.encode()).decode()
    obj.setdefault("type", "Opaque")


def _pod(obj: dict[str, Any]) -> None:
    spec = obj["spec"]
    for key, value in {
        "restartPolicy": "Always", "terminationGracePeriodSeconds": 30, "dnsPolicy": "ClusterFirst",
        "schedulerName": "default-scheduler", "securityContext": {}, "enableServiceLinks": True,
    }.items():  # fmt: skip
        spec.setdefault(key, value)
    for container in (*spec.get("initContainers", ()), *spec["containers"]):
        container.setdefault("resources", {})
        container.setdefault("terminationMessagePath", "/dev/termination-log")
        container.setdefault("terminationMessagePolicy", "File")
        container.setdefault("imagePullPolicy", "IfNotPresent")
    obj.setdefault("status", {"phase": "Pending", "qosClass": "BestEffort"})


def _service(obj: dict[str, Any]) -> None:
    spec = obj.setdefault("spec", {})
    spec.setdefault("type", "ClusterIP")
    spec.setdefault("sessionAffinity", "None")
    if spec["type"] != "ExternalName":
        spec.setdefault("internalTrafficPolicy", "Cluster")
    spec.setdefault("clusterIP", f"10.96.{random.randrange(1, 255)}.{random.randrange(2, 255)}")
    spec.setdefault("clusterIPs", [spec["clusterIP"]])
    if spec["type"] != "ExternalName" and spec["clusterIP"] != "None":
        spec.setdefault("ipFamilies", ["IPv4"])
        spec.setdefault("ipFamilyPolicy", "SingleStack")
    for port in spec.get("ports", ()):
        port.setdefault("protocol", "TCP")
        port.setdefault("targetPort", port["port"])
    obj.setdefault("status", {"loadBalancer": {}})


def _replicated(obj: dict[str, Any]) -> None:
    obj["spec"].setdefault("replicas", 1)
    obj["spec"].setdefault("revisionHistoryLimit", 10)
    if obj["kind"] == "StatefulSet":
        obj["spec"].setdefault("podManagementPolicy", "OrderedReady")
        obj["spec"].setdefault("updateStrategy", {"type": "RollingUpdate", "rollingUpdate": {"partition": 0}})
    obj.setdefault("status", {"replicas": 0})


def _claim(obj: dict[str, Any]) -> None:
    obj["spec"].setdefault("volumeMode", "Filesystem")
    obj.setdefault("status", {"phase": "Pending"})


def _definition(obj: dict[str, Any]) -> None:
    names = obj["spec"]["names"]
    names.setdefault("singular", names["kind"].lower())
    names.setdefault("listKind", names["kind"] + "List")
    stored = [version["name"] for version in obj["spec"]["versions"] if version.get("storage")]
    conditions = [
        {"type": kind, "status": "True", "lastTransitionTime": now(), "reason": reason, "message": message}
        for kind, reason, message in (
            ("NamesAccepted", "NoConflicts", "no conflicts found"),
            ("Established", "InitialNamesAccepted", "the initial names have been accepted"),
        )
    ]
    obj["status"] = {"acceptedNames": names, "conditions": conditions, "storedVersions": stored}


_BY_KIND = {
    "Namespace": _namespace,
    "Secret": _secret,
    "Pod": _pod,
    "Service": _service,
    "Deployment": _replicated,
    "StatefulSet": _replicated,
    "PersistentVolumeClaim": _claim,
    "CustomResourceDefinition": _definition,
}
