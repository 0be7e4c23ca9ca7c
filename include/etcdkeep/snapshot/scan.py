"""
One pass over the records of bucket ``key``: hash, counts, revision, and whether each record is what etcd writes.

The time of a check goes here (200,000 records in a file of 400 MB). So the usual record is recognised by one regular
expression, and :func:`~etcdkeep.snapshot.record.decode_record` judges all others.
"""

from __future__ import annotations

import re
from struct import Struct
from typing import TYPE_CHECKING, NamedTuple

import google_crc32c

from etcdkeep.snapshot.record import (
    AFTER_KEY,
    ENCRYPTED,
    LEASE,
    LENGTH_GROUP,
    PREFIX_GROUP,
    REVISION_BYTES,
    VARINTS,
    decode_record,
    encode_varint,
)
from etcdkeep.snapshot.tree import ELEMENT_BYTES, LEAF_ELEMENT

if TYPE_CHECKING:
    from collections.abc import Iterable

    from etcdkeep.snapshot.tree import Leaf, Problems

_PROVIDER = re.compile(rb"k8s:enc:([^:]{1,64}):v\d{1,3}:([^:]{0,256}):")
_MAX_ENCRYPTION_USES = 1000
_BATCH = 8192
_HEAD = Struct(">QBQBB")
_SEPARATOR, _KEY_TAG = ord("_"), 0x0A
_LOW_SEVEN_BITS = tuple(bytes((bits | 0x80,)) for bits in range(128))


class EncryptionUse(NamedTuple):
    """
    How a value was encrypted at rest, as its prefix ``k8s:enc:<provider>:v1:<key name>:`` says.

    :param provider: ``aescbc``, ``aesgcm``, ``secretbox`` or ``kms``.
    :param key_name: The key's name in the EncryptionConfiguration; for KMS, the provider's name there.
    """

    provider: str
    key_name: str


class RecordScan:
    """
    What the records of bucket ``key`` amount to.

    :param thorough: Whether to look at every field of a record; else at its revision and key only.
    """

    def __init__(self, *, thorough: bool) -> None:
        self.count = 0
        self._last = (0, -1)
        self.encryption: set[EncryptionUse] = set()
        # Hashes of the keys whose last record is no tombstone: a third of the memory that the keys would take.
        self._live: set[int] = set()
        self._thorough = thorough

    @property
    def revision(self) -> int:
        """Main revision of the last record, 0 when there is none."""
        return self._last[0]

    @property
    def live_keys(self) -> int:
        """Keys whose last record is no tombstone; a revision bump counts as one, as etcdutl counts it."""
        return len(self._live)

    def add(self, leaves: Iterable[Leaf], problems: Problems, crc: int) -> int:
        """
        Take in all records of the bucket.

        :return: CRC-32C `crc`, carried on over every key and value.
        """
        thorough = self._thorough
        puts: list[int] = []
        read_elements, read_head, extend_crc = LEAF_ELEMENT.iter_unpack, _HEAD.unpack_from, google_crc32c.extend
        match_after_key, is_lease = AFTER_KEY.match, LEASE.fullmatch
        last_main, last_sub = self._last
        upper, upper_bytes = 0, b""
        for page, _, count, body in leaves:
            self.count += count
            keys_start = start = count * ELEMENT_BYTES
            body_end = len(body)
            element = 0
            for flags, pos, key_size, value_size in read_elements(body[:start]):
                value = start + key_size
                end = value + value_size
                if flags or element + pos != start or end > body_end:
                    problems.add(f"page {page}: a leaf element has the wrong type or place")
                    break
                usual = False
                if key_size == REVISION_BYTES and value_size > 3:
                    main, separator, sub, tag, name_size = read_head(body, start)
                    name = value + 2
                    if name_size > 0x7F:
                        name_size += (body[name] - 1) << 7
                        name += 1
                    name_end = name + name_size
                    usual = tag == _KEY_TAG and separator == _SEPARATOR and name < name_end <= end
                    if usual and thorough:
                        usual = False
                        fields = match_after_key(body, name_end, end)
                        if fields is not None:
                            create, mod, _, length, prefix = fields.groups()
                            if main >> 7 != upper:
                                upper = main >> 7
                                upper_bytes = encode_varint(upper)
                            # Well-formed varints order as little-endian numbers do.
                            if mod == _LOW_SEVEN_BITS[main & 0x7F] + upper_bytes and (
                                create == mod or int.from_bytes(create, "little") < int.from_bytes(mod, "little")
                            ):
                                rest = fields.end(LENGTH_GROUP) + VARINTS[length] if length else fields.end()
                                usual = rest == end or is_lease(body, rest, end) is not None
                                if usual and prefix:
                                    self._note_encryption(body, fields.start(PREFIX_GROUP), end)
                if usual:
                    puts.append(hash(body[name:name_end]))
                else:
                    self._add_live(puts)
                    try:
                        main, sub = self._add_unusual(body, start, value, end)
                    except ValueError as error:
                        problems.add(f"page {page}: record {body[start:value][:18].hex()}: {error}")
                        main, sub = last_main, last_sub + 1
                if main <= last_main and (main < last_main or sub <= last_sub):
                    problems.add(f"page {page}: revision {main}/{sub} stands behind {last_main}/{last_sub}")
                last_main, last_sub = main, sub
                element += ELEMENT_BYTES
                start = end
            crc = extend_crc(crc, body[keys_start:start])
            if len(puts) >= _BATCH:
                self._add_live(puts)
        self._add_live(puts)
        self._last = (last_main, last_sub)
        return crc

    def _add_live(self, puts: list[int]) -> None:
        """Take in hashes of keys that were put: many at once is faster than one by one."""
        self._live.update(puts)
        puts.clear()

    def _add_unusual(self, body: bytes, start: int, value: int, end: int) -> tuple[int, int]:
        """Take in a tombstone, a revision bump, or a record encoded in another way."""
        record = decode_record(body[start:value], body, value, end)
        if record.tombstone:
            self._live.discard(hash(record.key))
        else:
            self._live.add(hash(record.key))
            if body.startswith(ENCRYPTED, record.value_start, record.value_end):
                self._note_encryption(body, record.value_start, record.value_end)
        return record.revision, record.sub

    def _note_encryption(self, body: bytes, start: int, end: int) -> None:
        if len(self.encryption) < _MAX_ENCRYPTION_USES:
            self.encryption.add(encryption_use(body, start, end))


def encryption_use(body: bytes, start: int = 0, end: int | None = None) -> EncryptionUse:
    """Read the prefix of an encrypted value; provider ``unknown`` where it is none that we know."""
    prefix = _PROVIDER.match(body, start, len(body) if end is None else end)
    provider, key_name = prefix.groups() if prefix else (b"unknown", b"")
    return EncryptionUse(provider.decode(errors="replace"), key_name.decode(errors="replace"))
