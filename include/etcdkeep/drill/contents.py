"""
What a database holds at its current revision, told in few numbers: the same whether it is read from a snapshot file or
from an etcd that serves it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import google_crc32c

from etcdkeep.objects.keys import DEFAULT_PREFIX, parse_key, prefix_of
from etcdkeep.snapshot.facts import KEY_BUCKET
from etcdkeep.snapshot.record import decode_revision, is_tombstone

if TYPE_CHECKING:
    from collections.abc import Iterable

    from etcdkeep.snapshot import Snapshot

OTHER = "keys of no Kubernetes resource"
_DIGEST_MASK = 2**64 - 1


class LiveKey(NamedTuple):
    """A key that exists, with everything that etcd tells of it."""

    key: bytes
    create_revision: int
    revision: int
    version: int
    lease: int
    value: bytes


@dataclass
class Tally:
    """
    Some keys, in whatever order they came.

    :param digest: Equal for equal keys, values, revisions and leases, in this process only.
    """

    count: int = 0
    digest: int = 0


@dataclass
class Tallies:
    """
    Keys counted by resource; memory grows with the resources and namespaces, not with the keys.

    :param samples: Of each resource the first key that came.
    """

    by_resource: dict[str, Tally] = field(default_factory=dict)
    samples: dict[str, LiveKey] = field(default_factory=dict)
    _folders: dict[bytes, tuple[str, Tally]] = field(default_factory=dict)

    def add(self, keys: Iterable[LiveKey]) -> None:
        """Count some keys."""
        folders = self._folders
        for found in keys:
            folder = found[0].rpartition(b"/")[0]
            if folder not in folders:
                resource = resource_of(folder)
                folders[folder] = resource, self.by_resource.setdefault(resource, Tally())
                self.samples.setdefault(resource, found)
            tally = folders[folder][1]
            tally.count += 1
            tally.digest = (tally.digest + hash(found)) & _DIGEST_MASK

    @property
    def count(self) -> int:
        """All keys."""
        return sum(tally.count for tally in self.by_resource.values())


@dataclass(frozen=True)
class Contents:
    """
    A database at its current revision.

    :param hash_kv: etcd's HashKV of it.
    """

    revision: int
    hash_kv: int
    tallies: Tallies


def resource_of(folder: bytes) -> str:
    """Return the resource whose keys stand in a folder: ``pods``, ``machines.onprem.cluster.gke.io``."""
    key = folder + b"/-"
    parsed = parse_key(key)
    if parsed.other:
        parsed = parse_key(key, prefix_of(key) or DEFAULT_PREFIX)
    return ".".join(filter(None, (parsed.resource, parsed.group))) or OTHER


def read_contents(snapshot: Snapshot) -> Contents:
    """
    Read a snapshot file's contents.

    :raises SnapshotDamaged: when it meets damage.
    """
    tallies = Tallies()
    live_revisions: set[tuple[int, int]] = set()
    compacted = snapshot.compacted_revision

    def live() -> Iterable[LiveKey]:
        for record, value in snapshot.live_values():
            if record.revision <= compacted:
                live_revisions.add((record.revision, record.sub))
            yield LiveKey(record.key, record.create_revision, record.revision, record.version, record.lease, value)

    tallies.add(live())
    return Contents(snapshot.current_revision, _hash_kv(snapshot, live_revisions, bool(tallies.count)), tallies)


def _hash_kv(snapshot: Snapshot, live: set[tuple[int, int]], any_live: bool) -> int:
    """
    Compute what etcd answers to HashKV at the current revision.

    CRC-32C over the name of bucket ``key``, then over key and value of each of its records; up to the compacted revision
    those records only that are still the last of an existing key, unless no key exists at all. So physical compaction
    changes nothing. etcd's versions agree on it on purpose.

    :param live: Revisions, up to the compacted one, of the last records of existing keys.
    """
    hash_kv, bump = _hash_records(snapshot, live, any_live)
    if bump is not None:  # a record of the key "", which counts as existing
        hash_kv, _ = _hash_records(snapshot, live | {bump}, True)
    return hash_kv


def _hash_records(snapshot: Snapshot, live: set[tuple[int, int]], any_live: bool) -> tuple[int, tuple[int, int] | None]:
    """Return the hash, and the revision of the last record that a revision bump left."""
    compacted = snapshot.compacted_revision
    bump = None
    extend = google_crc32c.extend
    crc: int = extend(0, KEY_BUCKET)
    for revision_key, record in snapshot.raw_records():
        main, sub = decode_revision(revision_key)
        if not record:
            bump = main, sub
        if main > compacted or not any_live or ((main, sub) in live and not is_tombstone(revision_key)):
            crc = extend(crc, revision_key + record)
    return crc, bump
