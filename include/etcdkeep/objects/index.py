"""
The index of a snapshot: what exists in it, sealed beside it, so that lists and comparisons need not read the snapshot.

``age -d | zstd -d`` gives one JSON document: its ``objects`` are blocks, each a list of the columns that ``columns``
names, since columns are read three times as fast as rows. A block is a line, so that nobody has to hold the whole
document.
"""

from __future__ import annotations

import json
from functools import partial
from itertools import chain, islice, repeat
from sys import intern
from typing import IO, TYPE_CHECKING, Any, NamedTuple

from pydantic_core import from_json

from etcdkeep import naming
from etcdkeep.digest import Hasher
from etcdkeep.errors import IdentityMismatch, ObjectDamaged, SealError
from etcdkeep.manifest import Plaintext, Stored
from etcdkeep.objects.compare import value_digest
from etcdkeep.objects.entries import Entry, entries_and_values, unreadable_entry
from etcdkeep.objects.keys import DEFAULT_PREFIX, clean_prefix
from etcdkeep.objects.prefix import choose_prefix
from etcdkeep.repository import Index
from etcdkeep.seal import seal, unseal

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from etcdkeep.age_keys import Identity
    from etcdkeep.ports import ObjectStore
    from etcdkeep.snapshot import Snapshot

SCHEMA_VERSION = 1
COLUMNS = (*Entry._fields[:-1], "value_digest")
_REPEATING = COLUMNS.index("name")
_OTHER = COLUMNS.index("other")
_ROWS_PER_BLOCK = 1000
_END = b"]}\n"
_make_entry = partial(tuple.__new__, Entry)


class IndexHeader(NamedTuple):
    """
    What an index says of its snapshot.

    :param size_bytes: Of the database.
    """

    revision: int
    compacted_revision: int
    size_bytes: int


def index_snapshot(
    store: ObjectStore,
    set_name: str,
    snapshot: Snapshot,
    recipients: Sequence[str],
    identities: Sequence[Identity],
    *,
    prefix: str | None = None,
) -> Index:
    """
    Store the index of a set's snapshot with the set, unless the very same is there.

    :param set_name: ``cluster/backup-id``.
    :param prefix: The API server's ``--etcd-prefix``; found in the snapshot when None.
    :return: Its digests, for the verification record.
    """
    name = f"{set_name}/{naming.INDEX}"
    prefix = choose_prefix(snapshot, set_name) if prefix is None else clean_prefix(prefix)
    if store.stat(name) is not None:
        found = _open_stored(store, name, snapshot, prefix, identities)
        if found is not None:
            return found
        store.delete(name)
    with store.create(name) as sink:
        sealed = seal(_blocks(snapshot, prefix), sink, recipients)
    return Index(
        plaintext=Plaintext(size_bytes=sealed.plain_size_bytes, sha256=sealed.plain_sha256),
        stored=Stored(size_bytes=sealed.stored_size_bytes, sha256=sealed.stored_sha256, crc32c=sealed.stored_crc32c),
    )


def open_index(
    store: ObjectStore, set_name: str, index: Index, identities: Sequence[Identity], plain: IO[bytes]
) -> IndexReader:
    """
    Open the index of a set.

    :param index: What the verification that made it recorded.
    :param plain: A private file for the plaintext.
    :raises NotFound: when it is gone.
    :raises ObjectDamaged: when it is not what was recorded, or of a later version.
    :raises IdentityMismatch: when none of the identities opens it.
    """
    name = f"{set_name}/{naming.INDEX}"
    try:
        with store.open(name) as stored:
            facts = unseal(stored, plain, identities, size_limit=index.plaintext.size_bytes)
    except SealError as err:
        raise ObjectDamaged(f"{name}: {err}") from err
    if facts.plain_sha256 != index.plaintext.sha256:
        raise ObjectDamaged(f"{name}: SHA-256 is {facts.plain_sha256}, recorded is {index.plaintext.sha256}.")
    plain.flush()
    plain.seek(0)
    return IndexReader(plain, name)


