"""A Kubernetes API that serves recorded objects, for comparisons with a running cluster."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

from etcdkeep.errors import AccessDenied, NotFound
from etcdkeep.objects.keys import StorageKey, parse_key
from tests.kubernetes_values import control_plane

if TYPE_CHECKING:
    from collections.abc import Iterable

AGGREGATED = "v1.metrics"


class ObjectsApi:
    """An API server that serves objects; whatever is asked beyond is not there."""

    def __init__(self, objects: Iterable[tuple[StorageKey, dict[str, Any]]]) -> None:
        self.collections = {
            "/api/v1/configmaps": [],
            "/apis/apiregistration.k8s.io/v1/apiservices": [
                {
                    "metadata": {"name": AGGREGATED},
                    "spec": {"group": "metrics.k8s.io", "service": {"name": "metrics"}},
                }
            ],
        }
        resources = {}
        for key, each in objects:
            version, place = each["apiVersion"], key.resource
            root = f"/apis/{version}" if "/" in version else f"/api/{version}"
            self.collections.setdefault(f"{root}/{place}", []).append(each)
            resources.setdefault(version, {})[place] = (each["kind"], bool(key.namespace))
        resources.setdefault("v1", {})["componentstatuses"] = ("ComponentStatus", False)
        resources["events.k8s.io/v1"] = {"events": ("Event", True)}
        resources["metrics.k8s.io/v1"] = {"pods": ("PodMetrics", True)}
        self.documents = {"/apis": {"groups": []}}
        for version, listed in resources.items():
            rows = [
                {"name": name, "kind": kind, "namespaced": namespaced, "verbs": ["list", "get"]}
                for name, (kind, namespaced) in listed.items()
            ]
            rows.append({"name": "pods/log", "kind": "Pod", "namespaced": True, "verbs": ["get"]})
            path = f"/apis/{version}" if "/" in version else f"/api/{version}"
            self.documents[path] = {"resources": rows}
            if "/" in version:
                named = {"groupVersion": version}
                group = {"name": version.split("/")[0], "versions": [named], "preferredVersion": named}
                self.documents["/apis"]["groups"].append(group)
        self.refused = set()

    def get(self, path: str) -> dict[str, Any]:
        if path in self.documents:
            return self.documents[path]
        collection, _, name = path.rpartition("/")
        return next(each for each in self.collections[collection] if each["metadata"]["name"] == name)

    def list(self, path: str, *, label_selector: str = "") -> list[dict[str, Any]]:
        assert "metrics" not in path
        assert "componentstatuses" not in path
        if path in self.refused:
            raise AccessDenied(f"GET {path}: 403")
        root, namespaces, rest = path.partition("/namespaces/")
        namespace, _, plural = rest.partition("/")
        collection = f"{root}/{plural}" if namespaces else path
        if collection not in self.collections:
            raise NotFound(path)
        found = self.collections[collection]
        return [each for each in found if not namespaces or each["metadata"]["namespace"] == namespace]


def recorded_objects() -> list[tuple[StorageKey, dict[str, Any]]]:
    """Return what a real API server gave, with where it stores it; to be changed by a test."""
    return [(parse_key(each.key), copy.deepcopy(each.json)) for each in control_plane() if each.json]
