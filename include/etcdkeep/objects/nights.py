"""The history of one object over all backups of a cluster, from their indexes: nothing but these is opened."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from etcdkeep.errors import (
    AccessDenied,
    ConfigError,
    IdentityMismatch,
    NotFound,
    ObjectDamaged,
    PermanentError,
    VerificationFailed,
)
from etcdkeep.objects.find import DEFAULT_NAMESPACE
from etcdkeep.objects.index import stream_index
from etcdkeep.objects.index_key import refuse_whole_backups
from etcdkeep.objects.selection import choose_types

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Sequence
    from datetime import datetime

    from etcdkeep.errors import EtcdkeepError
    from etcdkeep.objects.entries import Entry
    from etcdkeep.objects.resources import Resource
    from etcdkeep.ports import ObjectStore
    from etcdkeep.sealing.age_keys import Identity
    from etcdkeep.sets.backup_set import BackupSet, State
    from etcdkeep.sets.repository import Repository

AT_ONCE = 4
"""How many indexes are read at once: what waits for a bucket overlaps, and each holds one block in memory."""
_NEAR = 5

Event = Literal[
    "first seen", "unchanged", "written again", "changed", "recreated", "gone", "back", "absent", "not read"
]
SILENT: tuple[Event, ...] = ("unchanged", "absent")
"""Events of nights on which nothing happened."""


@dataclass(frozen=True)
class Night:
    """
    One object in one backup.

    :param event: What became of it since the last backup before that could be read. ``written again``: another revision, the
        same bytes; ``recreated``: deleted and made again under the same name; ``absent``: not there before and not now.
    :param revision: When it was last written; None where it does not exist or the backup was not read.
    :param size_bytes: Of its stored value.
    :param problem: Why the backup was not read.
    """

    backup_id: str
    taken_at: datetime
    state: State
    event: Event
    revision: int | None = None
    create_revision: int | None = None
    size_bytes: int | None = None
    problem: EtcdkeepError | None = None


@dataclass(frozen=True)
class NightlyHistory:
    """
    One object over all backups.

    :param nights: Oldest first by when they were taken; each backup of the cluster is one of them.
    """

    cluster: str
    resource: Resource
    namespace: str
    name: str
    nights: tuple[Night, ...]

    @property
    def unread(self) -> tuple[Night, ...]:
        """The backups that could not be read."""
        return tuple(night for night in self.nights if night.problem)

    def as_json(self) -> dict[str, Any]:
        """Return it for programs and pages: names, numbers and times, no content."""
        return {
            "cluster": self.cluster,
            "group": self.resource.group,
            "resource": self.resource.plural,
            "kind": self.resource.kind,
            "namespace": self.namespace,
            "name": self.name,
            "backups": [_night_json(night) for night in self.nights],
            "not_read": len(self.unread),
        }


def nightly_history(
    repository: Repository,
    cluster: str,
    identities: Sequence[Identity],
    kind: str,
    namespace: str,
    name: str,
    *,
    sets: Sequence[BackupSet] | None = None,
    at_once: int = AT_ONCE,
    index_only: bool = False,
) -> NightlyHistory:
    """
    Return what happened to one object from backup to backup.

    Each index is opened once, some at a time; in memory are the rows of this name.

    :param kind: As :func:`~etcdkeep.objects.resources.resolve` takes it.
    :param namespace: ``default`` when empty and the kind has namespaces; of no account when it has none.
    :param sets: All of the cluster's, oldest first, where they are listed already.
    :param index_only: Whether the identities are for indexes alone: of a backup that they open whole, nothing is read.
    :raises NotFound: when there is no backup, or none that was read has the object; with what is near.
    :raises PermanentError: when no index could be read: of the kind of the last one's.
    :raises TransientError: when the repository could not be read.
    """
    sets = repository.sets(cluster) if sets is None else sets
    if not sets:
        raise NotFound(f"cluster {cluster!r} has no backup in {repository.store.url}.")
    search = partial(_search, repository.store, identities, namespace or DEFAULT_NAMESPACE, name, index_only)
    with ThreadPoolExecutor(max_workers=at_once, thread_name_prefix="index") as threads:
        sightings = list(threads.map(search, sets))
    unread = [each.problem for each in sightings if each.problem]
    if len(unread) == len(sets):
        raise unread[-1]
    types = {entry[:3] for each in sightings for entry, _ in (*each.rows, *((near, "") for near in each.elsewhere))}
    wanted = choose_types(types, (kind,))
    seen = [next((row for row in each.rows if row[0][:3] in wanted), None) for each in sightings]
    last = next((row[0] for row in reversed(seen) if row), None)
    if last is None:
        raise _not_found(cluster, kind, namespace or DEFAULT_NAMESPACE, name, wanted, sightings)
    nights = tuple(_nights(zip(sets, sightings, seen, strict=True)))
    return NightlyHistory(cluster, last.type, last.namespace, last.name, nights)


class _Sighting(NamedTuple):
    """
    What one index says of a name.

    :param rows: Of any kind, in the namespace that is meant or in none.
    :param elsewhere: Some in other namespaces, for a message.
    """

    rows: list[tuple[Entry, str]]
    elsewhere: list[Entry]
    problem: EtcdkeepError | None = None


def _search(
    store: ObjectStore,
    identities: Sequence[Identity],
    namespace: str,
    name: str,
    index_only: bool,
    found: BackupSet,
) -> _Sighting:
    """Read one index; a backup without one that can be read says why."""
    if found.manifest is None:
        return _Sighting([], [], VerificationFailed(f"backup {found.name} is {found.state}.", found.problems))
    if found.index is None:
        return _Sighting([], [], NotFound(f"backup {found.name} has no index. Verify it to make one."))
    rows: list[tuple[Entry, str]] = []
    elsewhere: list[Entry] = []

    def take(block: Iterable[tuple[Entry, str]]) -> None:
        for entry, digest in block:
            if entry.name != name or entry.holds_no_object:
                continue
            if entry.namespace in ("", namespace):
                rows.append((entry, digest))
            elif len(elsewhere) < _NEAR:
                elsewhere.append(entry)

    try:
        if index_only:
            refuse_whole_backups(found, identities)
        stream_index(store, found.name, found.index, identities, take, name=name)
    except (NotFound, ObjectDamaged) as err:
        return _Sighting([], [], type(err)(f"the index of backup {found.name} cannot be used: {err}"))
    except IdentityMismatch:
        message = f"the index of backup {found.name} is sealed to other recipients than the identities given."
        return _Sighting(
            [],
            [],
            IdentityMismatch(
                f"{message} To seal it to them: `python -m etcdkeep verify {found.name}`, where the age identity is."
            ),
        )
    except PermanentError as err:  # what one object's writer can cause, such as a key of their own, ends no other night
        kind = type(err) if isinstance(err, AccessDenied | ConfigError) else PermanentError
        return _Sighting([], [], kind(f"the index of backup {found.name} could not be read: {err}"))
    return _Sighting(rows, elsewhere)


def _nights(found: Iterable[tuple[BackupSet, _Sighting, tuple[Entry, str] | None]]) -> Iterator[Night]:
    """Yield what happened from each backup to the next one that was read."""
    before: tuple[Entry, str] | None = None
    ever = False
    for backup, sighting, row in found:
        about = backup.backup_id, backup.taken_at, backup.state
        if sighting.problem:
            yield Night(*about, "not read", problem=sighting.problem)
            continue
        event = _event(before, row, ever=ever)
        entry = row[0] if row else None
        yield Night(*about, event, *((entry.revision, entry.create_revision, entry.size_bytes) if entry else ()))
        before, ever = row, ever or row is not None


def _event(before: tuple[Entry, str] | None, after: tuple[Entry, str] | None, *, ever: bool) -> Event:
    if after is None:
        return "gone" if before else "absent"
    if before is None:
        return "back" if ever else "first seen"
    (old, old_digest), (new, new_digest) = before, after
    if old.create_revision != new.create_revision:
        return "recreated"
    if old_digest != new_digest:
        return "changed"
    return "unchanged" if old.revision == new.revision else "written again"


def _not_found(
    cluster: str,
    kind: str,
    namespace: str,
    name: str,
    wanted: Collection[tuple[str, str, str]],
    sightings: Sequence[_Sighting],
) -> NotFound:
    near = dict.fromkeys(entry.place for each in sightings for entry in each.elsewhere if entry[:3] in wanted)
    unread = sum(1 for each in sightings if each.problem)
    hint = f"; near: {', '.join(list(near)[:_NEAR])}" if near else ""
    gaps = f"; {unread} more could not be read" if unread else ""
    return NotFound(
        f"none of the {len(sightings) - unread} backups of {cluster} that were read has a {kind} {namespace}/{name}{hint}{gaps}"
    )


def _night_json(night: Night) -> dict[str, Any]:
    return {
        "backup": night.backup_id,
        "taken_at": night.taken_at.isoformat(),
        "state": night.state,
        "event": night.event,
        "revision": night.revision,
        "create_revision": night.create_revision,
        "size_bytes": night.size_bytes,
        "problem": str(night.problem) if night.problem else None,
    }
