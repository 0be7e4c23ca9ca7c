"""
An open snapshot file: checking it, and reading the records in it.
"""

from __future__ import annotations

import os
import stat
from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING

from etcdkeep.errors import PermanentError, SnapshotDamaged, SnapshotUnreadable, ValueDamaged
from etcdkeep.snapshot.bolt import Image
from etcdkeep.snapshot.facts import KEY_BUCKET, Facts, read_facts
from etcdkeep.snapshot.file_kind import HEAD_BYTES, name_kind
from etcdkeep.snapshot.live import live_records
from etcdkeep.snapshot.record import Record, decode_record
from etcdkeep.snapshot.report import Progress, SnapshotReport, check_image, find_length_problems
from etcdkeep.snapshot.search import Position, decode_leaf, find_records, leaves_backwards
from etcdkeep.snapshot.tree import Bucket, Leaf, Problems, TreeWalk, read_entries

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_MAX_REVISION = 2**63 - 1


class Snapshot:
    """
    An open snapshot file; usable as long as :func:`open_snapshot`'s block lasts.

    :meth:`check` and :meth:`status` report damage. The other methods read what they are asked for, with or without a
    check before, and raise :class:`~etcdkeep.errors.SnapshotDamaged` when they meet damage on their way.
    """

    def __init__(self, image: Image) -> None:
        self._image = image

    def check(self, *, trailer: bool = True, progress: Progress | None = None) -> SnapshotReport:
        """
        Check everything that can be checked in the file alone, and return it with the facts of the snapshot.

        Reads every page once; damage is reported, never raised.

        :param trailer: False where the caller has compared the SHA-256 of these very bytes already.
        """
        return check_image(self._image, trailer=trailer, progress=progress)

    def status(self, *, progress: Progress | None = None) -> SnapshotReport:
        """
        Do what ``etcdutl snapshot status`` does: the facts, and a check of the pages only.

        Its `problems` do not tell a good snapshot: that takes :meth:`check`. Its `encryption` is empty.
        """
        return check_image(self._image, trailer=False, thorough=False, progress=progress)

    @property
    def size_bytes(self) -> int:
        """Size of the database, without the trailer."""
        return self._image.database_bytes

    def length_problems(self) -> list[str]:
        """Say what is wrong with the file's length, which :meth:`check` counts as damage."""
        return find_length_problems(self._image)

    @property
    def compacted_revision(self) -> int:
        """The oldest revision whose state can be read; 0 when nothing was compacted."""
        return self._facts.compacted_revision

    @cached_property
    def current_revision(self) -> int:
        """The revision that etcd has after a restore of this snapshot."""
        last_leaf = next(self._leaves_backwards(), None)
        last = decode_leaf(last_leaf)[-1].revision if last_leaf else 0
        return max(last, self.compacted_revision, 1)

    def records(self) -> Iterator[Record]:
        """Yield every record, in revision order."""
        for leaf in self._open_key_bucket().leaves:
            yield from decode_leaf(leaf)

    def raw_records(self) -> Iterator[tuple[bytes, bytes]]:
        """Yield every record as it is stored, in revision order: the revision, as bytes, and the rest."""
        for _, _, key, _, body, start, end in read_entries(self._open_key_bucket().leaves, Problems()):
            yield key, body[start:end]

    def live(self, prefix: bytes = b"", revision: int | None = None) -> Iterator[Record]:
        """
        Yield the last record of each key that exists at a revision, the newest record first.

        Holds a hash of each key in memory, and no value.

        :param revision: The current revision when None.
        :raises PermanentError: when the snapshot does not reach there.
        """
        for record, _ in self.live_values(prefix, revision):
            yield record

    def live_values(self, prefix: bytes = b"", revision: int | None = None) -> Iterator[tuple[Record, bytes]]:
        """Yield what :meth:`live` does, each with its value: faster than asking for the values one by one."""
        self._check_reach(revision)
        return live_records(self._leaves_backwards(), prefix, _MAX_REVISION if revision is None else revision)

    def get(self, key: bytes, revision: int | None = None) -> Record | None:
        """
        Return the last record of a key at a revision, None when it does not exist there.

        Searches the file for the key, which is several times faster than a walk.

        :param revision: The current revision when None.
        :raises PermanentError: when the snapshot does not reach there.
        """
        self._check_reach(revision)
        records = [record for record in self.history(key) if revision is None or record.revision <= revision]
        return records[-1] if records and not records[-1].tombstone else None

    def history(self, key: bytes) -> list[Record]:
        """Return the records of a key that the snapshot still has, tombstones too, oldest first."""
        bucket = self._open_key_bucket()
        places = find_records(self._image, bucket.root, key) if bucket.root else None
        if places is None:
            return [record for record in self.records() if record.key == key]
        return [self._read_record(place) for place in places]

    def value(self, record: Record) -> bytes:
        """Copy the value of a record out of the file."""
        return self.value_at(record.value_start, record.value_end - record.value_start)

    def value_at(self, start: int, size_bytes: int) -> bytes:
        """Copy the value that a record has there out of the file."""
        return self._image.read(start, start + size_bytes)

    @cached_property
    def _facts(self) -> Facts:
        return read_facts(self._image)

    def _open_key_bucket(self) -> Bucket:
        for bucket in TreeWalk(self._image, Problems()).buckets():
            if bucket.name == KEY_BUCKET:
                return bucket
        raise SnapshotDamaged("there is no bucket 'key': this is a bbolt file, but not of etcd")

    def _leaves_backwards(self) -> Iterator[Leaf]:
        bucket = self._open_key_bucket()
        return leaves_backwards(self._image, bucket.root) if bucket.root else reversed(list(bucket.leaves))

    def _read_record(self, place: Position) -> Record:
        try:
            value = self._image.read(place.start, place.end)
            return decode_record(place.revision_key, value, 0, len(value), place.start)
        except ValueError as error:
            raise SnapshotDamaged(f"record {place.revision_key.hex()}: {error}") from error

    def _check_reach(self, revision: int | None) -> None:
        if revision is None:
            return
        if not max(self.compacted_revision, 1) <= revision <= self.current_revision:
            raise PermanentError(
                f"the snapshot has no state at revision {revision}: it reaches from revision "
                f"{max(self.compacted_revision, 1)} to {self.current_revision}"
            )


