"""
Messages to JSON, by the rules of Go's encoder: what the API server prints for an object it has just read.

A Go field without ``omitempty`` is always there, with its zero value (``null`` for lists, maps, bytes and pointers);
with it, it is left out when empty, except a struct, which is never empty. Some types print in a way of their own.
"""

from __future__ import annotations

import base64
import codecs
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import TYPE_CHECKING, Any

from etcdkeep.errors import ValueDamaged
from etcdkeep.objects.decoding import free_form, schema

if TYPE_CHECKING:
    from collections.abc import Callable

    Convert = Callable[[Any, "_Room"], Any]

OMITZERO_SINCE_MINOR = 34
"""From Kubernetes 1.34 on, an unset ``metadata.creationTimestamp`` (a pod template has one) is no more ``null``."""

MAX_MESSAGES = 200_000
"""Inner messages of one object; 1.5 MiB of real ones, the most that etcd takes, have a few ten thousand."""

_ZERO_TIME_S = -62135596800
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_ZERO = {"string": "", "bool": False, "int32": 0, "int64": 0}


def _each_byte(err: UnicodeError) -> tuple[str, int]:
    """Show each byte that is no UTF-8 as U+FFFD, like Go; Python's own "replace" shows one for a broken sequence."""
    if not isinstance(err, UnicodeDecodeError):
        raise err
    return "\ufffd", err.start + 1


codecs.register_error("etcdkeep-each-byte", _each_byte)


def to_json(message: Any, name: str, kubernetes_minor: int) -> dict[str, Any]:
    """
    Return the JSON that Kubernetes 1.`kubernetes_minor` prints for a parsed message.

    :param name: The message's name in the schema.
    :raises ValueDamaged: when a field holds what its type cannot, or there are absurdly many messages inside.
    """
    convert = _converter(name, kubernetes_minor >= OMITZERO_SINCE_MINOR)
    printed: dict[str, Any] = convert(message, _Room(MAX_MESSAGES))
    return printed


@dataclass(slots=True)
class _Room:
    """How many more messages one object may hold: two bytes on the wire can be a kilobyte in memory."""

    left: int


@cache
def _converter(message: str, honour_omitzero: bool) -> Convert:
    if message in _SPECIAL:
        return _SPECIAL[message]
    fields = schema.fields(message)
    if len(fields) == 1 and fields[0].inline and fields[0].container:
        return _named_list
    return _Struct(message, honour_omitzero)


class _Struct:
    """Converts one message type; the converters of its fields are made when first needed, so that types may recur."""

    def __init__(self, message: str, honour_omitzero: bool) -> None:
        self._message = message
        self._honour_omitzero = honour_omitzero
        self._ready = False
        self._values: dict[int, tuple[str, bool, Convert]] = {}
        self._structs: list[tuple[str, str, bool, Convert]] = []
        self._zeros: list[tuple[str, Any]] = []

    def __call__(self, message: Any, room: _Room) -> dict[str, Any]:
        if not self._ready:
            self._prepare()
        room.left -= 1
        if room.left < 0:
            raise ValueDamaged(f"it holds more than {MAX_MESSAGES} messages")
        out: dict[str, Any] = {}
        for descriptor, value in message.ListFields():
            rule = self._values.get(descriptor.number)
            if rule is not None:
                name, omit_empty, convert = rule
                if value or not omit_empty:
                    out[name] = convert(value, room)
        for name, attribute, omit_null, convert in self._structs:
            value = convert(getattr(message, attribute), room)
            if not name:
                out.update(value)
            elif value is not None or not omit_null:
                out[name] = value
        for name, zero in self._zeros:
            out.setdefault(name, zero)
        return out

    def _prepare(self) -> None:
        for field in schema.fields(self._message):
            convert = _field_converter(field, self._honour_omitzero)
            if field.is_message and not field.container and not field.pointer:
                omit_null = field.omitzero and self._honour_omitzero
                self._structs.append(("" if field.inline else field.name, f"f{field.number}", omit_null, convert))
                continue
            self._values[field.number] = (field.name, field.omitempty and not field.pointer, convert)
            if not field.omitempty:
                nullable = field.pointer or field.container
                self._zeros.append((field.name, None if nullable else _ZERO.get(field.type)))
        self._ready = True


def _field_converter(field: schema.Field, honour_omitzero: bool) -> Convert:
    convert = _converter(field.type, honour_omitzero) if field.is_message else _SCALAR[field.type]
    if field.container == "map":
        return lambda entries, room: {_text(key, room): convert(value, room) for key, value in entries.items()}
    if field.container == "list":
        return lambda values, room: [convert(value, room) for value in values]
    return convert


def _same(value: Any, _: _Room) -> Any:
    return value


def _text(value: str | bytes, _: _Room) -> str:
    # The protobuf library hands out a string that is no UTF-8 as bytes.
    return value if isinstance(value, str) else value.decode(errors="etcdkeep-each-byte")


def _base64(value: bytes, _: _Room) -> str:
    return base64.b64encode(value).decode()


def _named_list(message: Any, room: _Room) -> list[str]:
    """Print a Go type such as ``type ExtraValue []string``, a message on the wire: one that is there is never null."""
    return [_text(value, room) for value in message.f1]


def _time(message: Any, _: _Room) -> str | None:
    if not message.ListFields() or message.f1 == _ZERO_TIME_S:
        return None
    return _rfc3339(message.f1, 0, "seconds")


def _micro_time(message: Any, _: _Room) -> str | None:
    microseconds = message.f2 // 1000
    if not message.ListFields() or (message.f1 == _ZERO_TIME_S and not microseconds):
        return None
    return _rfc3339(message.f1, microseconds, "microseconds")


def _rfc3339(seconds: int, microseconds: int, precision: str) -> str:
    try:
        moment = _EPOCH + timedelta(seconds=seconds, microseconds=microseconds)
        return moment.isoformat(timespec=precision).replace("+00:00", "Z")
    except OverflowError as err:
        raise ValueDamaged(f"a timestamp is {seconds} seconds from 1970, outside the years 1 to 9999") from err


def _quantity(message: Any, room: _Room) -> str:
    return _text(message.f1, room) or "0"


def _int_or_string(message: Any, room: _Room) -> int | str:
    if message.f1 not in (0, 1):
        raise ValueDamaged(f"an int-or-string is of type {message.f1}; 0 (int) and 1 (string) exist")
    return _text(message.f3, room) if message.f1 else int(message.f2)


def _raw_json(message: Any, _: _Room) -> Any:
    """Print what is JSON already, exactly (RawExtension, FieldsV1)."""
    if not message.HasField("f1"):
        return None
    return free_form.parse(message.f1, "a free-form field")


_SCALAR: dict[str, Convert] = {"string": _text, "bytes": _base64, "bool": _same, "int32": _same, "int64": _same}
_SPECIAL: dict[str, Convert] = {
    "meta.v1.Time": _time,
    "meta.v1.MicroTime": _micro_time,
    "meta.v1.FieldsV1": _raw_json,
    "resource.Quantity": _quantity,
    "intstr.IntOrString": _int_or_string,
    "runtime.RawExtension": _raw_json,
}
