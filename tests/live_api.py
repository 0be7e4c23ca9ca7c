"""A Kubernetes API in memory, with the lab's own rules of server-side apply: what recoveries are planned and applied with."""

from __future__ import annotations

import copy
import json
import tempfile
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from etcdkeep.errors import FieldsOwned, LiveChanged, NotFound, NotServed, ObjectRefused
from etcdkeep.objects.keys import object_key
from etcdkeep.objects.resources import built_in
from etcdkeep.objects.source import Source
from etcdkeep.snapshot import open_snapshot
from lab.api import discovery, managed
from lab.api.defaults import prepare_create, prepare_update
from lab.api.resources import BUILT_IN, Resource, custom_resources
from lab.api.status import ApiError
from tests.snapshots import Put, make_snapshot, record_value, revision_key

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from etcdkeep.snapshot import Snapshot

KUBE_SYSTEM_UID = "uid-of-kube-system"


def named(kind: str, name: str, namespace: str = "", api_version: str = "v1", **content: Any) -> dict[str, Any]:
    """Return an object with the metadata that a stored one has; `metadata` in `content` is laid over it."""
    metadata = {
        "name": name,
        "uid": f"uid-{kind.lower()}-{name}",
        "creationTimestamp": "2026-11-22T02:30:00Z",
        "resourceVersion": "7",
        **({"namespace": namespace} if namespace else {}),
        **content.pop("metadata", {}),
    }
    return {"apiVersion": api_version, "kind": kind, "metadata": metadata, **content}


def config_map(name: str, namespace: str = "shop", **data: str) -> dict[str, Any]:
    return named("ConfigMap", name, namespace, data=data)


def owned_by(owner: Mapping[str, Any], *, controller: bool = True) -> dict[str, Any]:
    """Return metadata that names an owner."""
    reference = {"apiVersion": owner["apiVersion"], "kind": owner["kind"], "controller": controller}
    return {"ownerReferences": [reference | {name: owner["metadata"][name] for name in ("name", "uid")}]}


