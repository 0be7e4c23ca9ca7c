"""
What exists at a revision: one pass over the records of bucket ``key``, from the newest to the oldest.

The time of a full list goes here. So, as in :mod:`etcdkeep.snapshot.scan`, the usual record is recognised by one
regular expression, and :func:`~etcdkeep.snapshot.record.decode_record` reads all others.
"""

from __future__ import annotations

from struct import Struct
from typing import TYPE_CHECKING

from etcdkeep.errors import SnapshotDamaged
from etcdkeep.snapshot.record import (
    AFTER_KEY,
    LEASE,
    LENGTH_GROUP,
    REVISION_BYTES,
    VARINTS,
    Record,
    decode_record,
    encode_varint,
)
from etcdkeep.snapshot.tree import ELEMENT_BYTES, LEAF_ELEMENT

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from etcdkeep.snapshot.tree import Leaf

_HEAD = Struct(">QBQBB")
_SEPARATOR, _KEY_TAG = ord("_"), 0x0A
_FIRST_VERSION = b"\x20\x01\x2a"
"""Version 1, and the tag of the value."""
_LOW_SEVEN_BITS = tuple(bytes((bits | 0x80,)) for bits in range(128))


def live_records(leaves: Iterable[Leaf], prefix: bytes, revision: int) -> Iterator[tuple[Record, bytes]]:
    """
    Yield the last record, and its value, of each key that exists at `revision`, the newest record first.

    Holds a hash of each key in memory. Of records that newer ones replace, only their place and order are checked.

    :param leaves: From the last to the first.
    :raises SnapshotDamaged: when a record is not what etcd writes.
    """
    seen: set[int] = set()
    read_head, match_after_key, match_lease = _HEAD.unpack_from, AFTER_KEY.match, LEASE.fullmatch
    new_record = tuple.__new__  # Record._make checks a length that stands here
    later_main, later_sub = 1 << 63, 0
    upper, upper_bytes = 0, b""
    for page, offset, count, body in leaves:
        keys_start = start = count * ELEMENT_BYTES
        element = keys_start
        following = 0
        for flags, pos, key_size, value_size in reversed(list(LEAF_ELEMENT.iter_unpack(body[:keys_start]))):
            element -= ELEMENT_BYTES
            start = element + pos
            value = start + key_size
            end = value + value_size
            if flags or start < keys_start or end > len(body) or (following and end != following):
                raise SnapshotDamaged(f"page {page}: a leaf element has the wrong type or place")
            following = start
            if key_size == REVISION_BYTES and value_size > 3:
                main, separator, sub, tag, name_size = read_head(body, start)
                name = value + 2
                if name_size > 0x7F:
                    name_size += (body[name] - 1) << 7
                    name += 1
                name_end = name + name_size
                # A longer key has a longer length in front of it, which the general decoder reads.
                if tag == _KEY_TAG and separator == _SEPARATOR and 0 < name_size < 1 << 14 and name_end <= end:
                    key = body[name:name_end]
                    known = hash(key)
                    if main < later_main or (main == later_main and sub < later_sub):
                        if main > revision or known in seen or (prefix and not key.startswith(prefix)):
                            later_main, later_sub = main, sub
                            continue
                        if main >> 7 != upper:
                            upper = main >> 7
                            upper_bytes = encode_varint(upper)
                        mod = _LOW_SEVEN_BITS[main & 0x7F] + upper_bytes
                        once = b"\x10" + mod + b"\x18" + mod + _FIRST_VERSION
                        created, version, leased = 0, 1, 0
                        value_start, value_end = name_end + len(once) + 1, end
                        # Half of all objects are written once: what is left to be read of them is the value's length.
                        if value_start < end and body.startswith(once, name_end):
                            size = body[value_start - 1]
                            if size > 0x7F:
                                size += (body[value_start] - 1) << 7
                                value_start += 1
                            if size < 1 << 14 and value_start + size == end:
                                created = main
                        if not created and (fields := match_after_key(body, name_end, end)):
                            create, own, versions, length, _ = fields.groups()
                            value_start = fields.end(LENGTH_GROUP) if length else fields.end()
                            value_end = value_start + VARINTS[length] if length else value_start
                            lease = match_lease(body, value_end, end) if value_end < end else None
                            first = main if create == own else VARINTS[create]
                            if own == mod and first <= main and (value_end == end or lease):
                                created, version = first, VARINTS[versions]
                                leased = VARINTS[lease[1]] if lease else 0
                        if created:
                            later_main, later_sub = main, sub
                            seen.add(known)
                            places = offset + value_start, offset + value_end
                            facts = (key, main, sub, False, created, version, leased, *places)
                            yield new_record(Record, facts), body[value_start:value_end]
                            continue
            try:
                record = decode_record(body[start:value], body, value, end, offset)
            except ValueError as error:
                raise SnapshotDamaged(f"page {page}: record {body[start:value][:18].hex()}: {error}") from error
            main, sub, known = record.revision, record.sub, hash(record.key)
            if (main, sub) >= (later_main, later_sub):
                raise SnapshotDamaged(f"page {page}: revision {main}/{sub} stands before {later_main}/{later_sub}")
            later_main, later_sub = main, sub
            if main <= revision and known not in seen and record.key.startswith(prefix):
                seen.add(known)
                if record.key and not record.tombstone:
                    yield record, body[record.value_start - offset : record.value_end - offset]
        if start != keys_start:
            raise SnapshotDamaged(f"page {page}: a leaf element has the wrong type or place")
