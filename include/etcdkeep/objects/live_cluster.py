"""What a running cluster has, read over its API, beside what a snapshot has."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any, NamedTuple

from etcdkeep.errors import AccessDenied, NotFound, ValueDamaged
from etcdkeep.objects.compare import ADDED, CHANGED, RECREATED, REMOVED
from etcdkeep.objects.decoding import exact_json
from etcdkeep.objects.resources import Resource, same_objects

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

    from etcdkeep.errors import EtcdkeepError
    from etcdkeep.objects.entries import Entry
    from etcdkeep.objects.selection import Selection
    from etcdkeep.ports import KubeApi

_NOT_STORED = ("componentstatuses",)
_KUBE_SYSTEM = "/api/v1/namespaces/kube-system"
_AGGREGATED = "/apis/apiregistration.k8s.io/v1/apiservices"


class Served(NamedTuple):
    """
    One resource that the API lists.

    :param versions: The values of apiVersion it is served under, the preferred one first.
    """

    resource: Resource
    namespaced: bool
    versions: tuple[str, ...]


class LiveChange(NamedTuple):
    """What became of one object since the snapshot; `before` or `after` is None where it did not or does not exist."""

    what: str
    resource: Resource
    namespace: str
    name: str
    before: dict[str, Any] | None
    after: dict[str, Any] | None


def cluster_uid(api: KubeApi) -> str:
    """Return the UID of namespace kube-system, which is the cluster's own."""
    return str(api.get(_KUBE_SYSTEM)["metadata"]["uid"])


def served_kinds(api: KubeApi) -> list[Served]:
    """Return what the API serves out of its etcd, one entry where two groups show the same objects."""
    found: dict[str, Served] = {}
    for version, listed in _resource_lists(api):
        group = version.rpartition("/")[0]
        for each in listed:
            plural = each["name"]
            if "/" in plural or "list" not in each.get("verbs", ()) or plural in _NOT_STORED:
                continue
            resource = Resource(group, plural, each["kind"])
            known = found.setdefault(same_objects(resource), Served(resource, bool(each["namespaced"]), ()))
            found[same_objects(resource)] = known._replace(versions=(*known.versions, version))
    return [found[kind] for kind in sorted(found)]


def _resource_lists(api: KubeApi) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    aggregated = {
        str(service["spec"].get("group")) for service in api.list(_AGGREGATED) if service.get("spec", {}).get("service")
    }
    yield "v1", api.get("/api/v1")["resources"]
    for group in api.get("/apis")["groups"]:
        if group["name"] in aggregated:
            continue
        preferred = group["preferredVersion"]["groupVersion"]
        versions = [each["groupVersion"] for each in group["versions"]]
        for version in sorted(versions, key=lambda each: each != preferred):
            yield version, api.get(f"/apis/{version}")["resources"]


class LiveCluster:
    """
    Compares a cluster's objects with stored ones; reads only.

    :param decode: Gives the object of an entry of the snapshot, in the JSON of its stored version.
    :ivar notices: What to know of the comparison.
    :ivar failures: Why some objects could not be compared.
    """

    def __init__(self, api: KubeApi, decode: Callable[[Entry], dict[str, Any]]) -> None:
        self.notices: list[str] = []
        self.failures: list[EtcdkeepError] = []
        self._api = api
        self._decode = decode

    def compare(self, served: Sequence[Served], stored: Sequence[Entry], selection: Selection) -> Iterator[LiveChange]:
        """
        Yield what differs, one kind after the other.

        :param served: The kinds to compare, out of :func:`served_kinds`.
        :param stored: What is meant of the snapshot.
        :param selection: Which places and labels are meant of the cluster.
        """
        old: dict[str, dict[tuple[str, str], Entry]] = {}
        for entry in stored:
            old.setdefault(same_objects(entry.type), {})[entry.namespace, entry.name] = entry
        for each in served:
            before = old.pop(same_objects(each.resource), {})
            after = self._list(each, before.values(), selection)
            if after is not None:
                yield from self._compare(each.resource, before, after, selection)
        for kind, before in sorted(old.items()):
            self.notices.append(f"{kind}: the cluster does not serve this kind")
            yield from self._compare(next(iter(before.values())).type, before, {}, selection)

    def _list(
        self, served: Served, before: Collection[Entry], selection: Selection
    ) -> Mapping[tuple[str, str], dict[str, Any]] | None:
        """Return the live objects of a kind in the version that most of the stored ones have, where it is served."""
        stored = Counter(entry.api_version for entry in before if entry.api_version in served.versions)
        version = stored.most_common(1)[0][0] if stored else served.versions[0]
        scopes = [""]
        if selection.namespaces:
            scopes = [f"/namespaces/{namespace}" for namespace in selection.namespaces] if served.namespaced else []
        root = f"/apis/{version}" if "/" in version else f"/api/{version}"
        try:
            items = [item for scope in scopes for item in self._api.list(f"{root}{scope}/{served.resource.plural}")]
        except (AccessDenied, NotFound) as err:
            self.failures.append(err)
            return None
        places = ((item["metadata"].get("namespace", ""), item["metadata"]["name"], item) for item in items)
        return {(namespace, name): item for namespace, name, item in places if selection.takes_place(namespace, name)}

    def _compare(
        self,
        resource: Resource,
        before: Mapping[tuple[str, str], Entry],
        after: Mapping[tuple[str, str], dict[str, Any]],
        selection: Selection,
    ) -> Iterator[LiveChange]:
        for place in sorted(before.keys() | after.keys()):
            try:
                old = self._decode(before[place]) if place in before else None
            except ValueDamaged as err:
                self.failures.append(err)
                continue
            new = after.get(place)
            if old is None and new is not None and not selection.takes_labels(new["metadata"].get("labels") or {}):
                continue
            what = _judge(old, new)
            if what:
                yield LiveChange(what, resource, *place, old, new)


def _judge(old: dict[str, Any] | None, new: dict[str, Any] | None) -> str:
    """Say what became of an object; nothing when it is the same."""
    if old is None or new is None:
        return ADDED if old is None else REMOVED
    was, now = old["metadata"], new["metadata"]
    # resourceVersion is etcd's revision, and after a restore it may come a second time: the rest has to be equal too.
    if _is_same({**old, "metadata": _but_version(was)}, {**new, "metadata": _but_version(now)}):
        return ""
    return CHANGED if was.get("uid") == now.get("uid") else RECREATED


def _is_same(old: dict[str, Any], new: dict[str, Any]) -> bool:
    try:
        return old == new
    except RecursionError:  # an object may nest deeper than Python compares
        return exact_json.dumps(old, sort_keys=True) == exact_json.dumps(new, sort_keys=True)


def _but_version(metadata: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in metadata.items() if name != "resourceVersion"}
