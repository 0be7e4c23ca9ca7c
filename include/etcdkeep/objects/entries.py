"""
What a snapshot holds, one entry per key, without decoding the objects: all that a list shows.

The time of a full list goes here (200,000 keys), so what repeats from key to key is worked out once.
"""

from __future__ import annotations

import re
from sys import intern
from typing import TYPE_CHECKING, NamedTuple

from etcdkeep.errors import ValueDamaged
from etcdkeep.objects.decoding import free_form
from etcdkeep.objects.decoding.decrypt import ENCRYPTED_MARK
from etcdkeep.objects.keys import DEFAULT_PREFIX, NOT_OF_THE_API, OTHER_PREFIX, parse_key, prefix_of
from etcdkeep.objects.resources import Resource, built_in
from etcdkeep.snapshot.record import decode_varint

if TYPE_CHECKING:
    from collections.abc import Iterator

    from etcdkeep.snapshot import Record, Snapshot

_PROTOBUF_MARK = b"k8s\x00"
_TYPE_META_TAG = _API_VERSION_TAG = 0x0A
_PROTOBUF_HEAD = _PROTOBUF_MARK + bytes((_TYPE_META_TAG,))
_PROTOBUF_HEAD_BYTES = len(_PROTOBUF_HEAD) + 1
"""What stands before apiVersion and kind in the envelope, with their length, which is below 128."""
_KIND_TAG = 0x12
_MAX_TYPE_META_BYTES = 1024
OBJECT_MARKS = (_PROTOBUF_MARK, ENCRYPTED_MARK, free_form.CBOR_MARK, b"{")
"""How a stored object begins."""
_TYPE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9./_-]*")
_JSON_HEAD = re.compile(rb'\{"(apiVersion|kind)":"([^"\\]{1,256})","(apiVersion|kind)":"([^"\\]{1,256})"[,}]')


class Entry(NamedTuple):
    """
    One key that exists at a revision.

    :param group: Of the kind, as its key or its stored apiVersion names it.
    :param resource: Plural.
    :param kind: Empty where neither value nor key tells it: an encrypted custom resource.
    :param api_version: As stored; empty where the value is encrypted.
    :param name: The whole key, where it holds no object of the API.
    :param key: The key's bytes, those that are no UTF-8 as lone surrogates.
    :param revision: When it was last written; the object's resourceVersion.
    :param create_revision: When it was made: another one tells that it was deleted in between.
    :param other: What the key is for when it holds no object of the API, or why its object cannot be read; else empty.
    :param value_start: Where the value stands in the snapshot file; 0 where only an index was read.
    """

    group: str
    resource: str
    kind: str
    api_version: str
    namespace: str
    name: str
    key: str
    revision: int
    create_revision: int
    size_bytes: int
    other: str = ""
    value_start: int = 0

    @property
    def type(self) -> Resource:
        """The kind of object."""
        return Resource(self.group, self.resource, self.kind)

    @property
    def holds_no_object(self) -> bool:
        """Whether the key is for something else than an object of the API."""
        return bool(self.other) and not self.resource

    @property
    def unreadable(self) -> str:
        """Why the object cannot be read, as far as its head tells; empty where it can."""
        return self.other if self.resource else ""

    @property
    def key_bytes(self) -> bytes:
        """The key."""
        return self.key.encode(errors="surrogateescape")

    @property
    def place(self) -> str:
        """``namespace/name``, or ``name``."""
        return f"{self.namespace}/{self.name}" if self.namespace else self.name


class _Reader:
    """Makes entries of records; remembers what repeats: the folders of keys and the heads of values."""

    def __init__(self, prefix: str = DEFAULT_PREFIX) -> None:
        self._prefix = prefix
        self._places: dict[bytes, tuple[str, str, str]] = {}
        self._types: dict[bytes, tuple[str, str, str]] = {}

    def entry(self, record: Record, value: bytes) -> Entry:
        """Say what a record holds; odd keys and values make an entry too."""
        key_bytes, revision, _, _, created, _, _, value_start, _ = record
        folder, _, name_bytes = key_bytes.rpartition(b"/")
        key = key_bytes.decode("utf-8", "surrogateescape")  # by position: twice as fast as by name
        place = self._places.get(folder)
        if place is None or not name_bytes:
            parsed = parse_key(key_bytes, self._prefix)
            if parsed.other:
                return _other(record, key, _purpose(parsed.other, key_bytes, value))
            place = intern(parsed.group), intern(parsed.resource), intern(parsed.namespace)
            # A key may read another way than its folder's others: /registry/services/specs.
            if parsed.name.encode() == name_bytes:
                self._places[folder] = place
        key_group, resource, namespace = place
        if value.startswith(_PROTOBUF_HEAD) and len(value) > _PROTOBUF_HEAD_BYTES:
            types = self._types.get(value[: _PROTOBUF_HEAD_BYTES + value[_PROTOBUF_HEAD_BYTES - 1]])
        elif match := _JSON_HEAD.match(value):
            types = self._types.get(match[0])
        else:
            types = None
        if types is None:
            try:
                types = self._type(value, key_group, resource)
            except ValueDamaged as err:
                return unreadable_entry(_other(record, key, str(err)), self._prefix)
        group, kind, api_version = types
        name = name_bytes.decode("utf-8", "replace")
        facts = group, resource, kind, api_version, namespace, name, key, revision, created, len(value), "", value_start
        return tuple.__new__(Entry, facts)

    def _type(self, value: bytes, key_group: str, resource: str) -> tuple[str, str, str]:
        """Return group, kind and apiVersion, and remember them for values that begin alike."""
        if value.startswith(ENCRYPTED_MARK):
            return (*_type_by_key(key_group, resource), "")
        api_version, kind = type_of(value)
        types = intern(api_version.rpartition("/")[0]), intern(kind), intern(api_version)
        if value.startswith(_PROTOBUF_HEAD):
            self._types[value[: _PROTOBUF_HEAD_BYTES + value[_PROTOBUF_HEAD_BYTES - 1]]] = types
        elif match := _JSON_HEAD.match(value):
            self._types[match[0]] = types
        return types