def definition(plural: str, kind: str, group: str = "shop.example.com", **spec: Any) -> dict[str, Any]:
    """Return a CustomResourceDefinition with one version."""
    names = {"plural": plural, "kind": kind, "singular": kind.lower(), "listKind": f"{kind}List"}
    version = {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": {"type": "object"}}}
    content = {"group": group, "names": names, "scope": "Namespaced", "versions": [version]} | spec
    return named("CustomResourceDefinition", f"{plural}.{group}", api_version="apiextensions.k8s.io/v1", spec=content)


class LiveApi:
    """
    The calls of :class:`~etcdkeep.ports.KubeApi` that recoveries make.

    :ivar objects: By path.
    :ivar applied: Paths of what was applied, dry runs left out.
    :ivar before_apply: Called with path and dry_run before each apply; may raise, or change what is there.
    """

    def __init__(self, *objects: dict[str, Any]) -> None:
        self.objects: dict[str, dict[str, Any]] = {}
        self.applied: list[str] = []
        self.before_apply: Callable[[str, bool], None] = lambda path, dry_run: None
        self.revision = 100
        self.put(named("Namespace", "kube-system", metadata={"uid": KUBE_SYSTEM_UID}))
        self.put(named("Namespace", "default"))
        for each in objects:
            self.put(each)

    def put(self, content: dict[str, Any], manager: str = "kubectl") -> dict[str, Any]:
        """Write an object as somebody else does."""
        stored = copy.deepcopy(content)
        managed.track_update(None, stored, manager, "")
        path = self.path(stored)
        self._store(path, stored)
        return self.objects[path]

    def change(self, path: str, manager: str = "kubectl", **fields: Any) -> None:
        """Change top-level fields of an object as somebody else does."""
        old = self.objects[path]
        new = {**copy.deepcopy(old), **fields}
        managed.track_update(old, new, manager, "")
        self._store(path, new)

    def path(self, content: Mapping[str, Any]) -> str:
        """Return where an object stands."""
        found = next(
            each
            for each in self._resources()
            if (each.api_version, each.kind) == (content["apiVersion"], content["kind"])
        )
        root = f"/apis/{found.api_version}" if found.group else "/api/v1"
        scope = f"/namespaces/{content['metadata']['namespace']}" if found.namespaced else ""
        return f"{root}{scope}/{found.plural}/{content['metadata']['name']}"

    def get(self, path: str) -> dict[str, Any]:
        resources = self._resources()
        if path == "/apis":
            return discovery.group_list(resources)
        version = path.removeprefix("/apis/").removeprefix("/api/")
        if version in {each.api_version for each in resources}:
            return discovery.resource_list(resources, version)
        if path not in self.objects:
            raise NotFound(f"GET {path}: HTTP 404")
        return copy.deepcopy(self.objects[path])

    def list(self, path: str, *, label_selector: str = "") -> list[dict[str, Any]]:
        return [copy.deepcopy(each) for place, each in self.objects.items() if place.rpartition("/")[0] == path]

    def apply(
        self, path: str, manifest: Mapping[str, Any], *, force: bool = False, dry_run: bool = False
    ) -> dict[str, Any]:
        self.before_apply(path, dry_run)
        resource, namespace, name = self._target(path)
        if namespace and f"/api/v1/namespaces/{namespace}" not in self.objects:
            raise NotFound(f"PATCH {path}: namespaces {namespace!r} not found")
        wanted = copy.deepcopy(dict(manifest))
        self._check(path, wanted, resource, name)
        old = self.objects.get(path)
        before = copy.deepcopy(old) if old else None
        if before:
            before["metadata"].pop("resourceVersion")
        try:
            new = managed.apply(before, wanted, "etcdkeep", force=force)
            if before is None:
                new = prepare_create(resource, namespace, new)
            else:
                new = prepare_update(resource, before, new, "")
        except ApiError as err:
            raise _translated(err) from err
        if not dry_run:
            self.applied.append(path)
            if {**new, "metadata": {**new["metadata"], "resourceVersion": ""}} != {
                **(old or {}),
                "metadata": {**(old or {"metadata": {}})["metadata"], "resourceVersion": ""},
            }:
                self._store(path, new)
            return copy.deepcopy(self.objects[path])
        return copy.deepcopy(new)

    def _check(self, path: str, wanted: dict[str, Any], resource: Resource, name: str) -> None:
        assert (wanted["apiVersion"], wanted["kind"], wanted["metadata"]["name"]) == (
            resource.api_version,
            resource.kind,
            name,
        )
        assert "managedFields" not in wanted["metadata"]
        assert json.dumps(wanted)
        current = self.objects.get(path)
        for field in ("uid", "resourceVersion"):
            claimed = wanted["metadata"].get(field)
            if claimed and (current is None or current["metadata"][field] != claimed):
                raise LiveChanged(f"PATCH {path}: {field} is another one")
        if resource.kind == "Service":
            taken = {
                port.get("nodePort") for place, each in self.objects.items() if place != path for port in _ports(each)
            }
            if clash := [port["nodePort"] for port in _ports(wanted) if port.get("nodePort") in taken - {None}]:
                raise ObjectRefused(f"nodePort {clash[0]} is already allocated", fields=("spec.ports[0].nodePort",))

    def _target(self, path: str) -> tuple[Resource, str, str]:
        folder, _, name = path.rpartition("/")
        root, _, rest = folder.partition("/namespaces/")
        namespace, _, plural = rest.rpartition("/") if rest else ("", "", folder.rpartition("/")[2])
        version = (root if rest else folder.rpartition("/")[0]).removeprefix("/apis/").removeprefix("/api/")
        for each in self._resources():
            if (each.api_version, each.plural) == (version, plural):
                return each, namespace, name
        raise NotServed(f"PATCH {path}: HTTP 404: the server could not find the requested resource")

    def _resources(self) -> list[Resource]:
        definitions = (each for each in self.objects.values() if each["kind"] == "CustomResourceDefinition")
        return [*BUILT_IN, *custom_resources(definitions)]

    def _store(self, path: str, content: dict[str, Any]) -> None:
        self.revision += 1
        metadata = {"uid": f"live-{self.revision}", **content["metadata"], "resourceVersion": str(self.revision)}
        self.objects[path] = {**content, "metadata": metadata}


def _ports(content: Mapping[str, Any]) -> list[dict[str, Any]]:
    return list((content.get("spec") or {}).get("ports") or ()) if content["kind"] == "Service" else []


def _translated(err: ApiError) -> Exception:
    causes = (err.details or {}).get("causes") or []
    if err.code == 409:
        managers = tuple(dict.fromkeys(each["message"].split('"')[1] for each in causes))
        return FieldsOwned(str(err), managers=managers, fields=tuple(each["field"] for each in causes))
    return ObjectRefused(str(err), fields=tuple(each["field"] for each in causes))


def snapshot_of(objects: Iterable[Mapping[str, Any]], values: Mapping[bytes, bytes] | None = None) -> bytes:
    """
    Return a snapshot that holds objects, as an API server stores them in JSON, each at a revision of its own.

    :param values: What is stored besides, by key.
    """
    puts = [Put(_key(each), json.dumps(each).encode()) for each in objects]
    puts += [Put(key, value) for key, value in (values or {}).items()]
    numbered = [(revision_key(main), record_value(put, main)) for main, put in enumerate(puts, start=10)]
    return make_snapshot(numbered)


def _key(content: Mapping[str, Any]) -> bytes:
    group = content["apiVersion"].rpartition("/")[0]
    known = [each.resource for each in built_in().values() if each.resource.kind == content["kind"]]
    if known and known[0].group == group:
        in_folder = group if group.startswith(("apiextensions.", "apiregistration.")) else ""
        plural = known[0].plural
    else:
        in_folder, plural = group, content["kind"].lower() + "s"
    metadata = content["metadata"]
    return object_key(in_folder, plural, metadata.get("namespace", ""), metadata["name"])


class BackupOf(Source):
    """A backup that holds these objects."""

    name = "harbor/20261123T023000Z-1f0c9a3e"
    kubernetes_minor = 36
    index = None
    configurations = ()

    def __init__(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot

    @property
    def snapshot(self) -> Snapshot:
        return self._snapshot


@contextmanager
def backup_of(*objects: Mapping[str, Any], values: Mapping[bytes, bytes] | None = None) -> Iterator[BackupOf]:
    """Open a backup that holds these objects, and kube-system's namespace."""
    with tempfile.TemporaryFile() as file:
        kube_system = named("Namespace", "kube-system", metadata={"uid": KUBE_SYSTEM_UID})
        file.write(snapshot_of([kube_system, *objects], values))
        file.flush()
        with open_snapshot(file.fileno()) as snapshot:
            yield BackupOf(snapshot)
