"""
What etcd keeps about itself in the small buckets of its database.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from etcdkeep.snapshot.record import decode_revision
from etcdkeep.snapshot.tree import Problems, TreeWalk, read_entries

if TYPE_CHECKING:
    from etcdkeep.snapshot.bolt import Image

KEY_BUCKET = b"key"
_META_BUCKET, _CLUSTER_BUCKET, _MEMBERS_BUCKET = b"meta", b"cluster", b"members"
_CONSISTENT_INDEX, _TERM = b"consistent_index", b"term"
_FINISHED_COMPACTION, _SCHEDULED_COMPACTION = b"finishedCompactRev", b"scheduledCompactRev"
_CLUSTER_VERSION, _STORAGE_VERSION = b"clusterVersion", b"storageVersion"
_KEPT = {
    _META_BUCKET: {_CONSISTENT_INDEX, _TERM, _FINISHED_COMPACTION, _SCHEDULED_COMPACTION, _STORAGE_VERSION},
    _CLUSTER_BUCKET: {_CLUSTER_VERSION},
}
_MAX_BYTES = 64
_MAX_MEMBERS = 1000


class Facts:
    """The facts met so far in a walk over the buckets."""

    def __init__(self) -> None:
        self.members: list[str] = []
        self._values: dict[bytes, bytes] = {}

    def add(self, bucket: bytes, key: bytes, value: bytes) -> None:
        """Keep an entry that is of use and has a sane size."""
        if key in _KEPT.get(bucket, ()) and len(value) <= _MAX_BYTES:
            self._values[key] = value
        elif bucket == _MEMBERS_BUCKET and len(key) <= _MAX_BYTES and len(self.members) < _MAX_MEMBERS:
            self.members.append(key.decode(errors="replace"))

    @property
    def consistent_index(self) -> int:
        """Raft index up to which entries are applied; 0 when not recorded."""
        return self._number(_CONSISTENT_INDEX)

    @property
    def term(self) -> int:
        """Raft term of that entry; 0 when not recorded (before etcd 3.5)."""
        return self._number(_TERM)

    @property
    def cluster_version(self) -> str:
        """Such as ``3.5.0``; empty before etcd 3.5."""
        return self._text(_CLUSTER_VERSION)

    @property
    def storage_version(self) -> str:
        """Such as ``3.6.0``; empty before etcd 3.6."""
        return self._text(_STORAGE_VERSION)

    @property
    def compacted_revision(self) -> int:
        """
        The oldest revision whose state can be read.

        A compaction that was begun and not finished counts: some of its records may be gone.
        """
        return max(self._revision(_FINISHED_COMPACTION), self._revision(_SCHEDULED_COMPACTION))

    def _number(self, key: bytes) -> int:
        return int.from_bytes(self._values.get(key, b""), "big")

    def _text(self, key: bytes) -> str:
        return self._values.get(key, b"").decode(errors="replace")

    def _revision(self, key: bytes) -> int:
        try:
            return decode_revision(self._values.get(key, b""))[0]
        except ValueError:
            return 0


def read_facts(image: Image) -> Facts:
    """
    Read the small buckets only.

    :raises SnapshotDamaged: when they cannot be read.
    """
    facts = Facts()
    problems = Problems()
    for name, _, leaves in TreeWalk(image, problems).buckets():
        if name in _KEPT or name == _MEMBERS_BUCKET:
            for entry in read_entries(leaves, problems):
                facts.add(name, entry.key, entry.body[entry.start : entry.end])
    return facts
