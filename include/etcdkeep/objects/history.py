"""What happened to one object, as far as a snapshot reaches."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from etcdkeep.snapshot import Record

_NOISE = ("managedFields", "resourceVersion")
_MAX_PATHS = 200


class Version(NamedTuple):
    """
    One write of an object.

    :param event: ``created``, ``changed``, ``unchanged`` (written anew as it was), ``deleted``, or ``was there``: an
        older write is compacted away.
    :param uid: Another one than before: another incarnation under the same name.
    :param paths: Which fields differ from the version before, ``spec.replicas``.
    :param content: None for a deletion.
    """

    revision: int
    event: str
    uid: str
    size_bytes: int
    paths: tuple[str, ...]
    content: dict[str, Any] | None


def versions(records: Iterable[Record], decode: Callable[[Record], dict[str, Any]]) -> Iterator[Version]:
    """
    Yield what each record did, oldest first.

    :param records: Of one key, oldest first.
    :param decode: Gives the object of a record.
    """
    before: dict[str, Any] | None = None
    for record in records:
        if record.tombstone:
            yield Version(record.revision, "deleted", "", 0, (), None)
            before = None
            continue
        content = decode(record)
        metadata = content.get("metadata")
        uid = str(metadata.get("uid", "")) if isinstance(metadata, dict) else ""
        created = record.create_revision == record.revision
        paths = tuple(changed_paths(before, content)) if before is not None and not created else ()
        event = "created" if created else "was there" if before is None else "changed" if paths else "unchanged"
        yield Version(record.revision, event, uid, record.value_end - record.value_start, paths, content)
        before = content


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
    if isinstance(before, dict) and isinstance(after, dict):
        for name in dict.fromkeys([*before, *after]):
            inner = f"{path}.{name}" if path else name
            if name in before and name in after:
                yield from _changed(before[name], after[name], inner)
            else:
                yield inner
    elif isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        for index, (old, new) in enumerate(zip(before, after, strict=True)):
            yield from _changed(old, new, f"{path}[{index}]")
    elif before != after or isinstance(before, bool) != isinstance(after, bool):
        yield path
