"""
Keys of the API server's storage: ``/registry/[group/]resource/[namespace/]name``, with a few that differ.

Built-in kinds stand under their resource alone, whatever their group; custom resources, CRDs and APIServices have their
group before it (a group has a dot, a resource has none).
"""

from __future__ import annotations

from typing import NamedTuple

from etcdkeep.objects.resources import built_in

DEFAULT_PREFIX = "/registry"
NOT_OF_THE_API = "not of the Kubernetes API"
OTHER_PREFIX = "an object under another etcd prefix: "
"""Begins what :class:`~etcdkeep.objects.entries.Entry` says of such a key; the prefix follows."""

_IRREGULAR = {
    ("services", "specs"): "services",
    ("services", "endpoints"): "endpoints",
    ("minions",): "nodes",
    ("controllers",): "replicationcontrollers",
    ("ingress",): "ingresses",
    ("podsecuritypolicy",): "podsecuritypolicies",
}
_IN_FOLDER_OF_GROUP = ("apiextensions.k8s.io", "apiregistration.k8s.io")
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

    :param prefix: The API server's ``--etcd-prefix``, as :func:`clean_prefix` gives it.
    """
    text = key.decode(errors="replace")
    if text == "compact_rev_key":
        return StorageKey("", "", "", text, other="the revision the API server compacts to")
    folder = prefix.rstrip("/") + "/"
    parts = text.removeprefix(folder).split("/")
    if not text.startswith(folder) or len(parts) < 2 or not all(parts):
        return StorageKey("", "", "", text, other=NOT_OF_THE_API)
    group = parts.pop(0) if "." in parts[0] else ""
    resource, rest = _resource(parts)
    if resource in _NO_OBJECT and not group:
        return StorageKey("", resource, "", "/".join(rest), other=_NO_OBJECT[resource])
    if len(rest) not in (1, 2):
        return StorageKey("", "", "", text, other=NOT_OF_THE_API)
    return StorageKey(group, resource, rest[0] if len(rest) == 2 else "", rest[-1])


def object_key(group: str, resource: str, namespace: str, name: str, prefix: str = DEFAULT_PREFIX) -> bytes:
    """
    Return the key of an object: the inverse of :func:`parse_key`.

    :param group: Of a custom resource, CRD or APIService; empty for the other built-in kinds.
    """
    folder = "/".join(next((parts for parts, plural in _IRREGULAR.items() if plural == resource), (resource,)))
    return "/".join((prefix, *filter(None, (group, folder, namespace, name)))).encode()


def clean_prefix(text: str) -> str:
    """Return ``/registry`` for any way of writing it that an API server takes; empty where keys have none."""
    inner = "/".join(filter(None, text.split("/")))
    return f"/{inner}" if inner else ""


def prefix_of(key: bytes) -> str | None:
    """Return the prefix that a key of a built-in kind has, from the key alone; None where it reads as no such key."""
    parts = key.decode(errors="replace").split("/")
    if parts[0]:
        return None
    for start in range(1, len(parts) - 1):
        resource, rest = _resource(parts[start:])
        known = built_in().get(resource)
        if known is None or known.resource.group in _IN_FOLDER_OF_GROUP or not all(rest):
            continue
        if len(rest) == (2 if known.namespaced else 1):
            return "/".join(parts[:start])
    return None


def _resource(parts: list[str]) -> tuple[str, list[str]]:
    for length in (2, 1):
        if tuple(parts[:length]) in _IRREGULAR:
            return _IRREGULAR[tuple(parts[:length])], parts[length:]
    return parts[0], parts[1:]
