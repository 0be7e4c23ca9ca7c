"""Whether a built-in kind that was stored as JSON has the types that its fields have."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from etcdkeep.errors import ValueDamaged
from etcdkeep.objects.decoding import schema

if TYPE_CHECKING:
    from collections.abc import Iterator

_NUMBER = (int, float)
_SCALARS: dict[str, tuple[type, ...]] = {
    "string": (str,),
    "bytes": (str,),
    "bool": (bool,),
    "int32": _NUMBER,
    "int64": _NUMBER,
    "meta.v1.Time": (str,),
    "meta.v1.MicroTime": (str,),
    "resource.Quantity": (str, *_NUMBER),
    "intstr.IntOrString": (str, *_NUMBER),
}
"""Also the messages that JSON has as one value."""
_ANYTHING = ("meta.v1.FieldsV1", "runtime.RawExtension")


def check_shape(content: dict[str, Any], message: str) -> None:
    """
    Refuse what the API server could not read as this kind; ``null`` is taken everywhere, as Go does.

    :param message: The kind's name in the schema.
    :raises ValueDamaged: with the first field that is of another type.
    """
    ahead: list[tuple[str, Any, str, str]] = [("", content, message, "")]
    while ahead:
        path, value, expected, container = ahead.pop()
        if value is None or expected in _ANYTHING:
            continue
        if container:
            ahead += _entries(path, value, expected, container)
        elif expected in _SCALARS:
            types = _SCALARS[expected]
            if not isinstance(value, types) or (isinstance(value, bool) and bool not in types):
                raise _damaged(path, value, types[0].__name__)
        else:
            ahead += _fields(path, value, expected)


def _entries(path: str, value: Any, expected: str, container: str) -> Iterator[tuple[str, Any, str, str]]:
    if not isinstance(value, dict if container == "map" else list):
        raise _damaged(path, value, container)
    named = value.items() if isinstance(value, dict) else enumerate(value)
    for name, each in named:
        yield f"{path}[{name}]", each, expected, ""


def _fields(path: str, value: Any, expected: str) -> Iterator[tuple[str, Any, str, str]]:
    fields = schema.fields(expected)
    if len(fields) == 1 and fields[0].inline and fields[0].container:  # a Go type such as []string
        yield path, value, fields[0].type, fields[0].container
        return
    if not isinstance(value, dict):
        raise _damaged(path, value, "map")
    for field in fields:
        if field.inline:
            yield path, value, field.type, field.container
        elif field.name in value:
            yield f"{path}.{field.name}".lstrip("."), value[field.name], field.type, field.container


def _damaged(path: str, value: Any, expected: str) -> ValueDamaged:
    words = {"str": "a string", "bool": "true or false", "int": "a number", "map": "a map", "list": "a list"}
    return ValueDamaged(f"its field {path or 'metadata'} is a {type(value).__name__}, expected {words[expected]}")
