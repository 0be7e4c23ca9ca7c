"""Fields that a value has and the schema has no name for: written by a Kubernetes newer than the table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from etcdkeep.errors import ValueDamaged
from etcdkeep.objects.decoding import schema

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass(frozen=True)
class UnknownField:
    """
    One field without a name.

    :param path: The message it stands in, in the words of the object's JSON: ``spec.containers[0]``.
    :param number: Its number on the wire.
    :param data: Its value: bytes for everything with a length, else the number's bits.
    """

    path: str
    number: int
    data: bytes | int

    def __str__(self) -> str:
        """Describe the field without its value, which may be secret."""
        size = f"{len(self.data)} bytes" if isinstance(self.data, bytes) else "a number"
        return f"{self.path or 'the object'} has a field number {self.number} ({size}) that this version cannot name"


def unknown_fields(message: Any, name: str) -> tuple[UnknownField, ...]:
    """
    Return the unknown fields of a message, those of inner messages included.

    :param name: The message's name in the schema.
    :raises ValueDamaged: when one is of a wire type that Kubernetes never writes.
    """
    known = type(message)()
    known.CopyFrom(message)
    known.DiscardUnknownFields()
    # Comparing sizes is quick, and nearly every object has none.
    return () if known.ByteSize() == message.ByteSize() else tuple(_walk(message, name, ""))


def _walk(message: Any, name: str, path: str) -> Iterator[UnknownField]:
    from google.protobuf.unknown_fields import UnknownFieldSet

    found: Any = UnknownFieldSet(message)
    for entry in found:
        if not isinstance(entry.data, bytes | int):
            raise ValueDamaged(f"{path or 'the object'} holds a group (field {entry.field_number})")
        yield UnknownField(path, entry.field_number, entry.data)
    for field in schema.fields(name):
        if not field.is_message:
            continue
        value = getattr(message, f"f{field.number}")
        place = path if field.inline else f"{path}.{field.name}".lstrip(".")
        if field.container == "map":
            for key, inner in value.items():
                yield from _walk(inner, field.type, f"{place}[{key}]")
        elif field.container == "list":
            for index, inner in enumerate(value):
                yield from _walk(inner, field.type, f"{place}[{index}]")
        elif message.HasField(f"f{field.number}"):
            yield from _walk(value, field.type, place)
