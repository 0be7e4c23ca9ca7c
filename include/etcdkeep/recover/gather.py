"""The objects of a backup that are meant, and what they cannot be without."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from etcdkeep.errors import EtcdkeepError, RequestRefused, ValueDamaged
from etcdkeep.objects.entries import entry_of
from etcdkeep.objects.keys import object_key, parse_key
from etcdkeep.objects.selection import select
from etcdkeep.recover.draft import Draft, group_of
from etcdkeep.recover.order import BUILT_IN_GROUPS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from etcdkeep.objects.decoding.decode import KubernetesObject
    from etcdkeep.objects.selection import Selection
    from etcdkeep.objects.source import Source


DEFINITIONS = "customresourcedefinitions"


@dataclass
class Gathered:
    """
    What came out of the backup, not cleaned yet.

    :param failures: Why some of what was meant could not be read.
    """

    drafts: list[Draft] = field(default_factory=list)
    failures: list[EtcdkeepError] = field(default_factory=list)


def gather(source: Source, selection: Selection) -> Gathered:
    """
    Return what is meant, and besides the namespaces and CustomResourceDefinitions that it cannot be without.

    :raises RequestRefused: when everything is meant: that is a restore; or when nothing is found.
    :raises NotFound: when one of the kinds is unknown or ambiguous.
    """
    if not (selection.namespaces or selection.kinds or selection.name or selection.labels or selection.fields):
        raise RequestRefused("no objects are selected: give a namespace, kinds, labels or a name.")
    found = Gathered()
    for entry in select(source.entries(with_values=True), selection):
        try:
            if not selection.labels or selection.takes_labels(source.labels(entry)):
                found.drafts.append(_draft(source.decode(entry, any_shape=True), source.prefix))
        except ValueDamaged as err:
            found.failures.append(err)
    if not found.drafts and not found.failures:
        raise RequestRefused(
            f"{source.name} holds none of the selected objects; see `python -m etcdkeep objects list {source.name}`."
        )
    found.drafts += _needed(source, found)
    return found


def _needed(source: Source, found: Gathered) -> Iterator[Draft]:
    """Yield what the backup has of it; what it does not have shows when the API is asked."""
    have = {(draft.plural, draft.name) for draft in found.drafts if not draft.namespace}
    for draft in list(found.drafts):
        for plural, name, key in _wanted(draft, source.prefix):
            if (plural, name) in have:
                continue
            have.add((plural, name))
            record = source.snapshot.get(key)
            if record is None:
                continue
            try:
                value = source.snapshot.value(record)
                needed = _draft(source.decode(entry_of(record, value, source.prefix)), source.prefix)
            except ValueDamaged as err:
                found.failures.append(err)
                continue
            needed.needed_by = draft.label
            yield needed


def _wanted(draft: Draft, prefix: str) -> Iterator[tuple[str, str, bytes]]:
    """Yield plural, name and key of what an object cannot be without."""
    if draft.namespace:
        yield "namespaces", draft.namespace, object_key("", "namespaces", "", draft.namespace, prefix)
    group = group_of(draft.api_version)
    if group not in BUILT_IN_GROUPS:
        name = f"{draft.plural}.{group}"
        yield DEFINITIONS, name, object_key("apiextensions.k8s.io", DEFINITIONS, "", name, prefix)


def _draft(stored: KubernetesObject, prefix: str) -> Draft:
    if stored.raw is not None or not stored.name:
        name = stored.key.decode(errors="replace")
        raise ValueDamaged(f"{name}: {stored.api_version} {stored.kind} cannot be recovered: its kind is unknown here")
    _check_metadata(stored)
    return Draft(
        plural=parse_key(stored.key, prefix).resource,
        namespace=stored.namespace,
        name=stored.name,
        uid=str(stored.json["metadata"].get("uid", "")),
        manifest=stored.json,
        warnings=list(stored.notices),
    )


def _check_metadata(stored: KubernetesObject) -> None:
    metadata = stored.json["metadata"]
    maps = all(isinstance(metadata.get(name) or {}, dict) for name in ("labels", "annotations"))
    owners = metadata.get("ownerReferences") or []
    if not maps or not isinstance(owners, list) or not all(isinstance(each, dict) for each in owners):
        raise ValueDamaged(f"{stored.key.decode(errors='replace')}: its metadata is not shaped like an object's")
