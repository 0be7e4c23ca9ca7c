"""Discovery documents: which groups and resources there are, and the least of OpenAPI that kubectl asks for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lab.api.resources import SCALABLE, VERBS, Resource
from lab.layout import KUBERNETES_VERSION

if TYPE_CHECKING:
    from collections.abc import Iterable

VERSION = {
    "major": "1", "minor": "36", "gitVersion": KUBERNETES_VERSION, "gitCommit": "", "gitTreeState": "clean",
    "buildDate": "2026-06-01T00:00:00Z", "goVersion": "", "compiler": "", "platform": "linux/amd64",
}  # fmt: skip


def api_versions(address: str) -> dict[str, Any]:
    served = [{"clientCIDR": "0.0.0.0/0", "serverAddress": address}]
    return {"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": served}


def group_list(resources: Iterable[Resource]) -> dict[str, Any]:
    groups = sorted({resource.group for resource in resources if resource.group})
    return {"kind": "APIGroupList", "apiVersion": "v1", "groups": [group(resources, name) for name in groups]}


def group(resources: Iterable[Resource], name: str) -> dict[str, Any]:
    versions = sorted({resource.version for resource in resources if resource.group == name}, reverse=True)
    named = [{"groupVersion": f"{name}/{version}", "version": version} for version in versions]
    return {"name": name, "versions": named, "preferredVersion": named[0]}


def resource_list(resources: Iterable[Resource], api_version: str) -> dict[str, Any]:
    entries = [entry for resource in resources if resource.api_version == api_version for entry in _entries(resource)]
    return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": api_version, "resources": entries}


def _entries(resource: Resource) -> list[dict[str, Any]]:
    base = {
        "name": resource.plural, "singularName": resource.singular or resource.kind.lower(),
        "namespaced": resource.namespaced, "kind": resource.kind, "verbs": VERBS,
    }  # fmt: skip
    if resource.short:
        base["shortNames"] = list(resource.short)
    if resource.kind in ("Pod", "Service", "Deployment", "StatefulSet", "DaemonSet", "ReplicaSet", "Job", "CronJob"):
        base["categories"] = ["all"]
    plain = {"singularName": "", "namespaced": resource.namespaced, "kind": resource.kind}
    entries = [base, {**plain, "name": f"{resource.plural}/status", "verbs": ["get", "patch", "update"]}]
    if resource.plural in SCALABLE:
        scale = {"group": "autoscaling", "version": "v1", "kind": "Scale", "verbs": ["get", "patch", "update"]}
        entries.append({**plain, **scale, "name": f"{resource.plural}/scale"})
    if resource.kind == "Pod":
        entries.append({**plain, "name": "pods/exec", "kind": "PodExecOptions", "verbs": ["create", "get"]})
        entries.append({**plain, "name": "pods/log", "verbs": ["get"]})
    return entries


def openapi_index(resources: Iterable[Resource]) -> dict[str, Any]:
    paths = {_place(resource) for resource in resources}
    return {"paths": {path: {"serverRelativeURL": f"/openapi/v3/{path}?hash=lab"} for path in sorted(paths)}}


def openapi(resources: Iterable[Resource], place: str) -> dict[str, Any]:
    """Return a document that says nothing but: PATCH takes ``fieldValidation`` and ``dryRun``. kubectl looks for that."""
    parameters = [{"name": name, "in": "query", "schema": {"type": "string"}} for name in ("fieldValidation", "dryRun")]
    paths = {}
    for resource in resources:
        if _place(resource) == place:
            kind = {"group": resource.group, "version": resource.version, "kind": resource.kind}
            operation = {"parameters": parameters, "x-kubernetes-group-version-kind": kind, "responses": {}}
            scope = "namespaces/{namespace}/" if resource.namespaced else ""
            paths[f"/{place}/{scope}{resource.plural}/{{name}}"] = {"patch": operation}
    info = {"title": "Kubernetes", "version": KUBERNETES_VERSION}
    return {"openapi": "3.0.0", "info": info, "paths": paths, "components": {"schemas": {}}}


def _place(resource: Resource) -> str:
    return f"apis/{resource.api_version}" if resource.group else f"api/{resource.version}"