class IndexReader:
    """
    Reads an index whose digest was right.

    :ivar prefix: The API server's ``--etcd-prefix``.
    :raises ObjectDamaged: when it is of a version that we do not know.
    """

    def __init__(self, plain: IO[bytes], name: str) -> None:
        self._plain = plain
        try:
            head = json.loads(plain.readline() + _END)
            if head["schema_version"] != SCHEMA_VERSION or tuple(head["columns"]) != COLUMNS:
                raise ValueError(f"schema_version is {head['schema_version']}")
            self.prefix = str(head.get("prefix", DEFAULT_PREFIX))
            self.header = IndexHeader(*(int(head[field]) for field in IndexHeader._fields))
        except (ValueError, KeyError, TypeError) as err:
            raise ObjectDamaged(
                f"{name} is no index of schema_version {SCHEMA_VERSION} ({err}); verify the set again to have a new one."
            ) from err

    def __iter__(self) -> Iterator[tuple[Entry, str]]:
        """Yield each entry with the digest of its value."""
        for columns, digests in self._read():
            yield from zip(map(_make_entry, zip(*columns, repeat(0))), digests, strict=True)

    def entries(self) -> Iterator[Entry]:
        """Yield each entry."""
        return chain.from_iterable(map(_make_entry, zip(*columns, repeat(0))) for columns, _ in self._read())

    def _read(self) -> Iterator[tuple[list[Any], list[str]]]:
        """Yield the columns of each block, and the digests."""
        for line in self._plain:
            if line == _END:
                return
            if line == b"\n":
                continue
            *columns, digests = _parse(line.rstrip(b",\n"))
            # Most of these repeat: one string for all of a kind or namespace keeps the memory of a list small.
            columns[:_REPEATING] = (map(intern, column) for column in columns[:_REPEATING])
            if any(columns[_OTHER]):
                columns = _name_unreadable(columns, self.prefix)
            yield columns, digests


def _name_unreadable(columns: list[Any], prefix: str) -> list[Any]:
    """Give objects that cannot be read their kind and place, which indexes of before leave to the key."""
    rows = [list(row) for row in zip(*columns, strict=True)]
    for row in rows:
        entry = _make_entry((*row, 0))
        if entry.other and not entry.resource:
            row[:] = unreadable_entry(entry, prefix)[:-1]
    return list(zip(*rows, strict=True))


def _parse(block: bytes) -> Any:
    try:
        return from_json(block, cache_strings="none")
    except ValueError:  # a key that is no UTF-8 has lone surrogates, which only the slower one takes
        return json.loads(block)


def _blocks(snapshot: Snapshot, prefix: str) -> Iterator[bytes]:
    """Yield the document; the same snapshot gives the same bytes."""
    header: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        **IndexHeader(snapshot.current_revision, snapshot.compacted_revision, snapshot.size_bytes)._asdict(),
        "prefix": prefix,
        "columns": COLUMNS,
    }
    rows = ((*entry[:-1], value_digest(value)) for entry, value in entries_and_values(snapshot, prefix))
    yield json.dumps(header)[:-1].encode() + b', "objects": [\n'
    separator = b""
    while block := list(islice(rows, _ROWS_PER_BLOCK)):
        yield separator + json.dumps(list(zip(*block, strict=True)), separators=(",", ":")).encode()
        separator = b",\n"
    yield b"\n" + _END


def _open_stored(
    store: ObjectStore, name: str, snapshot: Snapshot, prefix: str, identities: Sequence[Identity]
) -> Index | None:
    """Return the digests of the stored index when it says what this one would."""
    wanted = Hasher()
    for block in _blocks(snapshot, prefix):
        wanted.update(block)
    digest = wanted.digest()
    try:
        with store.open(name) as stored:
            facts = unseal(stored, _Nowhere(), identities, size_limit=digest.size_bytes)
    except (SealError, IdentityMismatch):
        return None
    plaintext = Plaintext(size_bytes=facts.plain_size_bytes, sha256=facts.plain_sha256)
    if plaintext != Plaintext(size_bytes=digest.size_bytes, sha256=digest.sha256):
        return None
    return Index(
        plaintext=plaintext,
        stored=Stored(size_bytes=facts.stored_size_bytes, sha256=facts.stored_sha256, crc32c=facts.stored_crc32c),
    )


class _Nowhere:
    def write(self, data: bytes, /) -> int:
        return len(data)
