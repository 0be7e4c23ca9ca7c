"""Server-side printing: the Table that ``kubectl get`` asks for."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from lab.api.resources import Resource

Row = list[Any]
Columns = tuple[str, ...]


def table(resource: Resource, objects: list[dict[str, Any]], include: str) -> dict[str, Any]:
    """
    Return a ``meta.k8s.io/v1`` Table.

    :param include: ``None``, ``Metadata`` or ``Object``: what each row carries of its object.
    """
    columns, wide, cells = _PRINTERS.get(resource.kind, (("Name", "Age"), (), lambda obj: [_age(obj)]))
    definitions = [
        {"name": name, "type": "string", "format": "name" if name == "Name" else "", "description": name,
         "priority": 1 if name in wide else 0}
        for name in (*columns, *wide)
    ]  # fmt: skip
    rows = [{"cells": [obj["metadata"]["name"], *cells(obj)], "object": _carried(obj, include)} for obj in objects]
    return {"kind": "Table", "apiVersion": "meta.k8s.io/v1", "columnDefinitions": definitions, "rows": rows}


def _carried(obj: dict[str, Any], include: str) -> dict[str, Any] | None:
    if include == "None":
        return None
    if include == "Object":
        return obj
    return {"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": obj["metadata"]}


def _age(obj: dict[str, Any]) -> str:
    created = obj["metadata"].get("creationTimestamp")
    if not created:
        return "<unknown>"
    seconds = int((datetime.now(UTC) - datetime.fromisoformat(created)).total_seconds())
    for limit, unit, size in ((120, "s", 1), (7200, "m", 60), (172800, "h", 3600)):
        if seconds < limit:
            return f"{seconds // size}{unit}"
    return f"{seconds // 86400}d"


def _pod(obj: dict[str, Any]) -> Row:
    status = obj.get("status", {})
    containers = status.get("containerStatuses", ())
    reason = status.get("reason") or status.get("phase", "Unknown")
    for container in containers:
        state = container.get("state", {})
        reason = (state.get("waiting") or state.get("terminated") or {}).get("reason") or reason
    if obj["metadata"].get("deletionTimestamp"):
        reason = "Terminating"
    ready = sum(bool(container.get("ready")) for container in containers)
    restarts = sum(container.get("restartCount", 0) for container in containers)
    where = [status.get("podIP", "<none>"), obj["spec"].get("nodeName", "<none>"), "<none>", "<none>"]
    return [f"{ready}/{len(obj['spec']['containers'])}", reason, restarts, _age(obj), *where]


def _node(obj: dict[str, Any]) -> Row:
    status = obj.get("status", {})
    prefix = "node-role.kubernetes.io/"
    roles = sorted(label[len(prefix) :] for label in obj["metadata"].get("labels", {}) if label.startswith(prefix))
    ready = any(item["type"] == "Ready" and item["status"] == "True" for item in status.get("conditions", ()))
    address = {item["type"]: item["address"] for item in status.get("addresses", ())}
    info = status.get("nodeInfo", {})
    return [
        "Ready" if ready else "NotReady", ",".join(roles) or "<none>", _age(obj), info.get("kubeletVersion", ""),
        address.get("InternalIP", "<none>"), address.get("ExternalIP", "<none>"), info.get("osImage", ""),
        info.get("kernelVersion", ""), info.get("containerRuntimeVersion", ""),
    ]  # fmt: skip


def _service(obj: dict[str, Any]) -> Row:
    spec = obj["spec"]
    ports = ",".join(f"{port['port']}/{port.get('protocol', 'TCP')}" for port in spec.get("ports", ())) or "<none>"
    return [spec["type"], spec.get("clusterIP", "<none>"), "<none>", ports, _age(obj), _pairs(spec.get("selector"))]


def _workload(obj: dict[str, Any]) -> tuple[Any, ...]:
    containers = obj["spec"]["template"]["spec"]["containers"]
    return ",".join(item["name"] for item in containers), ",".join(item["image"] for item in containers)


def _deployment(obj: dict[str, Any]) -> Row:
    status, spec = obj.get("status", {}), obj["spec"]
    ready = f"{status.get('readyReplicas', 0)}/{spec.get('replicas', 1)}"
    counts = [ready, status.get("updatedReplicas", 0), status.get("availableReplicas", 0), _age(obj)]
    return [*counts, *_workload(obj), _pairs(spec["selector"].get("matchLabels"))]


def _stateful_set(obj: dict[str, Any]) -> Row:
    ready = f"{obj.get('status', {}).get('readyReplicas', 0)}/{obj['spec'].get('replicas', 1)}"
    return [ready, _age(obj), *_workload(obj)]


def _claim(obj: dict[str, Any]) -> Row:
    spec, status = obj["spec"], obj.get("status", {})
    modes = ",".join("".join(c for c in mode if c.isupper()) for mode in spec.get("accessModes", ()))
    size = status.get("capacity", {}).get("storage", "")
    return [
        status.get("phase", ""), spec.get("volumeName", ""), size, modes, spec.get("storageClassName", ""), "<unset>",
        _age(obj), spec["volumeMode"],
    ]  # fmt: skip


def _budget(obj: dict[str, Any]) -> Row:
    spec = obj["spec"]
    limits = [str(spec.get("minAvailable", "N/A")), str(spec.get("maxUnavailable", "N/A"))]
    return [*limits, obj.get("status", {}).get("disruptionsAllowed", 0), _age(obj)]


def _size(obj: dict[str, Any]) -> int:
    return len(obj.get("data") or {}) + len(obj.get("binaryData") or {})


def _pairs(labels: dict[str, str] | None) -> str:
    return ",".join(f"{key}={value}" for key, value in sorted((labels or {}).items())) or "<none>"


_PRINTERS: dict[str, tuple[Columns, Columns, Callable[[dict[str, Any]], Row]]] = {
    "ConfigMap": (("Name", "Data", "Age"), (), lambda obj: [_size(obj), _age(obj)]),
    "Deployment": (
        ("Name", "Ready", "Up-to-date", "Available", "Age"), ("Containers", "Images", "Selector"), _deployment,
    ),
    "Namespace": (("Name", "Status", "Age"), (), lambda obj: [obj.get("status", {}).get("phase", ""), _age(obj)]),
    "Node": (
        ("Name", "Status", "Roles", "Age", "Version"),
        ("Internal-IP", "External-IP", "OS-Image", "Kernel-Version", "Container-Runtime"),
        _node,
    ),
    "PersistentVolumeClaim": (
        ("Name", "Status", "Volume", "Capacity", "Access Modes", "StorageClass", "VolumeAttributesClass", "Age"),
        ("VolumeMode",),
        _claim,
    ),
    "Pod": (
        ("Name", "Ready", "Status", "Restarts", "Age"), ("IP", "Node", "Nominated Node", "Readiness Gates"), _pod,
    ),
    "PodDisruptionBudget": (("Name", "Min Available", "Max Unavailable", "Allowed Disruptions", "Age"), (), _budget),
    "Secret": (("Name", "Type", "Data", "Age"), (), lambda obj: [obj.get("type", ""), _size(obj), _age(obj)]),
    "Service": (("Name", "Type", "Cluster-IP", "External-IP", "Port(s)", "Age"), ("Selector",), _service),
    "StatefulSet": (("Name", "Ready", "Age"), ("Containers", "Images"), _stateful_set),
}  # fmt: skip
