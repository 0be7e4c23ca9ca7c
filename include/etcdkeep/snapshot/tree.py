"""
The B+trees of a bbolt image: a checking walk over the leaves of a bucket, and a search for one key.

A branch page holds {pos u32, key size u32, page u64} per child, a leaf page {flags u32, pos u32, key size u32,
value size u32} per entry; `pos` counts from the element itself. bbolt writes the keys and values one behind the other,
in order, right behind the elements: anything else was not written by bbolt. That rule also keeps the work on a
hostile file linear in its length.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from struct import Struct
from typing import NamedTuple

from etcdkeep.errors import SnapshotDamaged
from etcdkeep.snapshot.bolt import BRANCH_PAGE, LEAF_PAGE, PAGE_HEADER, Image

LEAF_ELEMENT = Struct("<IIII")
ELEMENT_BYTES = 16
_BRANCH_ELEMENT = Struct("<IIQ")
_read_header = PAGE_HEADER.unpack_from
_HEADER_BYTES = PAGE_HEADER.size
_BUCKET_HEADER = Struct("<QQ")
_BUCKET_FLAG = 1
_MAX_DEPTH = 64
_MAX_KEY_BYTES = 32768
_MAX_LEAF_BYTES = 128 << 20
_WINDOW_BYTES = 16 << 20


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


class Leaf(NamedTuple):
    """
    The entries of one leaf page.

    :param page: Its number, for messages.
    :param offset: Where `span` begins in the file.
    :param span: Every key and value of the page, one behind the other.
    :param elements: The leaf elements, 16 bytes each.
    """

    page: int
    offset: int
    span: bytes
    elements: bytes


class Entry(NamedTuple):
    """One key and where its value stands in the leaf's span."""

    flags: int
    key: bytes
    value_start: int
    value_end: int


