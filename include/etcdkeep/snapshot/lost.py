"""
Records that the tree has lost: what the free pages of an etcd database still hold, and should hold no more.

etcd writes no freelist, so a tree that was exchanged for a smaller one looks whole. But a record of bucket ``key`` never
changes, and only a compaction removes it: one from between the compacted and the last revision that stands in a free
page must stand in the tree too. It is a hint, not a proof: whoever may write values can lay out bytes like a page.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from etcdkeep.snapshot.bolt import LEAF_PAGE, PAGE_HEADER
from etcdkeep.snapshot.record import REVISION_BYTES, decode_revision
from etcdkeep.snapshot.search import has_record
from etcdkeep.snapshot.tree import LEAF_ELEMENT

if TYPE_CHECKING:
    from etcdkeep.snapshot.bolt import Image

MAX_PAGES = 4096
"""How many free pages are looked at, spread over the file: each costs a read and a search."""

NO_RECORD = b"", -1


def find_lost_records(image: Image, root: int, reached: bytearray, compacted: int, last: int) -> str:
    """
    Look for records in free pages that the tree should have.

    :param root: The root page of bucket ``key``.
    :param reached: 1 for each page in use.
    :param compacted: The oldest revision whose state can be read.
    :param last: The last revision in the tree.
    :return: A sentence; empty when none was found.
    """
    free = [page for page in range(2, image.page_count) if not reached[page]]
    looked_at = free[:: max(1, len(free) // MAX_PAGES)]
    lost = []
    for page in looked_at:
        key, revision = _first_record(image, page)
        if compacted < revision <= last and not has_record(image, root, key):
            lost.append(revision)
    if not lost:
        return ""
    return (
        f"{len(lost)} of {len(looked_at)} free pages hold records that no compaction removed and the database does not have, "
        f"such as revision {max(lost)}: compare it with another snapshot before you trust it"
    )


def _first_record(image: Image, page: int) -> tuple[bytes, int]:
    """Return the first key of a leaf page of bucket ``key`` and its revision; that of no record for any other page."""
    start = page * image.page_size
    body = image.read(start, start + image.page_size)
    page_id, flags, count, _ = PAGE_HEADER.unpack_from(body)
    if page_id != page or flags != LEAF_PAGE or not count:
        return NO_RECORD
    flags, pos, size, _ = LEAF_ELEMENT.unpack_from(body, PAGE_HEADER.size)
    at = PAGE_HEADER.size + pos
    if flags or not REVISION_BYTES <= size <= REVISION_BYTES + 1 or at + size > len(body):
        return NO_RECORD
    key = body[at : at + size]
    try:
        return key, decode_revision(key)[0]
    except ValueError:
        return NO_RECORD
