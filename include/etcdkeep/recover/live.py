"""The live cluster as planning and applying look at it: single objects, and who owns them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from etcdkeep.errors import EtcdkeepError, NotFound, ObjectRefused
from etcdkeep.objects.resources import Resource, same_objects
from etcdkeep.recover.draft import collection_path, group_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from etcdkeep.objects.live_cluster import Served
    from etcdkeep.ports import KubeApi
    from etcdkeep.recover.draft import Draft


class Live:
    """
    Looks objects up, each once.

    :param served: What the API serves.
    """

    def __init__(self, api: KubeApi, served: Iterable[Served]) -> None:
        self._api = api
        self._found: dict[str, dict[str, Any] | None] = {}
        self._served = {same_objects(each.resource): each for each in served}
        self._plurals = {(each.resource.group, each.resource.kind): each for each in self._served.values()}

    def get(self, path: str) -> dict[str, Any] | None:
        """Return a live object, or None."""
        if path not in self._found:
            self._found[path] = get_if_there(self._api, path)
        return self._found[path]

    def namespace(self, name: str) -> dict[str, Any] | None:
        """Return a live namespace, or None."""
        return self.get(f"/api/v1/namespaces/{name}")

    def volume(self, name: str) -> dict[str, Any] | None:
        """Return a live PersistentVolume, or None."""
        return self.get(f"/api/v1/persistentvolumes/{name}")

    def versions(self, draft: Draft) -> tuple[str, ...]:
        """Return the values of apiVersion that a kind is served under."""
        served = self._served.get(same_objects(Resource(group_of(draft.api_version), draft.plural, draft.kind)))
        return served.versions if served else ()

    def owner(self, reference: Mapping[str, Any], namespace: str) -> dict[str, Any] | None:
        """Return the live object that a reference names, as the very one or made anew, or None."""
        served = self._plurals.get((group_of(str(reference.get("apiVersion"))), str(reference.get("kind"))))
        if served is None:
            return None
        collection = collection_path(
            str(reference["apiVersion"]), served.resource.plural, namespace if served.namespaced else ""
        )
        return self.get(f"{collection}/{reference.get('name')}")

    def is_alive(self, reference: Mapping[str, Any], namespace: str) -> bool:
        """Whether an owner lives as the very one it was."""
        owner = self.owner(reference, namespace)
        return owner is not None and owner["metadata"].get("uid") == reference.get("uid")

    def with_owners(self, manifest: Mapping[str, Any], paths: Mapping[str, str]) -> dict[str, Any]:
        """Return a manifest that refers to recovered owners as they live now, and not to those that do not live yet."""
        return with_owners(manifest, paths, self.get, lambda _: None)


def get_if_there(api: KubeApi, path: str) -> dict[str, Any] | None:
    """Return a live object, or None."""
    try:
        return api.get(path)
    except NotFound:
        return None


def with_owners(
    manifest: Mapping[str, Any],
    paths: Mapping[str, str],
    get: Callable[[str], dict[str, Any] | None],
    missing: Callable[[Mapping[str, Any]], None],
) -> dict[str, Any]:
    """
    Return a manifest whose references to recovered owners have the uids that those have now.

    :param paths: Of the recovered objects, by the uid they had in the backup.
    :param missing: Called with a reference to one that does not live; the reference is left out then.
    """
    metadata = dict(manifest["metadata"])
    kept = []
    for reference in metadata.pop("ownerReferences", None) or ():
        path = paths.get(str(reference.get("uid")))
        owner = get(path) if path else None
        if path is None:
            kept.append(reference)
        elif owner is None:
            missing(reference)
        else:
            kept.append({**reference, "uid": owner["metadata"]["uid"]})
    if kept:
        metadata["ownerReferences"] = kept
    return {**manifest, "metadata": metadata}


def refusal(kind: str, err: EtcdkeepError) -> str:
    """Say why the API server refused an object; of a Secret, without the server's words, which may repeat a value."""
    if kind == "Secret" and isinstance(err, ObjectRefused):
        return f"the API server refuses it ({', '.join(err.fields) or 'denied'}); its words are not shown for a Secret."
    return str(err)
