"""
The B+trees of a bbolt image: a checking walk over the leaf pages of each bucket.

A branch page holds {pos u32, key size u32, page u64} per child, a leaf page {flags u32, pos u32, key size u32,
value size u32} per entry; `pos` counts from the element itself. bbolt writes the keys and values one behind the other,
in order, right behind the elements: anything else was not written by bbolt. That rule also keeps the work on a
hostile file linear in its length.
"""

from __future__ import annotations

from struct import Struct
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from etcdkeep.errors import SnapshotDamaged
from etcdkeep.snapshot.bolt import BRANCH_PAGE, LEAF_PAGE, PAGE_HEADER

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from etcdkeep.snapshot.bolt import Image

LEAF_ELEMENT = Struct("<IIII")
ELEMENT_BYTES = 16
BRANCH_ELEMENT = Struct("<IIQ")
_HEADER_AND_LEAF_ELEMENT = Struct("<QHHIIIII")
_HEADER_BYTES = PAGE_HEADER.size
_BUCKET_HEADER = Struct("<QQ")
_BUCKET_FLAG = 1
MAX_DEPTH = 64
_MAX_KEY_BYTES = 32768
_MAX_LEAF_BYTES = 128 << 20
_WINDOW_BYTES = 8 << 20

Leaf: TypeAlias = tuple[int, int, int, bytes]
"""
A leaf page: its number, the offset of its body in the file, how many entries, and the body.

The body has 16 bytes per entry, then each key and its value, then what is left of the page.
"""


class LeafEntry(NamedTuple):
    """
    One entry of a bucket.

    :param page: The leaf page that holds it, for messages.
    :param offset: Where `body` begins in the file.
    :param body: Holds the value, from `start` to `end`.
    """

    page: int
    flags: int
    key: bytes
    offset: int
    body: bytes
    start: int
    end: int


class Bucket(NamedTuple):
    """
    A top-level bucket.

    :param root: Its root page; 0 when it is small enough to stand in its parent's page.
    """

    name: bytes
    root: int
    leaves: Iterator[Leaf]


class Problems:
    """
    What a check found.

    :param limit: The walk ends with :class:`SnapshotDamaged` when so many were found. 1 suits a reader, which has no
        use for a damaged snapshot.
    """

    def __init__(self, limit: int = 1) -> None:
        self.found: list[str] = []
        self._limit = limit

    def add(self, problem: str) -> None:
        """:raises SnapshotDamaged: when the limit is reached."""
        self.found.append(problem)
        if len(self.found) >= self._limit:
            raise SnapshotDamaged(problem)


