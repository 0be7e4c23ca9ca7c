"""
The index of a snapshot: what exists in it, sealed beside it, so that lists and comparisons need not read the snapshot.

``age -d | zstd -d`` gives one JSON document: its ``objects`` are blocks, each a list of the columns that ``columns``
names, since columns are read three times as fast as rows. A block is a line, so that nobody has to hold the whole
document.
"""

from __future__ import annotations

import json
import logging
from functools import partial
from itertools import chain, islice, repeat
from sys import intern
from typing import IO, TYPE_CHECKING, Any, NamedTuple

from pydantic_core import from_json

from etcdkeep import naming
from etcdkeep.errors import IdentityMismatch, ObjectDamaged, PermanentError, SealError
from etcdkeep.objects.compare import value_digest
from etcdkeep.objects.entries import Entry, entries_and_values, unreadable_entry
from etcdkeep.objects.keys import DEFAULT_PREFIX, clean_prefix
from etcdkeep.objects.prefix import choose_prefix
from etcdkeep.sealing.digest import Hasher
from etcdkeep.sealing.seal import seal, unseal
from etcdkeep.sets.manifest import Plaintext, Stored
from etcdkeep.sets.results import Index

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from etcdkeep.ports import ByteSink, ObjectStore
    from etcdkeep.sealing.age_keys import Identity
    from etcdkeep.sealing.seal import Sealed
    from etcdkeep.snapshot import Snapshot

log = logging.getLogger(__name__)

SCHEMA_VERSION = 1
COLUMNS = (*Entry._fields[:-1], "value_digest")
_REPEATING = COLUMNS.index("name")
_OTHER = COLUMNS.index("other")
_ROWS_PER_BLOCK = 1000
MAX_LINE_BYTES = 4 * 2**20
"""A block of a thousand objects with the longest names has less."""
_END = b"]}\n"
_NO_BLOCK = (_END, b"\n")
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
    index_recipients: Sequence[str] = (),
    prefix: str | None = None,
    recorded: Index | None = None,
) -> Index:
    """
    Store the index of a set's snapshot with the set, unless the very same is there, sealed to the same recipients.

    :param set_name: ``cluster/backup-id``.
    :param recipients: Those of the snapshot.
    :param index_recipients: More of them, whose identities open indexes and nothing else.
    :param prefix: The API server's ``--etcd-prefix``; found in the snapshot when None.
    :param recorded: The index that the last verification recorded: a sealed file does not tell its recipients.
    :return: Its digests, for the verification record.
    """
    name = f"{set_name}/{naming.INDEX}"
    prefix = choose_prefix(snapshot, set_name) if prefix is None else clean_prefix(prefix)
    wanted = (*recipients, *index_recipients)
    if store.stat(name) is not None:
        found = _open_stored(store, name, snapshot, prefix, identities)
        if found is not None:
            known = recorded.recipients if recorded and recorded.stored == found.stored else ()
            found = found.model_copy(update={"recipients": known or tuple(recipients)})
            if set(found.recipients) == set(wanted):
                return found
        try:
            store.delete(name)
        except PermanentError as err:
            if found is None:
                raise
            log.warning("%s stays sealed to the recipients of before: %s", name, err)
            return found
    with store.create(name) as sink:
        return _index(seal(_blocks(snapshot, prefix), sink, wanted), wanted)


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
    _unseal_recorded(store, name, index, identities, plain)
    plain.flush()
    plain.seek(0)
    return IndexReader(plain, name)


class IndexReader:
    """
    Reads an index whose digest was right, as often as it is asked, one reading at a time.

    :ivar prefix: The API server's ``--etcd-prefix``.
    :raises ObjectDamaged: when it is of a version that we do not know.
    """

    def __init__(self, plain: IO[bytes], name: str) -> None:
        self._plain = plain
        self.header, self.prefix = _head(plain.readline(), name)
        self._start = plain.tell()

    def __iter__(self) -> Iterator[tuple[Entry, str]]:
        """Yield each entry with the digest of its value."""
        for columns, digests in self._read():
            yield from zip(map(_make_entry, zip(*columns, repeat(0))), digests, strict=True)

    def entries(self) -> Iterator[Entry]:
        """Yield each entry."""
        return chain.from_iterable(map(_make_entry, zip(*columns, repeat(0))) for columns, _ in self._read())

    def _read(self) -> Iterator[tuple[list[Any], list[str]]]:
        """Yield the columns of each block, and the digests."""
        self._plain.seek(self._start)
        for line in self._plain:
            if line not in _NO_BLOCK:
                yield _columns(line, self.prefix)


