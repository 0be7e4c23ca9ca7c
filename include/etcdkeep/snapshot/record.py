"""
One record of etcd's bucket ``key``: a key at a revision.

The bucket's key is the main revision (8 bytes, big-endian), ``_``, the sub revision (8 bytes), and ``t`` for a tombstone.
The value is the protobuf message mvccpb.KeyValue: key=1, create_revision=2, mod_revision=3, version=4, value=5,
lease=6. A tombstone has the key only; the record that ``etcdutl snapshot restore --bump-revision`` writes is empty.
"""

from __future__ import annotations

import re
from struct import Struct
from typing import NamedTuple, TypeAlias

REVISION_BYTES = 17
_REVISION = Struct(">QcQ")

ENCRYPTED = b"k8s:enc:"
_VARINT = rb"([\x80-\xff]{0,9}+[\x00-\x7f])"
AFTER_KEY = re.compile(rb"\x10%b\x18%b\x20%b(?:\x2a%b(%b)?)?" % (_VARINT, _VARINT, _VARINT, _VARINT, ENCRYPTED))
"""What follows the key in a record as etcd writes it: create and mod revision, version, length of the value."""
LENGTH_GROUP, PREFIX_GROUP = 4, 5
LEASE = re.compile(rb"\x30%b" % _VARINT)
"""What may follow the value."""

_VARINT_KIND, _FIXED_64, _LENGTH, _FIXED_32 = 0, 1, 2, 5
_KEY, _CREATE, _MOD, _VERSION, _VALUE, _LEASE = range(1, 7)
_KINDS = dict.fromkeys((_CREATE, _MOD, _VERSION, _LEASE), _VARINT_KIND) | dict.fromkeys((_KEY, _VALUE), _LENGTH)
_KEY_FIELD_TAG = bytes((_KEY << 3 | _LENGTH,))
_MAX_VARINT_BYTES = 10
_MAX_FIELDS = 64
_MAX_VARINTS = 1 << 14


_Fields: TypeAlias = tuple[bytes, int, int, int, int, int, int]
"""Key, create and mod revision, version, lease, start and end of the value."""


class Record(NamedTuple):
    """
    What one put or delete left. Keys of one prefix sort by key, records of one key by revision.

    :param key: Empty for the record of a revision bump.
    :param revision: The main revision: ``mod_revision``, ``resourceVersion`` of Kubernetes.
    :param tombstone: The key was deleted; all fields below are 0 then.
    :param value_start: Where the value stands in the file, up to `value_end`.
    """

    key: bytes
    revision: int
    sub: int
    tombstone: bool
    create_revision: int
    version: int
    lease: int
    value_start: int
    value_end: int


def decode_revision(key: bytes) -> tuple[int, int]:
    """
    Decode a key of bucket ``key`` into main and sub revision.

    :raises ValueError: when it is none.
    """
    if len(key) != REVISION_BYTES and not is_tombstone(key):
        raise ValueError(f"a key of {len(key)} bytes is not a revision")
    main, separator, sub = _REVISION.unpack_from(key)
    if separator != b"_" or (main | sub) >> 63:
        raise ValueError("the key is not a revision")
    return main, sub


def is_tombstone(key: bytes) -> bool:
    """Whether a key of bucket ``key`` records a deletion."""
    return len(key) == REVISION_BYTES + 1 and key.endswith(b"t")


def decode_record(revision_key: bytes, data: bytes, start: int, end: int, offset: int = 0) -> Record:
    """
    Decode one entry of bucket ``key``.

    :param data: Holds the entry's value from `start` to `end`.
    :param offset: Where `data` begins in the file.
    :raises ValueError: when the entry is not what etcd writes, with what is wrong.
    """
    main, sub = decode_revision(revision_key)
    fields = _decode_usual(data, start, end) or _decode_fields(data, start, end)
    key, create, mod, version, lease, value_start, value_end = fields
    tombstone = len(revision_key) > REVISION_BYTES
    is_bump = start == end and not tombstone
    if not key and not is_bump:
        raise ValueError("the value has no key")
    if not tombstone and not is_bump:
        if mod != main:
            raise ValueError(f"mod_revision is {mod}, expected {main}")
        if not 0 <= create <= main:
            raise ValueError(f"create_revision is {create}, expected at most {main}")
    return Record(key, main, sub, tombstone, create, version, lease, offset + value_start, offset + value_end)


