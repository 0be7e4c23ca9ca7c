"""Snapshots of Kubernetes objects, made without etcd."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from tests.kubernetes_values import control_plane, envelope, message
from tests.snapshots import Put, make_snapshot, record_value, revision_key

if TYPE_CHECKING:
    from collections.abc import Mapping


def recorded_snapshot(*more: tuple[int, Put]) -> bytes:
    """Return a snapshot of the recorded values of a real control plane, each at its own revision, and of more puts."""
    puts = [*((each.mod_revision, Put(each.key, each.stored)) for each in control_plane()), *more]
    return make_snapshot(sorted((revision_key(main), record_value(put, main)) for main, put in puts))


def config_map(name: str, namespace: str = "shop", *, uid: str = "", labels: Mapping[str, str] | None = None) -> bytes:
    """Return a stored ConfigMap."""
    return envelope("v1", "ConfigMap", _named(message("v1", "ConfigMap"), name, namespace, uid, labels))


def secret(name: str, namespace: str = "shop", **data: bytes) -> bytes:
    """Return a stored Secret."""
    filled = message("v1", "Secret")
    for field, value in data.items():
        filled.f2[field] = value
    return envelope("v1", "Secret", _named(filled, name, namespace, "", None))


def custom(api_version: str, kind: str, name: str, namespace: str = "", **spec: Any) -> bytes:
    """Return a stored custom resource."""
    metadata = {"name": name} | ({"namespace": namespace} if namespace else {})
    content = {"apiVersion": api_version, "kind": kind, "metadata": metadata, "spec": spec}
    return json.dumps(content, separators=(",", ":")).encode()


def _named(filled: Any, name: str, namespace: str, uid: str, labels: Mapping[str, str] | None) -> bytes:
    filled.f1.f1, filled.f1.f3, filled.f1.f5 = name, namespace, uid
    for label, value in (labels or {}).items():
        filled.f1.f11[label] = value
    return bytes(filled.SerializeToString())
