"""
The wire format of every built-in kind: field numbers, types and JSON rules, out of ``schema.json``.

That file is written by ``tools/kubernetes_schema.py``; a field in it reads ``number name type rule``. The type is a
scalar (``string``, ``int32``, ``int64``, ``bool``, ``bytes``) or a message, after ``list:`` or ``map:`` where there are
several. The rule is ``inline`` (the message's fields stand among its owner's) or any of ``pointer`` (unset differs
from zero), ``omitempty`` and ``omitzero`` (Go's rules for leaving a field out).

Nothing is loaded before the first object is decoded, and then only the API packages which that object needs.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from google.protobuf.descriptor_pb2 import DescriptorProto
    from google.protobuf.message import Message

SCALARS = ("string", "bytes", "bool", "int32", "int64")
ANY_KIND = "meta.v1.PartialObjectMetadata"
"""What every kind has in the same place: its metadata."""


@dataclass(frozen=True, slots=True)
class Field:
    """
    One field of a message.

    :param type: A scalar's or a message's name.
    :param container: ``list``, ``map`` (its keys are always strings) or nothing.
    :param pointer: The Go field is a pointer: set to zero is shown, unset is not.
    """

    number: int
    name: str
    type: str
    container: str
    inline: bool
    pointer: bool
    omitempty: bool
    omitzero: bool

    @property
    def is_message(self) -> bool:
        """Whether the value, or each of the values, is a message."""
        return self.type not in SCALARS


def kinds() -> dict[str, str]:
    """Return the message of every stored kind by ``<apiVersion> <kind>``."""
    return _table().kinds


def messages() -> tuple[str, ...]:
    """Return the name of every message in the table."""
    return tuple(_table().messages)


@cache
def fields(message: str) -> tuple[Field, ...]:
    """Return the fields of a message, in order of their numbers."""
    return tuple(_field(line) for line in _table().messages[message])


@cache
def message_class(message: str) -> type[Message]:
    """Return the class that parses and holds a message."""
    from google.protobuf import message_factory

    _add_package(_package(message))
    return message_factory.GetMessageClass(_pool().FindMessageTypeByName(message))


@dataclass(frozen=True)
class _Table:
    kinds: dict[str, str]
    messages: dict[str, list[str]]
    packages: dict[str, list[str]]


@cache
def _table() -> _Table:
    table = json.loads(Path(__file__).with_name("schema.json").read_bytes())
    packages: dict[str, list[str]] = {}
    for message in table["messages"]:
        packages.setdefault(_package(message), []).append(message)
    return _Table(table["kinds"], table["messages"], packages)


@cache
def _pool() -> Any:
    from google.protobuf.descriptor_pool import DescriptorPool

    return DescriptorPool()


@cache
def _add_package(package: str) -> None:
    """Describe the messages of one package, and before it those of the packages it uses, to the protobuf library."""
    from google.protobuf.descriptor_pb2 import FileDescriptorProto

    file = FileDescriptorProto(name=package, package=package, syntax="proto2")
    used: set[str] = set()
    for message in _table().packages[package]:
        described = file.message_type.add(name=message.rpartition(".")[2])
        for field in fields(message):
            _describe(described, message, field)
            if field.is_message:
                used.add(_package(field.type))
    for other in sorted(used - {package}):
        _add_package(other)
        file.dependency.append(other)
    _pool().Add(file)


def _describe(message: DescriptorProto, name: str, field: Field) -> None:
    if field.container == "map":
        entry = message.nested_type.add(name=f"F{field.number}Entry")
        entry.options.map_entry = True
        _set_type(entry.field.add(name="key", number=1, label=1), "string")
        _set_type(entry.field.add(name="value", number=2, label=1), field.type)
        described = message.field.add(name=f"f{field.number}", number=field.number, label=3)
        _set_type(described, f"{name}.{entry.name}")
    else:
        label = 3 if field.container else 1
        _set_type(message.field.add(name=f"f{field.number}", number=field.number, label=label), field.type)


def _set_type(field: Any, name: str) -> None:
    numbers = {"int64": 3, "int32": 5, "bool": 8, "string": 9, "bytes": 12}
    field.type = numbers.get(name, 11)
    if name not in numbers:
        field.type_name = f".{name}"


def _package(message: str) -> str:
    return message.rpartition(".")[0]


def _field(line: str) -> Field:
    number, name, declared, *rules = line.split()
    container, _, base = declared.rpartition(":")
    return Field(
        int(number),
        name,
        base,
        container,
        inline="inline" in rules,
        pointer="pointer" in rules,
        omitempty="omitempty" in rules,
        omitzero="omitzero" in rules,
    )