def entries(snapshot: Snapshot, revision: int | None = None, prefix: str = DEFAULT_PREFIX) -> Iterator[Entry]:
    """
    Yield what exists at a revision, the last written first; the current revision when None.

    :param prefix: The API server's ``--etcd-prefix``.
    :raises PermanentError: when the snapshot does not reach there.
    """
    make_entry = _Reader(prefix).entry
    for record, value in snapshot.live_values(revision=revision):
        yield make_entry(record, value)


def entries_and_values(snapshot: Snapshot, prefix: str = DEFAULT_PREFIX) -> Iterator[tuple[Entry, bytes]]:
    """Yield what exists at the snapshot's revision with its value as stored."""
    make_entry = _Reader(prefix).entry
    for record, value in snapshot.live_values():
        yield make_entry(record, value), value


def entry_of(record: Record, value: bytes, prefix: str = DEFAULT_PREFIX) -> Entry:
    """Say what one record holds."""
    return _Reader(prefix).entry(record, value)


def type_of(value: bytes) -> tuple[str, str]:
    """
    Return apiVersion and kind of a stored value that is not encrypted.

    :raises ValueDamaged: when it names none.
    """
    if not value.strip(b"\0"):
        raise ValueDamaged("it is all zeros" if value else "it is empty")
    names = _protobuf_type(value) if value.startswith(_PROTOBUF_MARK) else _json_type(value)
    if not all(names):
        raise ValueDamaged("it names no apiVersion and kind")
    if not all(_TYPE_NAME.fullmatch(name) for name in names):
        raise ValueDamaged("its apiVersion and kind are damaged")
    return names


def _protobuf_type(value: bytes) -> tuple[str, str]:
    """Read what stands first in the envelope: {apiVersion = 1, kind = 2}."""
    start, end = len(_PROTOBUF_MARK), len(value)
    names = {_API_VERSION_TAG: "", _KIND_TAG: ""}
    try:
        tag, at = decode_varint(value, start, end)
        size, at = decode_varint(value, at, end)
        if at + size > end:
            raise ValueDamaged("it ends inside its envelope")
        end = min(at + size, at + _MAX_TYPE_META_BYTES)
        while tag == _TYPE_META_TAG and at < end:
            name, at = decode_varint(value, at, end)
            size, at = decode_varint(value, at, end)
            if name not in names:
                break
            if at + size > end:
                raise ValueDamaged("it ends inside its apiVersion and kind")
            names[name] = value[at : at + size].decode(errors="replace")
            at += size
    except ValueError as err:
        raise ValueDamaged("its envelope is damaged") from err
    return names[_API_VERSION_TAG], names[_KIND_TAG]


def _json_type(value: bytes) -> tuple[str, str]:
    match = _JSON_HEAD.match(value)
    if match and match[1] != match[3]:
        names = {match[1]: match[2].decode(errors="replace"), match[3]: match[4].decode(errors="replace")}
        return names[b"apiVersion"], names[b"kind"]
    if not value.startswith((b"{", free_form.CBOR_MARK)):
        raise ValueDamaged("it holds no Kubernetes object")
    content = free_form.parse(value, "it")
    if not isinstance(content, dict):
        raise ValueDamaged("it holds no Kubernetes object")
    api_version, kind = (content.get(name) for name in ("apiVersion", "kind"))
    return (api_version, kind) if isinstance(api_version, str) and isinstance(kind, str) else ("", "")


def _type_by_key(key_group: str, resource: str) -> tuple[str, str]:
    """Return group and kind as far as a key tells them."""
    known = built_in().get(resource)
    if known is not None and key_group in ("", known.resource.group):
        return known.resource.group, known.resource.kind
    return key_group, ""


def unreadable_entry(entry: Entry, prefix: str) -> Entry:
    """Return an entry whose value tells nothing with what its key tells; as it is where that is of no object."""
    parsed = parse_key(entry.key_bytes, prefix)
    if parsed.other or not (parsed.group or parsed.resource in built_in()):
        return entry
    group, kind = _type_by_key(parsed.group, parsed.resource)
    return entry._replace(
        group=group, resource=parsed.resource, kind=kind, namespace=parsed.namespace, name=parsed.name
    )


def _purpose(by_key: str, key: bytes, value: bytes) -> str:
    """Say what a key is for that is none of the prefix: perhaps an object of another one."""
    prefix = prefix_of(key) if by_key == NOT_OF_THE_API and value.startswith(OBJECT_MARKS) else None
    return by_key if prefix is None else OTHER_PREFIX + prefix


def _other(record: Record, key: str, purpose: str) -> Entry:
    start, size = record.value_start, record.value_end - record.value_start
    return Entry("", "", "", "", "", key, key, record.revision, record.create_revision, size, purpose, start)
