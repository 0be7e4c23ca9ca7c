"""What happened to one object, as far as a snapshot reaches."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from etcdkeep.errors import ValueDamaged

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from etcdkeep.errors import EtcdkeepError
    from etcdkeep.snapshot import Record

_NOISE = ("managedFields", "resourceVersion")
_MAX_PATHS = 200
_ABSENT = object()


class Version(NamedTuple):
    """
    One write of an object.

    :param event: ``created``, ``changed``, ``unchanged`` (written anew as it was), ``deleted``, ``was there`` (an older
        write is compacted away), ``unreadable``, or ``written``: the write before it cannot be read.
    :param uid: Another one than before: another incarnation under the same name.
    :param paths: Which fields differ from the version before, ``spec.replicas``.
    :param content: None for a deletion, and where it cannot be read.
    :param problem: Why it cannot be read.
    """

    revision: int
    event: str
    uid: str
    size_bytes: int
    paths: tuple[str, ...]
    content: dict[str, Any] | None
    problem: EtcdkeepError | None = None


def versions(records: Iterable[Record], decode: Callable[[Record], dict[str, Any]]) -> Iterator[Version]:
    """
    Yield what each record did, oldest first.

    :param records: Of one key, oldest first.
    :param decode: Gives the object of a record.
    """
    before: dict[str, Any] | None = None
    unread = False
    for record in records:
        size_bytes = record.value_end - record.value_start
        if record.tombstone:
            yield Version(record.revision, "deleted", "", 0, (), None)
            before, unread = None, False
            continue
        try:
            content = decode(record)
        except ValueDamaged as err:
            yield Version(record.revision, "unreadable", "", size_bytes, (), None, err)
            before, unread = None, True
            continue
        metadata = content.get("metadata")
        uid = str(metadata.get("uid", "")) if isinstance(metadata, dict) else ""
        created = record.create_revision == record.revision
        paths = tuple(changed_paths(before, content)) if before is not None and not created else ()
        known = "written" if unread else "was there" if before is None else "changed" if paths else "unchanged"
        yield Version(record.revision, "created" if created else known, uid, size_bytes, paths, content)
        before, unread = content, False


def changed_paths(before: Any, after: Any) -> Iterator[str]:
    """Yield the fields that differ between two objects, without bookkeeping of the API server."""
    for index, path in enumerate(_changed(without_noise(before), without_noise(after), "")):
        if index == _MAX_PATHS:
            return
        yield path


def without_noise(content: Any) -> Any:
    """Return an object without the fields that change with every write."""
    metadata = content.get("metadata") if isinstance(content, dict) else None
    if not isinstance(metadata, dict):
        return content
    return {**content, "metadata": {name: value for name, value in metadata.items() if name not in _NOISE}}


def _changed(before: Any, after: Any, path: str) -> Iterator[str]:
    """Yield the paths that differ; without recursion, since objects nest as deep as they like."""
    ahead: list[tuple[Any, Any, str]] = [(before, after, path)]
    while ahead:
        before, after, path = ahead.pop()
        if isinstance(before, dict) and isinstance(after, dict):
            for name in reversed(dict.fromkeys([*before, *after])):
                inner = f"{path}.{name}" if path else name
                ahead.append((before.get(name, _ABSENT), after.get(name, _ABSENT), inner))
        elif isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
            pairs = [(old, new, f"{path}[{index}]") for index, (old, new) in enumerate(zip(before, after, strict=True))]
            ahead += reversed(pairs)
        elif (type(before) is not type(after) and {type(before), type(after)} & {dict, list, bool}) or before != after:
            yield path
