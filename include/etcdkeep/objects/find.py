"""One object by kind, namespace and name, without a walk over the snapshot where its key can be told beforehand."""

from __future__ import annotations

from difflib import get_close_matches
from typing import TYPE_CHECKING

from etcdkeep.errors import NotFound
from etcdkeep.objects.entries import Entry, entries, entry_of
from etcdkeep.objects.keys import DEFAULT_PREFIX, object_key
from etcdkeep.objects.resources import built_in, resolve
from etcdkeep.objects.selection import choose_types

if TYPE_CHECKING:
    from collections.abc import Iterator

    from etcdkeep.snapshot import Record, Snapshot

DEFAULT_NAMESPACE = "default"
_IN_FOLDER_OF_GROUP = ("customresourcedefinitions", "apiservices")
_NEAR, _LIKENESS = 5, 0.4


def find_history(
    snapshot: Snapshot, kind: str, namespace: str, name: str, *, prefix: str = DEFAULT_PREFIX
) -> list[Record]:
    """
    Return the records of one object, oldest first, those of its earlier incarnations included.

    :param kind: As :func:`~etcdkeep.objects.resources.resolve` takes it.
    :param namespace: ``default`` when empty and the kind has namespaces; of no account when it has none.
    :param prefix: The API server's ``--etcd-prefix``.
    :raises NotFound: when it never existed as far as the snapshot reaches, with what is near.
    """
    for key in _likely_keys(kind, namespace, name, prefix):
        records = snapshot.history(key)
        if records:
            return records
    return _search(snapshot, kind, namespace, name, prefix)


def find_object(
    snapshot: Snapshot,
    kind: str,
    namespace: str,
    name: str,
    revision: int | None = None,
    *,
    prefix: str = DEFAULT_PREFIX,
) -> Entry:
    """
    Return one object as it was at a revision, the snapshot's when None.

    :raises NotFound: when it did not exist then, with when it did, or what is near.
    :raises PermanentError: when the snapshot does not reach there.
    """
    records = find_history(snapshot, kind, namespace, name, prefix=prefix)
    record = snapshot.get(records[0].key, revision) if revision else records[-1]
    if record is None or record.tombstone:
        raise NotFound(f"{kind} {name!r} did not exist {_when(revision)}; {_lives(records)}")
    return entry_of(record, snapshot.value(record), prefix)


def _likely_keys(kind: str, namespace: str, name: str, prefix: str) -> Iterator[bytes]:
    """Yield the keys of a built-in kind, or of ``plural.group``."""
    try:
        resource = resolve(kind, ())[0]
    except NotFound:
        plural, _, group = kind.lower().partition(".")
        if "." in group:
            yield object_key(group, plural, namespace or DEFAULT_NAMESPACE, name, prefix)
            yield object_key(group, plural, "", name, prefix)
        return
    namespaced = built_in()[resource.plural].namespaced
    group = resource.group if resource.plural in _IN_FOLDER_OF_GROUP else ""
    yield object_key(group, resource.plural, (namespace or DEFAULT_NAMESPACE) if namespaced else "", name, prefix)


def _search(snapshot: Snapshot, kind: str, namespace: str, name: str, prefix: str) -> list[Record]:
    """Walk over everything: for a custom kind by its name alone, or to tell what is near."""
    every = [entry for entry in entries(snapshot, prefix=prefix) if not entry.holds_no_object]
    wanted = choose_types({entry[:3] for entry in every}, (kind,))
    of_kind = [entry for entry in every if entry[:3] in wanted]
    for entry in of_kind:
        if entry.name == name and entry.namespace in ("", namespace or DEFAULT_NAMESPACE):
            return snapshot.history(entry.key_bytes)
    has_namespaces = any(entry.namespace for entry in of_kind)
    place = f"{namespace or DEFAULT_NAMESPACE}/{name}" if has_namespaces else name
    elsewhere = [entry.place for entry in of_kind if entry.name == name]
    close = get_close_matches(name, {entry.name for entry in of_kind}, _NEAR, _LIKENESS)
    near = sorted(
        (entry.place for entry in of_kind if entry.name in close), key=lambda each: close.index(each.rpartition("/")[2])
    )
    hint = ", ".join(dict.fromkeys([*elsewhere, *near][:_NEAR]))
    raise NotFound(
        f"there is no {kind} {place} in the snapshot, which has {len(of_kind)} of that kind"
        + (f"; near: {hint}" if hint else f". `objects list … -k {kind}` shows them")
    )


def _when(revision: int | None) -> str:
    return "at the snapshot's revision" if revision is None else f"at revision {revision}"


def _lives(records: list[Record]) -> str:
    """Tell when it existed: ``it existed at revisions 12 to 80 and from 90 on``."""
    spans: list[str] = []
    since = 0
    for record in records:
        if record.tombstone and since:
            spans.append(f"{since} to {record.revision - 1}")
            since = 0
        elif not record.tombstone and not since:
            since = record.revision
    if since:
        spans.append(f"from {since} on")
    if not spans:
        return f"it was deleted at revision {records[-1].revision}, and earlier revisions are compacted"
    return f"it existed at revisions {', '.join(spans)}: --revision shows it as far as the snapshot reaches"
