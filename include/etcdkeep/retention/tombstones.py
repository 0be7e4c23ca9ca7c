"""
Tombstones: what is left of a set that was removed, and what makes its removal safe to repeat.

::

    <cluster>/removed/<backup id>/<time>.json     signed: who removed it, by which rule, its manifest and its objects

The tombstone is stored first. Then the manifest goes, so that the set is listed no more; then the rest. Whoever finds a
tombstone of a set without a manifest may go on where another one stopped. It is signed by the key for ``verify``, as pins are.
"""

from __future__ import annotations

import base64
import re
from collections import defaultdict
from typing import TYPE_CHECKING

from etcdkeep import naming
from etcdkeep.documents import Document
from etcdkeep.records import Kind

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from etcdkeep.ports import StoredObject
    from etcdkeep.records import Records, Signed
    from etcdkeep.retention.plan import Verdict
    from etcdkeep.sets.backup_set import BackupSet

OURS = re.compile(
    r"manifest\.json(\.sig)?|(etcd\.db|index\.json|access\.tar|control-plane(-[A-Za-z0-9._-]+)?\.tar)\.zst\.age(\.json)?"
    r"|(verification|rehearsal|pins|in-use|copied)/[A-Za-z0-9._-]+\.json"
)
"""Names of objects that a backup or what follows it puts into a set's folder, or into its folder in the spool."""


class Tombstone(Document):
    """
    That a set is removed.

    :param reason: By which rule.
    :param by: Who, or which run.
    :param manifest: The removed manifest, its exact text.
    :param signature: The manifest's, base64.
    :param floor: The verified sets that had been read back before.
    """

    backup_id: str
    reason: str
    by: str
    manifest_sha256: str
    manifest: str
    signature: str
    floor: tuple[str, ...]


TOMBSTONE = Kind("tombstone", "verify", Tombstone)


def is_ours(item: StoredObject) -> bool:
    """Say whether an object of a set's folder has a name of ours; anything else is never touched."""
    return OURS.fullmatch(item.name.split("/", 2)[2]) is not None


class Tombstones:
    """The tombstones of a cluster."""

    def __init__(self, records: Records, cluster: str) -> None:
        self._records = records
        self._cluster = cluster
        self._prefix = naming.removed_prefix(cluster)

    def put(self, found: BackupSet, verdict: Verdict, by: str, floor: Sequence[str]) -> Signed[Tombstone]:
        """Store a set's tombstone; one that an earlier try stored of the same manifest stays the only one."""
        for earlier in self.of(found.backup_id):
            if earlier.body.manifest_sha256 == found.manifest_sha256:
                return earlier
        body = Tombstone(
            backup_id=found.backup_id,
            reason="; ".join(verdict.reasons),
            by=by,
            manifest_sha256=found.manifest_sha256,
            manifest=found.manifest_bytes.decode(),
            signature=base64.b64encode(found.signature).decode(),
            floor=tuple(floor),
        )
        folder = f"{self._prefix}{found.backup_id}/"
        return self._records.append(TOMBSTONE, folder, self._cluster, found.backup_id, body)

    def of(self, identifier: str) -> list[Signed[Tombstone]]:
        """Return the tombstones of a set, oldest first."""
        return self._records.in_folder(TOMBSTONE, f"{self._prefix}{identifier}/", self._cluster, identifier)[0]


def by_set(cluster: str, items: Iterable[StoredObject]) -> Mapping[str, list[StoredObject]]:
    """Group the objects of a cluster by the set in whose folder they lie; the others are left out."""
    groups: defaultdict[str, list[StoredObject]] = defaultdict(list)
    for item in items:
        parts = item.name.split("/", 2)
        if len(parts) == 3 and parts[0] == cluster and naming.is_backup_id(parts[1]):
            groups[parts[1]].append(item)
    return groups


def was_a_set(items: Iterable[StoredObject]) -> bool:
    """Say whether records in a folder are about a published set: each is written after the manifest."""
    return any(item.name.split("/", 2)[2].startswith(("verification/", "rehearsal/", "pins/")) for item in items)


def has_manifest(items: Iterable[StoredObject]) -> bool:
    """Say whether a folder holds a published set."""
    return any(item.name.split("/", 2)[2] == naming.MANIFEST for item in items)
