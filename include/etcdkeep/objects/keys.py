"""
Keys of the API server's storage: ``/registry/[group/]resource/[namespace/]name``, with a few that differ.

Built-in kinds stand under their resource alone, whatever their group; custom resources, CRDs and APIServices have their
group before it (a group has a dot, a resource has none).
"""

from __future__ import annotations

from typing import NamedTuple

DEFAULT_PREFIX = "/registry"

_IRREGULAR = {
    ("services", "specs"): "services",
    ("services", "endpoints"): "endpoints",
    ("minions",): "nodes",
    ("controllers",): "replicationcontrollers",
    ("ingress",): "ingresses",
    ("podsecuritypolicy",): "podsecuritypolicies",
}
_NO_OBJECT = {
    "masterleases": "the address of an API server that is alive",
    "peerserverleases": "the address of an API server that others reach",
    "ranges": "which service addresses or node ports are taken",
}


class StorageKey(NamedTuple):
    """
    Where a value stands.

    :param group: Only where the key names one; built-in kinds give theirs in the value.
    :param resource: Plural, as in the API's paths: ``nodes``, not ``minions``.
    :param namespace: Empty for a cluster-scoped object.
    :param other: What the key is for when it holds no object of the API; else empty.
    """

    group: str
    resource: str
    namespace: str
    name: str
    other: str = ""

    @property
    def holds_object(self) -> bool:
        """Whether the value is an object that the Kubernetes API shows."""
        return not self.other


def parse_key(key: bytes, prefix: str = DEFAULT_PREFIX) -> StorageKey:
    """
    Say what a key is for, from the key alone.

    :param prefix: The API server's ``--etcd-prefix``.
    """
    text = key.decode(errors="replace")
    if text == "compact_rev_key":
        return StorageKey("", "", "", text, other="the revision the API server compacts to")
    parts = text.removeprefix(prefix.rstrip("/") + "/").split("/")
    if not text.startswith(prefix.rstrip("/") + "/") or len(parts) < 2 or not all(parts):
        return StorageKey("", "", "", text, other="not of the Kubernetes API")
    group = parts.pop(0) if "." in parts[0] else ""
    resource, rest = _resource(parts)
    if resource in _NO_OBJECT and not group:
        return StorageKey("", resource, "", "/".join(rest), other=_NO_OBJECT[resource])
    if len(rest) not in (1, 2):
        return StorageKey("", "", "", text, other="not of the Kubernetes API")
    return StorageKey(group, resource, rest[0] if len(rest) == 2 else "", rest[-1])


def object_key(group: str, resource: str, namespace: str, name: str, prefix: str = DEFAULT_PREFIX) -> bytes:
    """
    Return the key of an object: the inverse of :func:`parse_key`.

    :param group: Of a custom resource, CRD or APIService; empty for the other built-in kinds.
    """
    folder = "/".join(next((parts for parts, plural in _IRREGULAR.items() if plural == resource), (resource,)))
    return "/".join(filter(None, (prefix.rstrip("/"), group, folder, namespace, name))).encode()


def _resource(parts: list[str]) -> tuple[str, list[str]]:
    for length in (2, 1):
        if tuple(parts[:length]) in _IRREGULAR:
            return _IRREGULAR[tuple(parts[:length])], parts[length:]
    return parts[0], parts[1:]
