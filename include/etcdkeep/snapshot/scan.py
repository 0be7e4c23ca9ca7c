"""
One pass over the records of bucket ``key``: hash, counts, revision, and whether each record is what etcd writes.

The time of a check goes here (200,000 records in a file of 400 MB). So the usual record is recognised by one regular
expression, and :func:`~etcdkeep.snapshot.record.decode_record` judges all others.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from struct import Struct
from typing import NamedTuple

import google_crc32c

from etcdkeep.snapshot.record import (
    AFTER_KEY,
    ENCRYPTED,
    LEASE,
    LENGTH_GROUP,
    PREFIX_GROUP,
    REVISION_BYTES,
    Revision,
    decode_record,
    decode_varint,
    encode_varint,
)
from etcdkeep.snapshot.tree import ELEMENT_BYTES, LEAF_ELEMENT, Leaf, Problems

_PROVIDER = re.compile(rb"k8s:enc:([^:]{1,64}):v\d{1,3}:([^:]{0,256}):")
_MAX_ENCRYPTION_USES = 1000
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
    """What the records of bucket ``key`` amount to."""

    def __init__(self) -> None:
        self.count = 0
        self.last = Revision(0, -1)
        self.encryption: set[EncryptionUse] = set()
        # Hashes of the keys whose last record is no tombstone: a third of the memory that the keys would take.
        self._live: set[int] = set()

    @property
    def live_keys(self) -> int:
        """Keys whose last record is no tombstone; a revision bump counts as one, as etcdutl counts it."""
        return len(self._live)

    def add(self, leaves: Iterable[Leaf], problems: Problems, crc: int) -> int:
        """
        Take in all records of the bucket.

        :return: CRC-32C `crc`, carried on over every key and value.
        """
        read_elements, extend_crc, read_head = LEAF_ELEMENT.iter_unpack, google_crc32c.extend, _HEAD.unpack_from
        match_after_key, is_lease, add_live = AFTER_KEY.match, LEASE.fullmatch, self._live.add
        varints = _Varints()
        last_main, last_sub = self.last
        upper, upper_bytes = 0, b""
        for leaf in leaves:
            _, _, span, elements = leaf
            crc = extend_crc(crc, span)
            self.count += len(elements) // ELEMENT_BYTES
            start, before_span, span_size = 0, len(elements), len(span)
            for flags, pos, key_size, value_size in read_elements(elements):
                value = start + key_size
                end = value + value_size
                if flags or pos != before_span + start or end > span_size:
                    problems.add(f"page {leaf.page}: a leaf element has the wrong type or place")
                    break
                usual = False
                if key_size == REVISION_BYTES and value_size > 3:
                    main, separator, sub, tag, name_size = read_head(span, start)
                    name = value + 2
                    if name_size > 0x7F:
                        name_size += (span[name] - 1) << 7
                        name += 1
                    after_name = name + name_size
                    fields = match_after_key(span, after_name, end)
                    if fields is not None and tag == _KEY_TAG and separator == _SEPARATOR and name_size:
                        create, mod, _, size, prefix = fields.groups()
                        if main >> 7 != upper:
                            upper = main >> 7
                            upper_bytes = encode_varint(upper)
                        # Varints of unequal or equal length order as little-endian numbers do.
                        if mod == _LOW_SEVEN_BITS[main & 0x7F] + upper_bytes and (
                            create == mod or int.from_bytes(create, "little") < int.from_bytes(mod, "little")
                        ):
                            rest = fields.end() if size is None else fields.end(LENGTH_GROUP) + varints[size]
                            usual = rest == end or is_lease(span, rest, end) is not None
                            if usual:
                                add_live(hash(span[name:after_name]))
                                if prefix:
                                    self._note_encryption(span, fields.start(PREFIX_GROUP), end)
                if not usual:
                    try:
                        main, sub = self._add_unusual(span, start, value, end)
                    except ValueError as error:
                        problems.add(f"page {leaf.page}: record {span[start:value][:18].hex()}: {error}")
                if main < last_main or (main == last_main and sub <= last_sub):
                    problems.add(f"page {leaf.page}: revision {main}/{sub} stands behind {last_main}/{last_sub}")
                last_main, last_sub = main, sub
                before_span -= ELEMENT_BYTES
                start = end
            else:
                if start != span_size:
                    problems.add(f"page {leaf.page}: {span_size - start} bytes behind the last value")
        self.last = Revision(last_main, last_sub)
        return crc

    def _add_unusual(self, span: bytes, start: int, value: int, end: int) -> Revision:
        """Take in a tombstone, a revision bump, or a record encoded in another way."""
        record = decode_record(span[start:value], span, value, end)
        if record.tombstone:
            self._live.discard(hash(record.key))
        else:
            self._live.add(hash(record.key))
            if span.startswith(ENCRYPTED, record.value_start, record.value_end):
                self._note_encryption(span, record.value_start, record.value_end)
        return Revision(record.revision, record.sub)

    def _note_encryption(self, span: bytes, start: int, end: int) -> None:
        prefix = _PROVIDER.match(span, start, end)
        provider, key_name = prefix.groups() if prefix else (b"unknown", b"")
        if len(self.encryption) < _MAX_ENCRYPTION_USES:
            self.encryption.add(EncryptionUse(provider.decode(errors="replace"), key_name.decode(errors="replace")))


class _Varints(dict[bytes, int]):
    """Decoded varints: values of a few hundred sizes make up a snapshot."""

    def __missing__(self, encoded: bytes) -> int:
        if len(self) >= 1 << 14:
            self.clear()
        self[encoded], _ = decode_varint(encoded, 0, len(encoded))
        return self[encoded]
