"""
The bbolt image inside a snapshot file: its two meta pages and the way to its other pages.

Layout (all little-endian): a page is {id u64, flags u16, count u16, overflow u32} and what follows; pages 0 and 1
are metas {magic u32, version u32, page size u32, flags u32, root page u64, sequence u64, freelist page u64,
pages u64, transaction u64, FNV-1a-64 of all that}. etcd writes the image, then its SHA-256, 32 bytes.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from struct import Struct
from typing import Any

from etcdkeep.errors import SnapshotDamaged, SnapshotUnreadable

TRAILER_BYTES = 32
NO_FREELIST = 2**64 - 1
BRANCH_PAGE, LEAF_PAGE, META_PAGE, FREELIST_PAGE = 0x01, 0x02, 0x04, 0x10

PAGE_HEADER = Struct("<QHHI")
_META = Struct("<IIIIQQQQQQ")
_META_AT = PAGE_HEADER.size
_MAGIC, _VERSION = 0xED0CDAED, 2
_PAGE_SIZES = tuple(1024 << shift for shift in range(7))
_UNIT_BYTES = 4096
_READ_AHEAD_BYTES = 64 << 10


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
    The pages of one open snapshot file.

    The file is read and not mapped: a mapped one that somebody cuts short would end the process with SIGBUS.

    :param descriptor: Of the open file; its position does not matter.
    :param length: Of the file; the trailer is there when ``length % 512 == 32``, as etcd itself decides it.
    :raises SnapshotUnreadable: when this is no bbolt file.
    :raises SnapshotDamaged: when it is one and neither meta page is valid.
    """

    def __init__(self, descriptor: int, length: int) -> None:
        self._descriptor = descriptor
        self.length = length
        self.has_trailer = length % 512 == TRAILER_BYTES
        self.size_bytes = length - TRAILER_BYTES if self.has_trailer else length
        self._buffer, self._buffer_start, self._buffer_end = b"", 0, 0
        self.meta, self.meta_problems = _read_metas(self.read(0, 2 * _PAGE_SIZES[-1]))
        self.page_size = self.meta.page_size
        self.page_count = min(self.meta.page_count, self.size_bytes // self.page_size)
        """Whole pages that are in the file: a hostile meta may claim more."""

    def read(self, start: int, end: int) -> bytes:
        """
        Return some bytes of the file, fewer at its end. For one thread.

        :raises SnapshotUnreadable: when the file has become shorter, or cannot be read.
        """
        buffer_start = self._buffer_start
        if start < buffer_start or end > self._buffer_end:
            if end - start > _READ_AHEAD_BYTES:
                return self.read_directly(start, end)
            self._fill(start, end)
            buffer_start = self._buffer_start
        return self._buffer[start - buffer_start : end - buffer_start]

    def read_directly(self, start: int, end: int) -> bytes:
        """Return some bytes of the file as :meth:`read` does, for any thread."""
        end = min(end, self.length)
        try:
            data = os.pread(self._descriptor, end - start, start) if end > start else b""
            while 0 < len(data) < end - start:
                more = os.pread(self._descriptor, end - start - len(data), start + len(data))
                if not more:
                    break
                data += more
        except OSError as err:
            raise SnapshotUnreadable(f"the file cannot be read at byte {start}: {err.strerror}") from err
        if len(data) < end - start:
            raise SnapshotUnreadable(
                f"the file became shorter while it was read: it had {self.length} bytes, and ends before byte {end} now. "
                "Copy it first, when nobody writes to it."
            )
        return data

    def unpack(self, form: Struct, at: int) -> tuple[Any, ...]:
        """Return the fields of a structure."""
        return form.unpack(self.read(at, at + form.size))

    def _fill(self, start: int, end: int) -> None:
        """Read some bytes, with what lies ahead where reading goes on in one direction."""
        first, last = start & -_UNIT_BYTES, -(-end // _UNIT_BYTES) * _UNIT_BYTES
        if 0 <= first - self._buffer_end < _READ_AHEAD_BYTES:
            last = max(last, first + _READ_AHEAD_BYTES)
        elif 0 <= self._buffer_start - last < _READ_AHEAD_BYTES:
            first = max(min(first, last - _READ_AHEAD_BYTES), 0)
        last = min(last, self.length)
        self._buffer = self.read_directly(first, last)
        # Behind the file's end there is nothing to be had: to ask for more of it needs no other look.
        self._buffer_start, self._buffer_end = first, max(last, end) if last == self.length else last

    @property
    def database_bytes(self) -> int:
        """Length of the image as the meta page has it: ``totalSize`` of etcdutl."""
        return self.meta.page_count * self.page_size


def _read_metas(data: bytes) -> tuple[Meta, tuple[str, ...]]:
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
        raise SnapshotUnreadable(f"this is not an etcd snapshot: {first_problem}")
    current = max(metas, key=lambda meta: meta.transaction)
    return current, tuple(problem for problem in (first_problem, second_problem) if problem)


def _read_meta(data: bytes, page: int, page_size: int) -> tuple[Meta | None, str]:
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
