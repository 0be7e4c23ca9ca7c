"""
Reading records without checking the whole tree: those of one key, and all from the newest to the oldest.

The tree is ordered by revision, so the records of a key may stand anywhere. A plain search for the bytes that begin
such a record finds them all, and also copies in free pages and inside values: what it finds counts only when the tree
leads to that very place.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from etcdkeep.errors import SnapshotDamaged
from etcdkeep.snapshot.bolt import BRANCH_PAGE, LEAF_PAGE, PAGE_HEADER
from etcdkeep.snapshot.record import REVISION_BYTES, decode_record, decode_revision, encode_key_field
from etcdkeep.snapshot.tree import BRANCH_ELEMENT, ELEMENT_BYTES, LEAF_ELEMENT, MAX_DEPTH

if TYPE_CHECKING:
    from collections.abc import Iterator

    from etcdkeep.snapshot.bolt import Image
    from etcdkeep.snapshot.record import Record
    from etcdkeep.snapshot.tree import Leaf

_WINDOW_BYTES = 256 << 10  # stays in the processor's cache between the copy and the search
_MAX_MISSES = 10_000
_COMPARED_BYTES = 32


class Position(NamedTuple):
    """Where the value of a record stands in the file, and under which key of bucket ``key``."""

    revision_key: bytes
    start: int
    end: int


def find_records(image: Image, root: int, key: bytes) -> list[Position] | None:
    """
    Find the records of `key` in bucket ``key``, whose root page is `root`.

    :return: In revision order; None when the key's bytes stand in so many other places that a walk is faster.
    :raises SnapshotDamaged: when a page on the way is damaged.
    """
    found: list[Position] = []
    misses = 0
    for start in _find_all(image, encode_key_field(key)):
        for size in (REVISION_BYTES, REVISION_BYTES + 1):
            revision_key = image.read(max(start - size, 0), start)
            end = _find_value(image, root, revision_key, start)
            if end:
                found.append(Position(revision_key, start, end))
                break
        else:
            misses += 1
            if misses > _MAX_MISSES:
                return None
    return sorted(found)


def leaves_backwards(image: Image, root: int) -> Iterator[Leaf]:
    """
    Yield the leaf pages of a bucket from the last to the first.

    :raises SnapshotDamaged: when a page on the way is damaged.
    """
    reached = bytearray(image.page_count)
    ahead = [root]
    while ahead:
        page = ahead.pop()
        flags, count, elements, body = _open(image, page)
        if reached[page] or len(ahead) > image.page_count:
            raise SnapshotDamaged(f"page {page} is referred to more than once")
        reached[page] = 1
        if flags == BRANCH_PAGE:
            ahead += [child for _, _, child in BRANCH_ELEMENT.iter_unpack(body[: count * ELEMENT_BYTES])]
        elif count:
            yield page, elements, count, body


def decode_leaf(leaf: Leaf) -> list[Record]:
    """
    Decode the records of a leaf page of bucket ``key``.

    :raises SnapshotDamaged: when one is not what etcd writes.
    """
    page, offset, count, body = leaf
    records: list[Record] = []
    element, start = 0, count * ELEMENT_BYTES
    for flags, pos, key_size, value_size in LEAF_ELEMENT.iter_unpack(body[:start]):
        value = start + key_size
        end = value + value_size
        if flags or element + pos != start or end > len(body):
            raise SnapshotDamaged(f"page {page}: a leaf element has the wrong type or place")
        try:
            records.append(decode_record(body[start:value], body, value, end, offset))
        except ValueError as error:
            raise SnapshotDamaged(f"page {page}: record {body[start:value][:18].hex()}: {error}") from error
        element += ELEMENT_BYTES
        start = end
    return records


def _find_all(image: Image, wanted: bytes) -> Iterator[int]:
    for window_start in range(0, image.size_bytes, _WINDOW_BYTES):
        window = image.read_directly(window_start, window_start + _WINDOW_BYTES + len(wanted) - 1)
        at = window.find(wanted)
        while at >= 0:
            yield window_start + at
            at = window.find(wanted, at + 1)


def has_record(image: Image, root: int, revision_key: bytes) -> bool:
    """
    Tell whether bucket ``key``, whose root page is `root`, has this key.

    :raises SnapshotDamaged: when a page on the way is damaged.
    """
    return _locate(image, root, revision_key)[0] == revision_key


def _find_value(image: Image, root: int, revision_key: bytes, start: int) -> int:
    """Return where the value of `revision_key` ends, when the tree has it beginning at `start`; else 0."""
    try:
        decode_revision(revision_key)
    except ValueError:
        return 0
    found, value_start, end = _locate(image, root, revision_key)
    return end if value_start == start and len(found) == len(revision_key) else 0


def _locate(image: Image, root: int, revision_key: bytes) -> tuple[bytes, int, int]:
    """Return the last key that is not behind `revision_key`, and where its value stands; nothing where that is outside."""
    page = root
    for _ in range(MAX_DEPTH):
        flags, count, elements, body = _open(image, page)
        below, above = 0, count
        while below < above:
            middle = (below + above) // 2
            if _key_at(body, flags, middle * ELEMENT_BYTES) <= revision_key:
                below = middle + 1
            else:
                above = middle
        element = max(below - 1, 0) * ELEMENT_BYTES
        if flags == BRANCH_PAGE:
            _, _, page = BRANCH_ELEMENT.unpack_from(body, element)
            continue
        if not count:
            return b"", 0, 0
        _, pos, key_size, value_size = LEAF_ELEMENT.unpack_from(body, element)
        key_end = element + pos + key_size
        if key_end + value_size > len(body):
            return b"", 0, 0
        return body[key_end - key_size : key_end], elements + key_end, elements + key_end + value_size
    raise SnapshotDamaged(f"page {root}: more than {MAX_DEPTH} branch pages below it")


def _key_at(body: bytes, flags: int, element: int) -> bytes:
    if flags == BRANCH_PAGE:
        pos, size, _ = BRANCH_ELEMENT.unpack_from(body, element)
    else:
        _, pos, size, _ = LEAF_ELEMENT.unpack_from(body, element)
    return body[element + pos : element + pos + min(size, _COMPARED_BYTES)]


def _open(image: Image, page: int) -> tuple[int, int, int, bytes]:
    """Return the type of a page, its number of elements, where they start, and what the page holds from there."""
    if not 2 <= page < image.page_count:
        raise SnapshotDamaged(f"page {page} is referred to; the file has pages 2 to {image.page_count - 1}")
    start = page * image.page_size
    whole = image.read(start, start + image.page_size)
    page_id, flags, count, overflow = PAGE_HEADER.unpack_from(whole)
    elements = start + PAGE_HEADER.size
    end = (page + overflow + 1) * image.page_size
    fits = elements + count * ELEMENT_BYTES <= end <= image.size_bytes
    if page_id != page or not fits or flags not in (BRANCH_PAGE, LEAF_PAGE) or (flags == BRANCH_PAGE and not count):
        raise SnapshotDamaged(f"page {page} is headed as page {page_id} of type {flags:#x} with {count} elements")
    return flags, count, elements, image.read(elements, end) if overflow else whole[PAGE_HEADER.size :]
