"""
The full check of a snapshot and the facts that etcdutl would give of it, in one pass over the pages.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import google_crc32c

from etcdkeep.errors import SnapshotDamaged
from etcdkeep.snapshot.bolt import TRAILER_BYTES, Image
from etcdkeep.snapshot.facts import KEY_BUCKET, Facts
from etcdkeep.snapshot.freelist import check_freelist
from etcdkeep.snapshot.lost import find_lost_records
from etcdkeep.snapshot.scan import EncryptionUse, RecordScan
from etcdkeep.snapshot.tree import Leaf, Problems, TreeWalk, read_entries, shown

_PROBLEM_LIMIT = 100
_HASH_WINDOW_BYTES = 1 << 20

Progress = Callable[[int, int], None]
"""Called now and then with bytes done and bytes in all."""


@dataclass(frozen=True)
class SnapshotReport:
    """
    What a snapshot is and what is wrong with it. Facts that damage made unknowable are None.

    :param hash: CRC-32C over all buckets, as ``etcdutl snapshot status`` gives it.
    :param revision: Main revision of the last record, as etcdutl gives it.
    :param current_revision: The revision that etcd has after a restore: `revision`, or a compaction beyond it.
    :param compacted_revision: The oldest revision whose state the snapshot still holds.
    :param total_keys: ``totalKey`` of etcdutl up to 3.5: every record of every bucket.
    :param live_keys: ``totalKey`` of etcdutl from 3.6: keys that are not deleted at the last revision.
    :param size_bytes: ``totalSize`` of etcdutl: the database without the trailer.
    :param consistent_index: Raft index up to which entries are applied; 0 when not recorded, as is `term`.
    :param cluster_version: Empty before etcd 3.5.
    :param storage_version: Empty before etcd 3.6.
    :param members: Hexadecimal ids of the cluster's members.
    :param encryption: How values, live or historical, are encrypted at rest.
    :param problems: One sentence each; empty for a sound snapshot.
    :param hints: What somebody should look at, although it proves no damage.
    """

    hash: int | None
    revision: int | None
    current_revision: int | None
    compacted_revision: int
    total_keys: int | None
    live_keys: int | None
    size_bytes: int
    page_size: int
    consistent_index: int
    term: int
    cluster_version: str
    storage_version: str
    members: tuple[str, ...]
    encryption: frozenset[EncryptionUse]
    problems: tuple[str, ...]
    hints: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether the snapshot is sound."""
        return not self.problems

    def to_json(self) -> dict[str, Any]:
        """The object that ``etcdkeep status --json`` prints; its keys are fixed."""
        names = ("hash", "revision", "total_keys", "live_keys", "size_bytes", "page_size", "ok")
        return {name: getattr(self, name) for name in names} | {"problems": list(self.problems)}


def check_image(
    image: Image, *, trailer: bool = True, thorough: bool = True, progress: Progress | None = None
) -> SnapshotReport:
    """
    Check what can be checked in the file alone.

    :param thorough: False checks what ``etcdutl snapshot status`` does, pages and their order, and no field of a record.
    :param trailer: False where the caller has compared the SHA-256 of these very bytes already.
    """
    with ThreadPoolExecutor(1) as executor:
        trailer_problems = executor.submit(find_trailer_problems, image) if trailer else None
        buckets = _BucketCheck(image, progress, thorough=thorough)
        is_whole = buckets.run()
        problems = [*image.meta_problems, *find_length_problems(image), *buckets.problems.found]
        if trailer_problems is not None:
            problems += trailer_problems.result()
    if progress is not None:
        progress(image.size_bytes, image.size_bytes)
    facts, records = buckets.facts, buckets.records
    return SnapshotReport(
        hash=buckets.crc if is_whole else None,
        revision=records.revision if is_whole else None,
        current_revision=max(records.revision, facts.compacted_revision, 1) if is_whole else None,
        compacted_revision=facts.compacted_revision,
        total_keys=buckets.total_keys if is_whole else None,
        live_keys=records.live_keys if is_whole else None,
        size_bytes=image.database_bytes,
        page_size=image.page_size,
        consistent_index=facts.consistent_index,
        term=facts.term,
        cluster_version=facts.cluster_version,
        storage_version=facts.storage_version,
        members=tuple(facts.members),
        encryption=frozenset(records.encryption),
        problems=tuple(problems),
        hints=buckets.hints(),
    )


