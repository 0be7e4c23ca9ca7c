"""
Snapshot files made without etcd: sound ones of every shape that bbolt can give them, and damaged ones.

:func:`make_snapshot` writes an image and seals it with its SHA-256. :class:`Edit` changes one, by fields, and seals it
again, so that only the check of the structure can see the damage. :data:`DAMAGES` names every kind of damage.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from etcdkeep.snapshot.bolt import BRANCH_PAGE, FREELIST_PAGE, LEAF_PAGE, META_PAGE, NO_FREELIST, PAGE_HEADER
from etcdkeep.snapshot.record import encode_key_field, encode_varint

Entries = list[tuple[bytes, bytes]]
Buckets = dict[bytes, Entries]

_LEAF_ELEMENT = struct.Struct("<IIII")
_BRANCH_ELEMENT = struct.Struct("<IIQ")
_META = struct.Struct("<IIIIQQQQQ")
_META_NAMES = ("magic", "version", "page_size", "flags", "root", "sequence", "freelist", "page_count", "transaction")
HEADER_BYTES = PAGE_HEADER.size
ELEMENT_BYTES = 16


@dataclass(frozen=True)
class Put:
    """One put of a key; `create` and `version` as if it were the first when not given."""

    key: bytes
    value: bytes
    create: int | None = None
    version: int = 1
    lease: int = 0


@dataclass(frozen=True)
class Delete:
    """One delete of a key."""

    key: bytes


@dataclass(frozen=True)
class Bump:
    """What ``etcdutl snapshot restore --bump-revision`` leaves: an empty record so many revisions later."""

    by: int


Change = Put | Delete | Bump


def revision_key(main: int, sub: int = 0, *, tombstone: bool = False) -> bytes:
    """A key of bucket ``key``."""
    return struct.pack(">QcQ", main, b"_", sub) + (b"t" if tombstone else b"")


def record_value(put: Put, main: int) -> bytes:
    """What etcd stores for a put."""
    value = encode_key_field(put.key)
    value += b"\x10" + encode_varint(main if put.create is None else put.create)
    value += b"\x18" + encode_varint(main) + b"\x20" + encode_varint(put.version)
    if put.value:
        value += b"\x2a" + encode_varint(len(put.value)) + put.value
    if put.lease:
        value += b"\x30" + encode_varint(put.lease)
    return value


def make_records(changes: Iterable[Change | Sequence[Change]], first_revision: int = 2) -> Entries:
    """The entries of bucket ``key`` after these transactions, one main revision each."""
    records: Entries = []
    main = first_revision - 1
    for transaction in changes:
        main += 1
        for sub, change in enumerate(transaction if isinstance(transaction, Sequence) else (transaction,)):
            if isinstance(change, Put):
                records.append((revision_key(main, sub), record_value(change, main)))
            elif isinstance(change, Delete):
                records.append((revision_key(main, sub, tombstone=True), encode_key_field(change.key)))
            else:
                main += change.by - 1
                records.append((revision_key(main), b""))
    return records


def etcd_buckets(records: Entries, *, compacted: int = 0, scheduled: int = 0) -> Buckets:
    """The buckets that etcd 3.5 keeps, around these records."""
    meta = {b"consistent_index": struct.pack(">Q", 42), b"term": struct.pack(">Q", 3), b"confState": b'{"voters":[1]}'}
    if compacted:
        meta[b"finishedCompactRev"] = revision_key(compacted)
    if scheduled:
        meta[b"scheduledCompactRev"] = revision_key(scheduled)
    empty = (b"alarm", b"auth", b"authRoles", b"authUsers", b"lease", b"members_removed")
    return {name: [] for name in empty} | {
        b"cluster": [(b"clusterVersion", b"3.5.0")],
        b"key": records,
        b"members": [(b"8e9e05c52164694d", b'{"id":10276657743932975437,"name":"cp-0"}')],
        b"meta": sorted(meta.items()),
    }


def seal(image: bytes) -> bytes:
    """The image and its SHA-256, as etcd writes them."""
    return image + hashlib.sha256(image).digest()


def make_snapshot(
    records: Entries | None = None,
    *,
    buckets: Buckets | None = None,
    page_size: int = 4096,
    stored_freelist: bool = False,
    free_pages: int = 0,
    fanout: int = 100,
    inline: bool = True,
) -> bytes:
    """
    Write a snapshot.

    :param records: Of bucket ``key``; the other buckets are those of :func:`etcd_buckets`.
    :param buckets: All buckets, instead.
    :param free_pages: So many pages of old bytes that no bucket uses.
    :param fanout: Most entries of a page; small numbers make deep trees.
    :param inline: Whether small buckets stand in their parent's page.
    """
    writer = _Writer(page_size, fanout)
    writer.add_free_pages(free_pages)
    if buckets is None:
        buckets = etcd_buckets(records or [])
    roots = [(name, writer.bucket(entries, inline=inline)) for name, entries in sorted(buckets.items())]
    root = writer.tree(roots, flags=1)
    freelist = writer.freelist() if stored_freelist else NO_FREELIST
    return seal(writer.image(root, freelist))


class _Writer:
    """Lays pages one behind the other, children before parents."""

    def __init__(self, page_size: int, fanout: int) -> None:
        self._page_size = page_size
        self._fanout = fanout
        self._pages: list[bytes] = []
        self._free: list[int] = []
        self._next = 2

    def add_free_pages(self, count: int) -> None:
        for _ in range(count):
            self._free.append(self._place(LEAF_PAGE, 1, b"old bytes"))

    def bucket(self, entries: Entries, *, inline: bool) -> bytes:
        body = _leaf_body(entries, 0)
        if inline and HEADER_BYTES + len(body) <= self._page_size // 4:
            return struct.pack("<QQ", 0, 0) + PAGE_HEADER.pack(0, LEAF_PAGE, len(entries), 0) + body
        return struct.pack("<QQ", self.tree(entries), 0)

    def tree(self, entries: Entries, flags: int = 0) -> int:
        level = [
            (chunk[0][0] if chunk else b"", self._place(LEAF_PAGE, len(chunk), _leaf_body(chunk, flags)))
            for chunk in self._chunks(entries)
        ]
        while len(level) > 1:
            parts = [level[start : start + self._fanout] for start in range(0, len(level), self._fanout)]
            level = [(part[0][0], self._place(BRANCH_PAGE, len(part), _branch_body(part))) for part in parts]
        return level[0][1]

    def freelist(self) -> int:
        numbers = b"".join(struct.pack("<Q", page) for page in self._free)
        if len(self._free) < 0xFFFF:
            return self._place(FREELIST_PAGE, len(self._free), numbers)
        return self._place(FREELIST_PAGE, 0xFFFF, struct.pack("<Q", len(self._free)) + numbers)

    def image(self, root: int, freelist: int) -> bytes:
        metas = (meta_page(number, self._page_size, root, freelist, self._next, 100 - number) for number in (0, 1))
        return b"".join((*metas, *self._pages))

    def _chunks(self, entries: Entries) -> list[Entries]:
        chunks: list[Entries] = [[]]
        size = HEADER_BYTES
        for key, value in entries:
            entry_size = ELEMENT_BYTES + len(key) + len(value)
            if chunks[-1] and (len(chunks[-1]) == self._fanout or size + entry_size > self._page_size):
                chunks.append([])
                size = HEADER_BYTES
            chunks[-1].append((key, value))
            size += entry_size
        return chunks

    def _place(self, flags: int, count: int, body: bytes) -> int:
        page = self._next
        pages = -(-(HEADER_BYTES + len(body)) // self._page_size)
        header = PAGE_HEADER.pack(page, flags, count, pages - 1)
        self._pages.append((header + body).ljust(pages * self._page_size, b"\0"))
        self._next += pages
        return page


def _leaf_body(entries: Entries, flags: int) -> bytes:
    elements, data = b"", b""
    for index, (key, value) in enumerate(entries):
        pos = (len(entries) - index) * ELEMENT_BYTES + len(data)
        elements += _LEAF_ELEMENT.pack(flags, pos, len(key), len(value))
        data += key + value
    return elements + data


def _branch_body(children: list[tuple[bytes, int]]) -> bytes:
    elements, data = b"", b""
    for index, (key, page) in enumerate(children):
        elements += _BRANCH_ELEMENT.pack((len(children) - index) * ELEMENT_BYTES + len(data), len(key), page)
        data += key
    return elements + data


def meta_page(number: int, page_size: int, root: int, freelist: int, page_count: int, transaction: int) -> bytes:
    """A meta page."""
    fields = _META.pack(0xED0CDAED, 2, page_size, 0, root, 0, freelist, page_count, transaction)
    page = PAGE_HEADER.pack(number, META_PAGE, 0, 0) + fields + struct.pack("<Q", fnv1a_64(fields))
    return page.ljust(page_size, b"\0")


def fnv1a_64(data: bytes) -> int:
    """The checksum of a meta page."""
    value = 14695981039346656037
    for byte in data:
        value = ((value ^ byte) * 1099511628211) % 2**64
    return value


class Edit:
    """
    A snapshot file under change.

    Pages are addressed by number, elements by their place in the page; fields that are not named stay as they are.
    """

    def __init__(self, snapshot: bytes) -> None:
        self.image = bytearray(snapshot[:-32])
        self.page_size = self.meta(0)["page_size"]

    def seal(self) -> bytes:
        """The file, with a trailer that fits it."""
        return seal(bytes(self.image))

    def at(self, page: int) -> int:
        """Where a page begins."""
        return page * self.page_size

    def pages(self, flags: int) -> list[int]:
        """The pages of one type, in file order."""
        found, page, count = [], 2, len(self.image) // self.page_size
        while page < count:
            page_id, page_flags, _, overflow = PAGE_HEADER.unpack_from(self.image, self.at(page))
            if page_id == page and page_flags == flags:
                found.append(page)
            page += overflow + 1
        return found

    def big_leaf(self) -> int:
        """A leaf page of bucket ``key`` with several entries."""
        return next(
            page for page in self.pages(LEAF_PAGE) if self.header(page)["count"] > 2 and self.keys(page)[0][8:9] == b"_"
        )

    def header(self, page: int) -> dict[str, int]:
        """A page's header."""
        names = ("page_id", "flags", "count", "overflow")
        return dict(zip(names, PAGE_HEADER.unpack_from(self.image, self.at(page)), strict=True))

    def set_header(self, page: int, **fields: int) -> Edit:
        PAGE_HEADER.pack_into(self.image, self.at(page), *(self.header(page) | fields).values())
        return self

    def meta(self, number: int) -> dict[str, int]:
        """The fields of a meta page."""
        start = HEADER_BYTES + (number * self.page_size if number else 0)
        return dict(zip(_META_NAMES, _META.unpack_from(self.image, start), strict=True))

    def set_meta(self, *numbers: int, **fields: int) -> Edit:
        """Change fields of meta pages and give them a checksum that fits."""
        for number in numbers or (0, 1):
            start = number * self.page_size + HEADER_BYTES
            packed = _META.pack(*(self.meta(number) | fields).values())
            self.image[start : start + len(packed) + 8] = packed + struct.pack("<Q", fnv1a_64(packed))
        return self

    def element(self, page: int, index: int) -> dict[str, int]:
        """One element of a leaf or branch page."""
        names, layout = self._element_layout(page)
        return dict(zip(names, layout.unpack_from(self.image, self._element_at(page, index)), strict=True))

    def set_element(self, page: int, index: int, **fields: int) -> Edit:
        _, layout = self._element_layout(page)
        layout.pack_into(self.image, self._element_at(page, index), *(self.element(page, index) | fields).values())
        return self

    def key_at(self, page: int, index: int) -> int:
        """Where the key of an element stands."""
        return self._element_at(page, index) + self.element(page, index)["pos"]

    def value_at(self, page: int, index: int) -> int:
        """Where the value of a leaf element stands."""
        return self.key_at(page, index) + self.element(page, index)["key_size"]

    def keys(self, page: int) -> list[bytes]:
        """The keys of a page."""
        count = self.header(page)["count"]
        starts = [(self.key_at(page, index), self.element(page, index)["key_size"]) for index in range(count)]
        return [bytes(self.image[start : start + size]) for start, size in starts]

    def write(self, start: int, data: bytes) -> Edit:
        """Overwrite bytes."""
        self.image[start : start + len(data)] = data
        return self

    def flip(self, start: int, bit: int = 0) -> Edit:
        """Flip one bit."""
        self.image[start] ^= 1 << bit
        return self

    def _element_at(self, page: int, index: int) -> int:
        return self.at(page) + HEADER_BYTES + index * ELEMENT_BYTES

    def _element_layout(self, page: int) -> tuple[tuple[str, ...], struct.Struct]:
        if self.header(page)["flags"] == BRANCH_PAGE:
            return ("pos", "key_size", "child"), _BRANCH_ELEMENT
        return ("flags", "pos", "key_size", "value_size"), _LEAF_ELEMENT