def stream_index(
    store: ObjectStore,
    set_name: str,
    index: Index,
    identities: Sequence[Identity],
    take: Callable[[Iterable[tuple[Entry, str]]], None],
    *,
    name: str | None = None,
) -> IndexHeader:
    """
    Give `take` the rows of a set's index, a block at a time as they are unsealed: nothing of it is kept or on disk.

    What was taken is to be used only when this has returned: not before is the index known to be what was recorded.

    :param name: Only blocks with an object of this name.
    :raises NotFound: when it is gone.
    :raises ObjectDamaged: when it is not what was recorded, or of a later version.
    :raises IdentityMismatch: when none of the identities opens it.
    """
    path = f"{set_name}/{naming.INDEX}"
    needle = b"" if name is None else json.dumps(f"/{name}")[1:].encode()  # as a key ends
    lines = _Lines(path, needle, take)
    _unseal_recorded(store, path, index, identities, lines)
    return lines.header


def _unseal_recorded(
    store: ObjectStore, name: str, index: Index, identities: Sequence[Identity], sink: ByteSink
) -> None:
    """Write an index's plaintext, and compare it with what was recorded; see :func:`open_index` for what it raises."""
    try:
        with store.open(name) as stored:
            facts = unseal(stored, sink, identities, size_limit=index.plaintext.size_bytes)
    except SealError as err:
        raise ObjectDamaged(f"{name}: {err}") from err
    if facts.plain_sha256 != index.plaintext.sha256:
        raise ObjectDamaged(f"{name}: SHA-256 is {facts.plain_sha256}, recorded is {index.plaintext.sha256}.")


class _Lines:
    """The file that an index is unsealed into: each line is read when it is complete, and then forgotten."""

    header: IndexHeader

    def __init__(self, path: str, needle: bytes, take: Callable[[Iterable[tuple[Entry, str]]], None]) -> None:
        self._path, self._needle, self._take = path, needle, take
        self._prefix: str | None = None
        self._begun: list[bytes] = []
        self._length = 0

    def write(self, data: bytes, /) -> int:
        first, *lines = data.split(b"\n")
        self._begun.append(first)
        self._length += len(first)
        if self._length > MAX_LINE_BYTES:
            raise ObjectDamaged(
                f"{self._path} has a line of more than {MAX_LINE_BYTES} bytes, which no index of ours has."
            )
        for line in lines:
            self._line(b"".join(self._begun) + b"\n")
            self._begun, self._length = [line], len(line)
        return len(data)

    def _line(self, line: bytes) -> None:
        if self._prefix is None:
            self.header, self._prefix = _head(line, self._path)
        elif line not in _NO_BLOCK and self._needle in line:
            try:
                columns, digests = _columns(line, self._prefix)
                self._take(zip(map(_make_entry, zip(*columns, repeat(0))), digests, strict=True))
            except (ValueError, TypeError, AttributeError, LookupError, OverflowError, RecursionError) as err:
                raise ObjectDamaged(f"{self._path} has a block that cannot be read ({err}).") from err


def _head(line: bytes, name: str) -> tuple[IndexHeader, str]:
    """
    Return what the first line of an index says: of its snapshot, and the API server's ``--etcd-prefix``.

    :raises ObjectDamaged: when it is of a version that we do not know.
    """
    try:
        head = json.loads(line + _END)
        if head["schema_version"] != SCHEMA_VERSION or tuple(head["columns"]) != COLUMNS:
            raise ValueError(f"schema_version is {head['schema_version']}")
        return IndexHeader(*(int(head[field]) for field in IndexHeader._fields)), str(
            head.get("prefix", DEFAULT_PREFIX)
        )
    except (ValueError, KeyError, TypeError, RecursionError) as err:
        raise ObjectDamaged(
            f"{name} is not an index of schema_version {SCHEMA_VERSION} ({err}). Verify the set again to make a new one."
        ) from err


def _columns(line: bytes, prefix: str) -> tuple[list[Any], list[str]]:
    """Return the columns of a block, and the digests."""
    *columns, digests = _parse(line.rstrip(b",\n"))
    # Most of these repeat: one string for all of a kind or namespace keeps the memory of a list small.
    columns[:_REPEATING] = (map(intern, column) for column in columns[:_REPEATING])
    if any(columns[_OTHER]):
        columns = _name_unreadable(columns, prefix)
    return columns, digests


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
    if (facts.plain_size_bytes, facts.plain_sha256) != (digest.size_bytes, digest.sha256):
        return None
    return _index(facts)


def _index(facts: Sealed, recipients: tuple[str, ...] = ()) -> Index:
    return Index(
        plaintext=Plaintext(size_bytes=facts.plain_size_bytes, sha256=facts.plain_sha256),
        stored=Stored(size_bytes=facts.stored_size_bytes, sha256=facts.stored_sha256, crc32c=facts.stored_crc32c),
        recipients=recipients,
    )


class _Nowhere:
    def write(self, data: bytes, /) -> int:
        return len(data)