def find_length_problems(image: Image) -> list[str]:
    """Compare the length of the file with the one that its meta page gives."""
    expected = image.database_bytes
    if not image.has_trailer:
        return [
            f"the file has {image.size_bytes} bytes and no SHA-256 trailer, expected {expected} + {TRAILER_BYTES}: "
            "it is cut off, or not what 'etcdctl snapshot save' wrote"
        ]
    if image.size_bytes != expected:
        return [f"the database has {image.size_bytes} bytes without its trailer, its meta page says {expected}"]
    return []


def find_trailer_problems(image: Image) -> list[str]:
    """Compare the SHA-256 trailer, where there is one, with the bytes before it."""
    if not image.has_trailer:
        return []
    digest = hashlib.sha256()
    for start in range(0, image.size_bytes, _HASH_WINDOW_BYTES):
        digest.update(image.read_directly(start, min(start + _HASH_WINDOW_BYTES, image.size_bytes)))
    recorded = image.read_directly(image.size_bytes, image.length)
    if digest.digest() == recorded:
        return []
    return [f"SHA-256 of the database is {digest.hexdigest()}, the trailer says {recorded.hex()}"]


class _BucketCheck:
    """The walk over all buckets and the freelist, and what it finds."""

    def __init__(self, image: Image, progress: Progress | None, *, thorough: bool) -> None:
        self.problems = Problems(_PROBLEM_LIMIT)
        self.facts = Facts()
        self.records = RecordScan(thorough=thorough)
        self.crc = 0
        self.total_keys = 0
        self._image = image
        self._progress = progress
        self._thorough = thorough
        self._key_root = 0
        self._reached = bytearray()

    def run(self) -> bool:
        """Walk everything; return whether all of it could be read, so that the sums are right."""
        walk = TreeWalk(self._image, self.problems, self._report_progress)
        try:
            self._add_buckets(walk)
            is_whole = not self.problems.found
            self._reached = walk.reached
            if is_whole:
                check_freelist(self._image, walk.reached, self.problems)
        except SnapshotDamaged:
            self.problems.found.append(f"the check ended after {_PROBLEM_LIMIT} problems")
            return False
        return is_whole

    def hints(self) -> tuple[str, ...]:
        """Return what a sound snapshot makes one wonder about."""
        if self.problems.found or not self._thorough or not self._key_root:
            return ()
        compacted, last = self.facts.compacted_revision, self.records.revision
        lost = find_lost_records(self._image, self._key_root, self._reached, compacted, last)
        return (lost,) if lost else ()

    def _add_buckets(self, walk: TreeWalk) -> None:
        names = set()
        for name, root, leaves in walk.buckets():
            names.add(name)
            self.crc = google_crc32c.extend(self.crc, name)
            if name == KEY_BUCKET:
                self._key_root = root
                self.crc = self.records.add(leaves, self.problems, self.crc)
                self.total_keys += self.records.count
            else:
                self._add_small_bucket(name, leaves)
        # The bucket of a damaged file may be on a page that cannot be read.
        if KEY_BUCKET not in names and not self.problems.found:
            self.problems.add("there is no bucket 'key': this is a bbolt file, but not of etcd")

    def _add_small_bucket(self, name: bytes, leaves: Iterator[Leaf]) -> None:
        for page, flags, key, _, body, start, end in read_entries(leaves, self.problems):
            if flags:
                self.problems.add(f"page {page}: bucket {shown(name)} holds an entry of type {flags}")
            value = body[start:end]
            self.crc = google_crc32c.extend(google_crc32c.extend(self.crc, key), value)
            self.facts.add(name, key, value)
            self.total_keys += 1

    def _report_progress(self, walked_bytes: int) -> None:
        if self._progress is not None:
            self._progress(min(walked_bytes, self._image.size_bytes), self._image.size_bytes)
