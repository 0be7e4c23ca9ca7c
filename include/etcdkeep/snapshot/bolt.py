"""
The bbolt image inside a snapshot file: its two meta pages and the way to its other pages.

Layout (all little-endian): a page is {id u64, flags u16, count u16, overflow u32} and what follows; pages 0 and 1
are metas {magic u32, version u32, page size u32, flags u32, root page u64, sequence u64, freelist page u64,
pages u64, transaction u64, FNV-1a-64 of all that}. etcd writes the image, then its SHA-256, 32 bytes.
"""

from __future__ import annotations

import mmap
from dataclasses import dataclass
from struct import Struct

from etcdkeep.errors import SnapshotDamaged, SnapshotUnreadable

TRAILER_BYTES = 32
NO_FREELIST = 2**64 - 1
BRANCH_PAGE, LEAF_PAGE, META_PAGE, FREELIST_PAGE = 0x01, 0x02, 0x04, 0x10

PAGE_HEADER = Struct("<QHHI")
_META = Struct("<IIIIQQQQQQ")
_META_AT = PAGE_HEADER.size
_MAGIC, _VERSION = 0xED0CDAED, 2
_PAGE_SIZES = tuple(1024 << shift for shift in range(7))
_WINDOW_BYTES = 8 << 20
_FAULT_AROUND_BYTES = 64 << 10
"""What Linux maps at once around the page that is touched."""
_DROP = getattr(mmap, "MADV_DONTNEED", None)


@dataclass(frozen=True)
class Meta:
    """
    What a valid meta page says.

    :param page_count: Pages of the database, those behind the end of a truncated file included.
    :param freelist: First page of the stored freelist, or :data:`NO_FREELIST`.
    """

    page_size: int
    root: int
    freelist: int
    page_count: int
    transaction: int


class Image:
    """
    The pages of one mapped snapshot file.

    :param data: The whole file; the trailer is there when ``size % 512 == 32``, as etcd itself decides it.
    :raises SnapshotUnreadable: when this is no bbolt file.
    :raises SnapshotDamaged: when it is one and neither meta page is valid.
    """

    def __init__(self, data: mmap.mmap) -> None:
        self.data = data
        self.has_trailer = len(data) % 512 == TRAILER_BYTES
        self.size_bytes = len(data) - TRAILER_BYTES if self.has_trailer else len(data)
        self.meta, self.meta_problems = _read_metas(data)
        self.page_size = self.meta.page_size
        self.page_count = min(self.meta.page_count, self.size_bytes // self.page_size)
        """Whole pages that are in the file: a hostile meta may claim more."""
        self._read_bytes = 0

    def drop_resident_pages(self) -> None:
        """Give the mapped pages back, so that a walk over a large file does not grow the process."""
        if _DROP is not None:
            self.data.madvise(_DROP)

    def read(self, start: int, end: int) -> bytes:
        """Copy some bytes of the file, fewer at its end."""
        self._read_bytes += end - start + _FAULT_AROUND_BYTES
        if self._read_bytes > _WINDOW_BYTES:
            self._read_bytes = 0
            self.drop_resident_pages()
        return self.data[start:end]

    @property
    def database_bytes(self) -> int:
        """Length of the image as the meta page has it: ``totalSize`` of etcdutl."""
        return self.meta.page_count * self.page_size


def _read_metas(data: mmap.mmap) -> tuple[Meta, tuple[str, ...]]:
    """Return the current meta page and what is wrong with the two."""
    first, first_problem = _read_meta(data, 0, 0)
    # Without a valid first meta page nothing says how long a page is.
    sizes = (first.page_size,) if first else _PAGE_SIZES
    attempts = [_read_meta(data, 1, page_size) for page_size in sizes]
    second, second_problem = next((attempt for attempt in attempts if attempt[0]), attempts[0])
    metas = [meta for meta in (first, second) if meta]
    if not metas:
        if data[_META_AT : _META_AT + 4] == _MAGIC.to_bytes(4, "little"):
            raise SnapshotDamaged(f"both meta pages are damaged: {first_problem}; {second_problem}")
        raise SnapshotUnreadable(f"this is no etcd snapshot: {first_problem}")
    current = max(metas, key=lambda meta: meta.transaction)
    return current, tuple(problem for problem in (first_problem, second_problem) if problem)


def _read_meta(data: mmap.mmap, page: int, page_size: int) -> tuple[Meta | None, str]:
    """Return meta page `page`, or None and why."""
    start = page * page_size
    if start + _META_AT + _META.size > len(data):
        return None, f"meta page {page} is behind the end of the file ({len(data)} bytes)"
    page_id, flags, _, _ = PAGE_HEADER.unpack_from(data, start)
    fields = _META.unpack_from(data, start + _META_AT)
    magic, version, own_page_size, _, root, _, freelist, page_count, transaction, checksum = fields
    if magic != _MAGIC:
        return None, f"meta page {page} has no bbolt magic"
    if version != _VERSION:
        return None, f"meta page {page} has version {version}, expected {_VERSION}"
    if checksum != _fnv1a_64(data[start + _META_AT : start + _META_AT + _META.size - 8]):
        return None, f"meta page {page} does not match its checksum"
    if own_page_size not in _PAGE_SIZES or (page and own_page_size != page_size):
        return None, f"meta page {page} gives a page size of {own_page_size} bytes"
    if page_id != page or flags != META_PAGE:
        return None, f"meta page {page} is headed as page {page_id} of type {flags:#x}"
    return Meta(own_page_size, root, freelist, page_count, transaction), ""


def _fnv1a_64(data: bytes) -> int:
    value = 0xCBF29CE484222325
    for byte in data:
        value = (value ^ byte) * 0x100000001B3 & 0xFFFFFFFFFFFFFFFF
    return value