class TreeWalk:
    """
    Visits the pages of the buckets of one file, each at most once.

    :param problems: Takes what is wrong; a damaged page is left out of the walk.
    :param progress: Called with the bytes walked so far, about every 16 MiB.
    """

    def __init__(self, image: Image, problems: Problems, progress: Callable[[int], None] | None = None) -> None:
        self.reached = bytearray(image.page_count)
        """1 for each page that belongs to a bucket walked so far."""
        self._image = image
        self._problems = problems
        self._progress = progress
        self._walked = 0
        self._window_end = _WINDOW_BYTES

    def buckets(self) -> Iterator[tuple[bytes, Iterator[Leaf]]]:
        """Yield each top-level bucket, in name order, and its leaf pages; etcd knows no buckets inside those."""
        for leaf in self.leaves(self._image.meta.root):
            for flags, name, value_start, value_end in self.entries(leaf):
                if flags != _BUCKET_FLAG or value_end - value_start < _BUCKET_HEADER.size:
                    self._problems.add(f"page {leaf.page}: {name!r} at the top level is no bucket")
                    continue
                root, _ = _BUCKET_HEADER.unpack_from(leaf.span, value_start)
                if root:
                    yield name, self.leaves(root)
                else:
                    yield name, self._inline_leaf(leaf, name, value_start, value_end)

    def leaves(self, root: int) -> Iterator[Leaf]:
        """
        Yield the leaf pages of one bucket that hold anything, in key order.

        The order is checked from page to page and against the branch keys above; :meth:`entries` checks it inside.
        """
        data, read_element = self._image.data, LEAF_ELEMENT.unpack_from
        path: list[Iterator[tuple[int, bytes]]] = [iter([(root, b"")])]
        last_key = b""
        while path:
            for page, floor in path[-1]:
                if floor <= last_key and len(path) > 1:
                    self._problems.add(f"page {page}: the branch key {_shown(floor)} above it is out of order")
                opened = self._open(page)
                if opened is None:
                    continue
                flags, start, span_start, end = opened
                if flags == BRANCH_PAGE:
                    if len(path) > _MAX_DEPTH:
                        self._problems.add(f"page {page}: more than {_MAX_DEPTH} branch pages above it")
                        continue
                    path.append(self._children(page, start, span_start, end, floor))
                    break
                if start == span_start:
                    continue
                _, pos, first_size, _ = read_element(data, start)
                last = span_start - ELEMENT_BYTES
                _, last_pos, last_size, value_size = read_element(data, last)
                last_key_start = last + last_pos
                last_key_end = last_key_start + last_size
                span_end = last_key_end + value_size
                if (
                    start + pos != span_start
                    or last_key_start < span_start
                    or span_start + first_size > span_end
                    or span_end > end
                    or span_end - span_start > _MAX_LEAF_BYTES
                ):
                    self._problems.add(f"page {page}: a leaf element points to the wrong place")
                    continue
                first_key = data[span_start : span_start + first_size]
                if first_key < floor or first_key <= last_key:
                    self._problems.add(f"page {page}: the first key {_shown(first_key)} is out of order")
                last_key = data[last_key_start:last_key_end]
                self._walked += span_end - start
                if self._walked > self._window_end:
                    self._end_window()
                yield Leaf(page, span_start, data[span_start:span_end], data[start:span_start])
            else:
                path.pop()

    def entries(self, leaf: Leaf) -> Iterator[Entry]:
        """Yield the entries of a leaf, in order; the rest of a damaged leaf is left out."""
        key_start, last_key = 0, b""
        before_span = len(leaf.elements)
        for flags, pos, key_size, value_size in LEAF_ELEMENT.iter_unpack(leaf.elements):
            value_start = key_start + key_size
            value_end = value_start + value_size
            if pos != before_span + key_start or value_end > len(leaf.span):
                self._problems.add(f"page {leaf.page}: a leaf element points to the wrong place")
                return
            key = leaf.span[key_start:value_start]
            if key <= last_key:
                self._problems.add(f"page {leaf.page}: key {_shown(key)} is out of order")
            yield Entry(flags, key, value_start, value_end)
            before_span -= ELEMENT_BYTES
            key_start, last_key = value_end, key
        if key_start != len(leaf.span):
            self._problems.add(f"page {leaf.page}: {len(leaf.span) - key_start} bytes behind the last value")

    def _open(self, page: int) -> tuple[int, int, int, int] | None:
        """Return the type of a page, where its elements start, where they end, and where the page ends."""
        image, reached = self._image, self.reached
        if not 2 <= page < image.page_count:
            self._problems.add(f"page {page} is referred to; the file has pages 2 to {image.page_count - 1}")
            return None
        page_size = image.page_size
        offset = page * page_size
        page_id, flags, count, overflow = _read_header(image.data, offset)
        start = offset + _HEADER_BYTES
        elements_end = start + count * ELEMENT_BYTES
        end_page = page + overflow + 1
        end = end_page * page_size
        problem = ""
        if page_id != page:
            problem = f"says that it is page {page_id}"
        elif flags != LEAF_PAGE and flags != BRANCH_PAGE:
            problem = f"has type {flags:#x}, expected a branch or leaf page"
        elif end_page > image.page_count:
            problem = f"runs over {overflow} more pages, behind the end of the file"
        elif reached[page] or (overflow and reached.find(1, page, end_page) >= 0):
            problem = "is referred to more than once"
        elif elements_end > end:
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
        return flags, start, elements_end, end

    def _children(self, page: int, start: int, key_start: int, end: int, floor: bytes) -> Iterator[tuple[int, bytes]]:
        """Yield the children of a branch page and the least key that each may hold."""
        data, read_element = self._image.data, _BRANCH_ELEMENT.unpack_from
        for element in range(start, key_start, ELEMENT_BYTES):
            pos, key_size, child = read_element(data, element)
            key_end = key_start + key_size
            if element + pos != key_start or key_end > end or key_size > _MAX_KEY_BYTES:
                self._problems.add(f"page {page}: a branch element points to the wrong place")
                return
            key = data[key_start:key_end]
            if key < floor:
                self._problems.add(f"page {page}: the branch key {_shown(key)} is out of order")
            yield child, key
            key_start = key_end

    def _end_window(self) -> None:
        self._window_end = self._walked + _WINDOW_BYTES
        self._image.drop_resident_pages()
        if self._progress is not None:
            self._progress(self._walked)

    def _inline_leaf(self, leaf: Leaf, name: bytes, value_start: int, value_end: int) -> Iterator[Leaf]:
        """Yield the one page of a bucket that is small enough to stand in its parent's value."""
        header = value_start + _BUCKET_HEADER.size
        start = header + PAGE_HEADER.size
        if start > value_end:
            self._problems.add(f"page {leaf.page}: bucket {name!r} has neither a root page nor an inline page")
            return
        page_id, flags, count, overflow = PAGE_HEADER.unpack_from(leaf.span, header)
        span_start = start + count * ELEMENT_BYTES
        if page_id or flags != LEAF_PAGE or overflow or span_start > value_end:
            self._problems.add(f"page {leaf.page}: the inline page of bucket {name!r} is damaged")
            return
        if count:
            span = leaf.span[span_start:value_end]
            yield Leaf(leaf.page, leaf.offset + span_start, span, leaf.span[start:span_start])


def _shown(key: bytes) -> str:
    """A key for a message: any bytes, any length."""
    return key[:64].hex() or "(empty)"