def _decode_usual(data: bytes, start: int, end: int) -> _Fields | None:
    """Decode a put without a lease as etcd writes it; None for anything else."""
    if end - start < 4 or data[start] != _KEY_FIELD_TAG[0]:
        return None
    size, key_start = data[start + 1], start + 2
    if size > 0x7F:
        size += (data[key_start] - 1) << 7
        key_start += 1
    key_end = key_start + size
    fields = AFTER_KEY.match(data, key_end, end)
    if fields is None:
        return None
    create, mod, version, length, _ = fields.groups()
    value_start = fields.end(LENGTH_GROUP) if length else fields.end()
    if value_start + (VARINTS[length] if length else 0) != end:
        return None
    return data[key_start:key_end], VARINTS[create], VARINTS[mod], VARINTS[version], 0, value_start, end


def _decode_fields(data: bytes, start: int, end: int) -> _Fields:
    """Decode any encoding of the message; fields that it does not have are 0 or empty."""
    numbers = [0] * (_LEASE + 1)
    spans = {_KEY: (start, start), _VALUE: (start, start)}
    at = start
    for _ in range(_MAX_FIELDS):
        if at >= end:
            break
        tag, at = decode_varint(data, at, end)
        field, kind = tag >> 3, tag & 7
        if kind != _KINDS.get(field, kind):
            raise ValueError(f"field {field} of the value has wire type {kind}")
        if kind == _VARINT_KIND:
            number, at = decode_varint(data, at, end)
            if field in _KINDS:
                numbers[field] = number - 2**64 if number >> 63 else number
        elif kind == _LENGTH:
            size, at = decode_varint(data, at, end)
            if field in _KINDS:
                spans[field] = (at, at + size)
            at += size
        elif kind in (_FIXED_64, _FIXED_32):
            at += 8 if kind == _FIXED_64 else 4
        else:
            raise ValueError(f"field {field} of the value has wire type {kind}")
    if at != end:
        raise ValueError("the value ends inside a field")
    key = data[slice(*spans[_KEY])]
    return key, numbers[_CREATE], numbers[_MOD], numbers[_VERSION], numbers[_LEASE], *spans[_VALUE]


def encode_key_field(key: bytes) -> bytes:
    """Return the bytes with which the value of every record of `key` begins."""
    return _KEY_FIELD_TAG + encode_varint(len(key)) + key


def decode_varint(data: bytes, at: int, end: int) -> tuple[int, int]:
    """
    Decode the protobuf varint at `at`.

    :return: The number, unsigned, and where it ends.
    :raises ValueError: when it runs over `end` or is longer than ten bytes.
    """
    number = 0
    for index, byte in enumerate(data[at : min(end, at + _MAX_VARINT_BYTES)]):
        number |= (byte & 0x7F) << (7 * index)
        if byte < 0x80:
            return number & 0xFFFFFFFFFFFFFFFF, at + index + 1
    raise ValueError("the value has a number without an end")


def encode_varint(number: int) -> bytes:
    """Encode an unsigned number as a protobuf varint."""
    encoded = bytearray()
    while number > 0x7F:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)


class _Varints(dict[bytes, int]):
    """Decoded varints: most numbers of a snapshot repeat."""

    def __missing__(self, encoded: bytes) -> int:
        if len(self) >= _MAX_VARINTS:
            self.clear()
        number = 0
        for byte in reversed(encoded):
            number = number << 7 | byte & 0x7F
        self[encoded] = number
        return number


VARINTS = _Varints()