class TreeWalk:
    """
    Visits the pages of the buckets of one file, each at most once.

    :param problems: Takes what is wrong; a damaged page is left out of the walk.
    :param progress: Called with the bytes walked so far, about every 8 MiB.
    """

    def __init__(self, image: Image, problems: Problems, progress: Callable[[int], None] | None = None) -> None:
        self.reached = bytearray(image.page_count)
        """1 for each page that belongs to a bucket walked so far."""
        self._image = image
        self._problems = problems
        self._progress = progress
        self._walked = 0
        self._window_end = _WINDOW_BYTES

    def buckets(self) -> Iterator[Bucket]:
        """Yield the top-level buckets in name order; etcd makes no buckets inside those."""
        roots = self.leaves(self._image.meta.root)
        for page, flags, name, offset, body, start, end in read_entries(roots, self._problems):
            if flags != _BUCKET_FLAG or end - start < _BUCKET_HEADER.size:
                self._problems.add(f"page {page}: {shown(name)} at the top level is not a bucket")
                continue
            root, _ = _BUCKET_HEADER.unpack_from(body, start)
            inline = self._inline_leaf(page, name, offset + start, body[start:end])
            yield Bucket(name, root, self.leaves(root) if root else inline)

    def leaves(self, root: int) -> Iterator[Leaf]:
        """
        Yield the leaf pages of one bucket that hold anything, in key order.

        Keys are checked against the branch keys above them. That they ascend is for the reader of the leaves to check.
        """
        path: list[Iterator[tuple[int, bytes]]] = [iter([(root, b"")])]
        previous: Leaf | None = None
        while path:
            for page, floor in path[-1]:
                opened = self._open(page)
                if opened is None:
                    continue
                flags, count, first_size, start, body = opened
                keys_start = count * ELEMENT_BYTES
                if flags == BRANCH_PAGE:
                    if len(path) > MAX_DEPTH:
                        self._problems.add(f"page {page}: more than {MAX_DEPTH} branch pages above it")
                        continue
                    if previous and floor <= _last_key(previous):
                        self._problems.add(f"page {page}: the branch key {shown(floor)} above it is out of order")
                    path.append(self._children(page, count, body, floor))
                    break
                if not count:
                    if len(path) > 1:
                        self._problems.add(
                            f"page {page}: holds no entry, and bbolt keeps no such page below a branch page"
                        )
                    continue
                if first_size > _MAX_KEY_BYTES or len(body) > _MAX_LEAF_BYTES:
                    self._problems.add(f"page {page}: a first key of {first_size} bytes in {len(body)}")
                    continue
                # Where the two are equal, ascending keys are all that is needed.
                first_key = body[keys_start : keys_start + first_size]
                if first_key != floor and (first_key < floor or (previous and floor <= _last_key(previous))):
                    self._problems.add(f"page {page}: the branch key {shown(floor)} above it is out of order")
                self._walked += len(body)
                if self._walked > self._window_end:
                    self._end_window()
                previous = page, start, count, body
                yield previous
            else:
                path.pop()

    def _open(self, page: int) -> tuple[int, int, int, int, bytes] | None:
        """Return a page's type, number of elements, size of the first leaf key, where its body starts, and the body."""
        image, reached = self._image, self.reached
        if not 2 <= page < image.page_count:
            self._problems.add(f"page {page} is referred to; the file has pages 2 to {image.page_count - 1}")
            return None
        page_size = image.page_size
        offset = page * page_size
        whole = image.read(offset, offset + page_size)
        page_id, flags, count, overflow, _, _, first_size, _ = _HEADER_AND_LEAF_ELEMENT.unpack_from(whole)
        end_page = page + overflow + 1
        start, end = offset + _HEADER_BYTES, end_page * page_size
        problem = ""
        if page_id != page:
            problem = f"says that it is page {page_id}"
        elif flags != LEAF_PAGE and flags != BRANCH_PAGE:
            problem = f"has type {flags:#x}, expected a branch or leaf page"
        elif end_page > image.page_count:
            problem = f"runs over {overflow} more pages, behind the end of the file"
        elif reached[page] or (overflow and reached.find(1, page, end_page) >= 0):
            problem = "is referred to more than once"
        elif start + count * ELEMENT_BYTES > end:
            problem = f"has {count} elements, more than fit"
        elif flags == BRANCH_PAGE and not count:
            problem = "is a branch page without a child"
        if problem:
            self._problems.add(f"page {page} {problem}")
            return None
        if overflow:
            reached[page:end_page] = b"\1" * (overflow + 1)
        else:
            reached[page] = 1
        return flags, count, first_size, start, image.read(start, end) if overflow else whole[_HEADER_BYTES:]

    def _children(self, page: int, count: int, body: bytes, floor: bytes) -> Iterator[tuple[int, bytes]]:
        """Yield the children of a branch page and the least key that each may hold."""
        key_start = count * ELEMENT_BYTES
        element = 0
        for pos, key_size, child in BRANCH_ELEMENT.iter_unpack(body[:key_start]):
            key_end = key_start + key_size
            if element + pos != key_start or key_end > len(body) or key_size > _MAX_KEY_BYTES:
                self._problems.add(f"page {page}: a branch element points to the wrong place")
                return
            key = body[key_start:key_end]
            if key < floor:
                self._problems.add(f"page {page}: the branch key {shown(key)} is out of order")
            yield child, key
            key_start = key_end
            element += ELEMENT_BYTES

    def _inline_leaf(self, page: int, name: bytes, offset: int, bucket: bytes) -> Iterator[Leaf]:
        """Yield the one page of a bucket that is small enough to stand in its parent's value."""
        header = _BUCKET_HEADER.size
        body_start = header + _HEADER_BYTES
        if len(bucket) < body_start:
            self._problems.add(f"page {page}: bucket {shown(name)} has neither a root page nor an inline page")
            return
        page_id, flags, count, overflow = PAGE_HEADER.unpack_from(bucket, header)
        body = bucket[body_start:]
        if page_id or flags != LEAF_PAGE or overflow or count * ELEMENT_BYTES > len(body):
            self._problems.add(f"page {page}: the inline page of bucket {shown(name)} is damaged")
        elif count:
            yield page, offset + body_start, count, body

    def _end_window(self) -> None:
        self._window_end = self._walked + _WINDOW_BYTES
        if self._progress is not None:
            self._progress(self._walked)


def read_entries(leaves: Iterable[Leaf], problems: Problems) -> Iterator[LeafEntry]:
    """Yield the entries of leaf pages that ascend; the rest of a damaged page is left out."""
    last_key = b""
    for page, offset, count, body in leaves:
        element, key_start = 0, count * ELEMENT_BYTES
        for flags, pos, key_size, value_size in LEAF_ELEMENT.iter_unpack(body[:key_start]):
            value_start = key_start + key_size
            value_end = value_start + value_size
            if element + pos != key_start or value_end > len(body):
                problems.add(f"page {page}: a leaf element points to the wrong place")
                break
            key = body[key_start:value_start]
            if key <= last_key:
                problems.add(f"page {page}: key {shown(key)} is out of order")
            yield LeafEntry(page, flags, key, offset, body, value_start, value_end)
            element += ELEMENT_BYTES
            key_start, last_key = value_end, key


def _last_key(leaf: Leaf) -> bytes:
    _, _, count, body = leaf
    element = (count - 1) * ELEMENT_BYTES
    _, pos, key_size, _ = LEAF_ELEMENT.unpack_from(body, element)
    return body[element + pos : element + pos + key_size]


def shown(key: bytes) -> str:
    """A key of any bytes and any length, for a message."""
    text = key[:64].decode(errors="backslashreplace")
    return repr(text) if text.isprintable() else key[:64].hex()