@contextmanager
def open_snapshot(source: Path | str | int) -> Iterator[Snapshot]:
    """
    Open a snapshot for reading, with its SHA-256 trailer or without.

    :param source: A path, or an open file descriptor, which stays open and may be of an unlinked file.
    :raises SnapshotUnreadable: when the file cannot be opened or is no bbolt file; or when it has changed meanwhile.
    :raises SnapshotDamaged: when neither of its meta pages is valid.
    """
    name = repr(str(source))
    try:
        # A pipe that nobody writes to would be waited for without O_NONBLOCK.
        flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK
        descriptor = os.dup(source) if isinstance(source, int) else os.open(source, flags)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise SnapshotUnreadable(f"snapshot {name} cannot be opened: {reason}") from error
    try:
        opened = os.fstat(descriptor)
        _check_kind(descriptor, opened, str(source))
        try:
            yield Snapshot(Image(descriptor, opened.st_size))
        except (SnapshotDamaged, ValueDamaged) as error:
            _check_unchanged(descriptor, opened, name, error)
            raise
        _check_unchanged(descriptor, opened, name)
    finally:
        os.close(descriptor)


def _check_kind(descriptor: int, opened: os.stat_result, name: str) -> None:
    """:raises SnapshotUnreadable: when this is no plain file, or of a kind that is certainly no snapshot."""
    problem = ""
    if stat.S_ISDIR(opened.st_mode):
        problem = "is a folder; the database of an etcd data directory is member/snap/db in it"
    elif not stat.S_ISREG(opened.st_mode):
        problem = "is not a regular file"
    elif not opened.st_size:
        problem = "is empty"
    elif kind := name_kind(os.pread(descriptor, HEAD_BYTES, 0), name):
        problem = f"cannot be read: {kind}"
    if problem:
        raise SnapshotUnreadable(f"snapshot {name!r} {problem}")


def _check_unchanged(descriptor: int, opened: os.stat_result, name: str, error: Exception | None = None) -> None:
    """:raises SnapshotUnreadable: when somebody wrote to the file since it was opened: what was read means nothing."""
    now = os.fstat(descriptor)
    if (now.st_size, now.st_mtime_ns) != (opened.st_size, opened.st_mtime_ns):
        raise SnapshotUnreadable(
            f"snapshot {name} was written to while it was read: it had {opened.st_size} bytes and has {now.st_size}; "
            "what was read of it may be wrong. Copy it first, when nobody writes to it."
        ) from error
