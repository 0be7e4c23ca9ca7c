"""An object on its way from the backup to the cluster: a clean manifest in the making, and what was done to it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Protocol

from etcdkeep.objects.decoding import exact_json

if TYPE_CHECKING:
    from collections.abc import Mapping


class Surroundings(Protocol):
    """What will be there when the object is made."""

    def has_owner(self, reference: Mapping[str, Any], namespace: str) -> bool:
        """Whether an owner lives, as the very one it was, or is recovered too; `namespace` is that of what it owns."""

    def volume(self, name: str) -> Mapping[str, Any] | None:
        """Return a PersistentVolume that lives or is recovered too."""


@dataclass
class Draft:
    """
    One object, and what became of it.

    :param plural: As in the API's paths.
    :param uid: It had in the backup.
    :param manifest: Changed by what cleans it.
    :param dropped: The fields that were taken out.
    :param warnings: What a person should know before it is made.
    :param needed_by: The object that was asked for and cannot be without this one, which was not asked for; else empty.
    """

    plural: str
    namespace: str
    name: str
    uid: str
    manifest: dict[str, Any] = field(repr=False)
    dropped: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    needed_by: str = ""

    @property
    def api_version(self) -> str:
        """Of the manifest."""
        return str(self.manifest["apiVersion"])

    @property
    def kind(self) -> str:
        """Of the manifest."""
        return str(self.manifest["kind"])

    @property
    def spec(self) -> dict[str, Any]:
        """Of the manifest; an empty one that is not in it, where it has none."""
        return self.manifest.get("spec") or {}

    @property
    def place(self) -> tuple[str, str, str]:
        """What sorts objects of one rank."""
        return self.kind, self.namespace, self.name

    @property
    def label(self) -> str:
        """``Deployment shop/web``."""
        return label(self.kind, self.namespace, self.name)

    @property
    def collection(self) -> str:
        """The API's path of the collection that it is in."""
        return collection_path(self.api_version, self.plural, self.namespace)

    @property
    def path(self) -> str:
        """The API's path of the object."""
        return f"{self.collection}/{self.name}"

    def copy(self) -> Draft:
        """Return one that can be changed by itself."""
        manifest = exact_json.loads(exact_json.dumps(self.manifest))  # an object may nest deeper than deepcopy goes
        return replace(self, manifest=manifest, dropped=list(self.dropped), warnings=list(self.warnings))

    def drop(self, *path: str) -> Any:
        """Take a field out of the manifest where it is there, note that, and return what it was."""
        holder: Any = self.manifest
        for name in path[:-1]:
            holder = holder.get(name) if isinstance(holder, dict) else None
        if not isinstance(holder, dict) or path[-1] not in holder:
            return None
        self.dropped.append(".".join(path))
        return holder.pop(path[-1])

    def drop_annotations(self, *names: str, prefix: str = "") -> None:
        """Take annotations out, those of a prefix too; an empty map of them goes as well."""
        annotations = self.manifest["metadata"].get("annotations")
        if not isinstance(annotations, dict):
            return
        for name in [each for each in annotations if each in names or (prefix and each.startswith(prefix))]:
            self.drop("metadata", "annotations", name)
        if not annotations:
            del self.manifest["metadata"]["annotations"]


def group_of(api_version: str) -> str:
    """Return ``apps`` for ``apps/v1``, nothing for ``v1``."""
    return api_version.rpartition("/")[0]


def label(kind: str, namespace: str, name: str) -> str:
    """Return ``Deployment shop/web``, ``Namespace shop``."""
    return f"{kind} {namespace}/{name}" if namespace else f"{kind} {name}"


def collection_path(api_version: str, plural: str, namespace: str) -> str:
    """Return the API's path of a collection."""
    root = f"/apis/{api_version}" if "/" in api_version else f"/api/{api_version}"
    return f"{root}/namespaces/{namespace}/{plural}" if namespace else f"{root}/{plural}"
